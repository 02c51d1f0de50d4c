"""The ablation: variants share what they have in common, controls cost the same, and a report that adds up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from ablated import AN_EPOCH, TRAIN, fitted, toy
from model_toys import clicks

from benchmarks.ablation.report import as_json, as_markdown
from benchmarks.ablation.schedules import (
    Ablated,
    BestTower,
    BornAgain,
    ControlSettings,
    EnsembleTeacher,
    FreshTables,
    InheritOne,
    OneTower,
)
from benchmarks.ablation.variants import VARIANTS, staged
from benchmarks.ablation.verdicts import verdict
from benchmarks.accuracy.ledger import Bootstrap, Line, Metrics
from benchmarks.accuracy.models import METHOD, UNGROUPED, UNSHARED
from training.models.reaction import TowerPair

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.ablation.variants import Stage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ablated, Path]:
    where = tmp_path_factory.mktemp("phases")
    return fitted(Ablated, where), where


@pytest.mark.parametrize("control", [OneTower, BornAgain, EnsembleTeacher])
def test_a_control_takes_as_many_steps_as_the_whole_and_ends_with_one_tower(
    control: type[Ablated], whole: tuple[Ablated, Path]
) -> None:
    full, where = whole
    found = fitted(control, where, full.steps)
    assert abs(found.steps - full.steps) <= AN_EPOCH / 2
    assert found.model.widths == full.model.widths
    assert np.isfinite(found.predict(clicks(300, seed=50))).all()


def test_variants_share_the_towers_and_nothing_that_differs(whole: tuple[Ablated, Path]) -> None:
    full, where = whole
    before = {path.name: path.stat().st_mtime_ns for path in where.iterdir()}
    found = fitted(InheritOne, where)
    after = {path.name: path.stat().st_mtime_ns for path in where.iterdir()}
    assert {name: after[name] for name in before} == before  # nothing was trained again
    same = {phase for phase, digest in full.store.digests.items() if found.store.digests[phase] == digest}
    assert same == {"tower_a", "tower_b", "tower_c", "tower_d"}


def test_a_form_of_fresh_tables_begins_with_the_towers_layers(whole: tuple[Ablated, Path]) -> None:
    schedules = [toy(kind, whole[1], TRAIN) for kind in (Ablated, FreshTables)]
    with torch.random.fork_rng():
        forms = [schedule.beginning(schedule.towers(), "towers") for schedule in schedules]
    merged, tables = (dict(form.named_parameters()) for form in forms)
    for name, value in merged.items():
        assert torch.equal(value, tables[name]) == (not name.startswith("tables.")), name


def test_both_beginnings_are_shared_with_the_variants_that_have_one_of_them(whole: tuple[Ablated, Path]) -> None:
    full, where = whole
    assert {"fusion", "fusion_afresh"} < full.store.digests.keys()
    for start, phase in (("towers", "fusion"), ("afresh", "fusion_afresh")):
        found = toy(Ablated, where, TRAIN)
        found.dtf = found.dtf.model_copy(update={"fusion_start": start})
        with torch.random.fork_rng():
            found.fit()
        assert found.store.digests[phase] == full.store.digests[phase]
        assert found.store.spent.cpu_seconds[phase] == full.store.spent.cpu_seconds[phase]
        assert found.steps < full.steps


def test_a_phase_from_the_store_ends_and_costs_as_when_it_was_trained(whole: tuple[Ablated, Path]) -> None:
    full, where = whole
    again = fitted(Ablated, where)
    assert again.store.spent == full.store.spent
    split = clicks(300, seed=50)
    np.testing.assert_array_equal(again.predict(split), full.predict(split))


def test_a_control_searches_by_its_own_towers_and_stops_and_teaches_as_it_is_told(tmp_path: Path) -> None:
    told: dict[str, set[str]] = {}
    for kind in (OneTower, EnsembleTeacher):
        where = tmp_path / kind.__name__
        found = toy(kind, where, TRAIN.model_copy(update={"table_l2": None}), ControlSettings(monitor="log_loss"))
        with torch.random.fork_rng():
            torch.set_num_threads(1)
            found.settle()
        told[kind.__name__] = {phase.partition("_3")[0][:7] for phase in found.store.digests}
        assert found.config.table_l2 is not None
        records = [record for record in found.history if record["step"]]
        assert not any("tower_a.scaled_log_loss" in record for record in records)
    assert told == {"OneTower": {"tower_a"}, "EnsembleTeacher": {"tower_a", "tower_b", "tower_c", "tower_d"}}


def test_a_control_is_tuned_stage_after_stage_each_from_the_best_so_far() -> None:
    stages: tuple[Stage, ...] = (
        ({}, {"monitor": "log_loss"}),
        ({}, {"label_weight": 0.5}),
        ({}, {"l2": 0.3}, {"start": "fresh"}),
    )
    asked: list[ControlSettings] = []

    def loss(control: ControlSettings) -> float:
        asked.append(control)
        return -float((control.monitor == "log_loss") + (control.label_weight == 0.2) + (control.start == "fresh"))

    assert staged(stages, loss) == ControlSettings(monitor="log_loss", label_weight=0.2, start="fresh")
    assert len(asked) == len(set(asked)) == 2 + 1 + 2


def line(model: str, seed: int, auc: float, loss: float, task: str = "toy", **config: Any) -> Line:
    draw = np.random.default_rng(0).normal(0.0, 1e-4, 50)  # the same rows are drawn for everyone
    return Line(
        key=f"{abs(hash((model, seed, task, str(config)))):020x}"[-20:],
        task=task,
        data="0",
        split="random",
        model=model,
        purpose="ablation",
        config={"method": METHOD, **config},
        seed=seed,
        rows={"valid": 10},
        validation=Metrics(auc=auc, log_loss=loss),
        bootstrap_validation=Bootstrap(auc=tuple(auc + draw), log_loss=tuple(loss - draw)),
        steps=10,
        cpu_seconds=1.0,
        created="2026-01-01",
        versions={},
    )


def test_the_report_pairs_seeds_and_tells_a_clear_gain_from_a_tie() -> None:
    lines = [line("full", seed, 0.80 + 1e-4 * seed, 0.50) for seed in (1, 2, 3, 4)]
    lines += [line("without_merging", seed, 0.79 + 1e-4 * seed, 0.51) for seed in (1, 2, 3)]
    lines += [line("one_tower", seed, 0.80 + 1e-4 * seed, 0.50) for seed in (1, 2, 3, 4)]
    lines += [line("rich_tables", seed, 0.82, 0.48) for seed in (1, 2, 3)]
    lines += [line("without_gates", seed, 0.70, 0.58) for seed in (1, 2)]
    content = as_json(lines)
    clear, tie = (content["tasks"]["toy"][name]["whole_minus_this"] for name in ("without_merging", "one_tower"))
    # Only seeds that both have: the fourth seed's figure does not count.
    assert clear["auc"]["mean"] == pytest.approx(0.01, abs=1e-9)
    assert clear["auc"]["low"] > 0 > clear["log_loss"]["high"]
    assert tie["auc"]["low"] <= 0 <= tie["auc"]["high"]
    assert set(content["tasks"]["toy"]["without_gates"]["whole_minus_this"]["auc"]) == {"mean", "seeds"}
    page = as_markdown(content)
    assert "| +100.2 (two seeds) | -80.0 (two seeds) |" in page
    assert "`without_gates`: the part" not in page
    assert "**+10.0 (" in page
    assert "`without_merging`: the part helps in toy; undecided in 0 of 1 tasks, of 3 seeds at least." in page
    assert "`rich_tables`: the addition helps in toy; undecided in 0 of 1 tasks, of 3 seeds at least." in page
    assert "(`one_tower`), the whole clearly helps nowhere; undecided in 1 of 1 tasks, of 4 seeds at least." in page


def test_only_the_settings_that_were_run_last_by_the_method_as_it_is_are_reported() -> None:
    lines = [line("full", 1, 0.7, 0.6, rate=1), line("full", 1, 0.8, 0.5, rate=2)]
    lines.append(line("full", 1, 0.9, 0.4, rate=2, method=METHOD - 1))
    assert as_json(lines)["tasks"]["toy"]["full"]["auc"]["mean"] == pytest.approx(0.8)
    # One run of what a search found elsewhere does not take the place of three.
    lines = [line("full", seed, 0.8, 0.5, l2=1) for seed in (1, 2, 3)] + [line("full", 1, 0.6, 0.7, l2=4)]
    assert as_json(lines)["tasks"]["toy"]["full"]["auc"]["mean"] == pytest.approx(0.8)


def test_of_each_task_the_newest_method_with_seeds_enough_is_shown_and_an_older_one_said_to_be_that() -> None:
    def full(task: str, method: int, auc: float, *seeds: int) -> list[Line]:
        return [line("full", seed, auc, 0.5, task, method=method) for seed in seeds]

    old, new = METHOD - 1, METHOD
    lines = [
        *full("both", old, 0.7, 1, 2, 3),
        *full("both", new, 0.8, 1, 2, 3),
        *full("begun", old, 0.7, 1, 2, 3),
        *full("begun", new, 0.8, 1, 2),
        *full("one", METHOD - 2, 0.6, 1),
        *full("one", old, 0.7, 1),
    ]
    content = as_json(lines)
    assert content["methods"] == {"both": new, "begun": old, "one": old}
    shown = {task: figures["full"]["auc"]["mean"] for task, figures in content["tasks"].items()}
    assert shown == pytest.approx({"both": 0.8, "begun": 0.7, "one": 0.7})
    parts = as_markdown(content).split("\n## ")
    said = {
        part.partition("\n")[0]: f"**Of method {old}: the present one, {new}, has too few" in part for part in parts
    }
    assert [said[task] for task in ("both", "begun", "one")] == [False, True, True]


def test_lines_of_a_method_since_which_nothing_changed_on_their_data_are_of_the_present_one() -> None:
    seeds = (1, 2, 3)
    lines = [line("full", seed, 0.7, 0.5, "movielens_100k-time", method=UNSHARED) for seed in seeds]
    lines += [line("full", seed, 0.7, 0.5, "movielens_latest_tags-time", method=UNSHARED) for seed in seeds]
    lines += [line("full", seed, 0.6, 0.5, "avazu-time", method=UNGROUPED) for seed in seeds]
    lines += [line("full", 3, 0.9, 0.5, "avazu-time", method=UNSHARED)]  # the same again, later
    content = as_json(lines)
    methods = {"movielens_100k-time": METHOD, "movielens_latest_tags-time": UNSHARED, "avazu-time": METHOD}
    assert content["methods"] == methods
    assert content["against_controls"]["tasks"] == ["movielens_100k-time", "avazu-time"]
    whole = content["tasks"]["avazu-time"]["full"]
    assert whole["seeds"] == [1, 2, 3]
    assert whole["auc"]["mean"] == pytest.approx((0.6 + 0.6 + 0.9) / 3)


def test_one_seed_gives_a_difference_and_no_interval_and_no_verdict() -> None:
    lines = [line("full", 1, 0.80, 0.50), line("full", 2, 0.80, 0.50), line("without_merging", 1, 0.70, 0.60)]
    content = as_json(lines)
    assert set(content["tasks"]["toy"]["without_merging"]["whole_minus_this"]["auc"]) == {"mean", "seeds"}
    page = as_markdown(content)
    assert "| +100.0 (one seed) |" in page
    (row,) = [row for row in page.splitlines() if "`without_merging`" in row]
    assert "| 0.7000 |" in row  # one seed has no spread
    assert "±" not in row
    assert "`without_merging`: the part" not in page


def test_the_rule_for_dtf_and_its_controls_is_judged_task_by_task_and_metric_by_metric() -> None:
    def against(task: str, auc: float, loss: float, *controls: str) -> list[Line]:
        lines = [line("full", seed, 0.80, 0.50, task=task) for seed in (1, 2, 3)]
        return lines + [line(name, seed, auc, loss, task=task) for name in controls for seed in (1, 2, 3)]

    all_three = ("one_tower", "born_again", "ensemble_teacher")
    lines = [
        *against("ahead", 0.79, 0.51, *all_three),
        *against("by loss", 0.80, 0.51, *all_three),
        *against("one left out", 0.79, 0.51, *all_three[:2]),
        *against("behind", 0.81, 0.51, *all_three),
    ]
    content = as_json(lines)
    assert content["against_controls"] == {
        "method": METHOD,
        "tasks": ["ahead", "by loss", "one left out", "behind"],
        "seeds": 3,
        "compared": ["ahead", "by loss", "behind"],
        "ahead_by_auc": ["ahead"],
        "ahead_by_log_loss": ["ahead", "by loss", "behind"],
        "behind": [f"behind: {name}" for name in all_three],
    }
    assert "nothing is known yet" in as_markdown(as_json([]))
    page = as_markdown(content)
    assert "by AUC on 1 of 3 tasks (ahead), by log loss on" in " ".join(page.split())


def versus(task: str, auc: float, *names: str, seeds: int = 3, method: int = METHOD) -> list[Line]:
    """Lines of the whole, of AUC 0.8, and of variants on as many seeds."""
    return [
        line(name, seed, 0.80 if name == "full" else auc, 0.50, task, method=method)
        for name in ("full", *names)
        for seed in range(1, seeds + 1)
    ]


def test_verdicts_are_of_the_present_method_alone_and_say_on_how_many_tasks_and_seeds() -> None:
    names = ("without_gates", "one_tower", "born_again", "ensemble_teacher")
    lines = [
        *versus("now", 0.79, *names, seeds=3),
        *versus("now too", 0.79, *names, seeds=4),
        *versus("now in part", 0.79, "without_gates", seeds=4),
        *versus("before", 0.81, *names, "without_squares", method=METHOD - 1),
    ]
    content = as_json(lines)
    assert content["against_controls"] == {
        "method": METHOD,
        "tasks": ["now", "now too", "now in part"],
        "compared": ["now", "now too"],
        "seeds": 3,
        "ahead_by_auc": ["now", "now too"],
        "ahead_by_log_loss": [],
        "behind": [],  # of the earlier method's task all would be
    }
    page = " ".join(as_markdown(content).split())
    assert f"Lines of method {METHOD} alone are judged, or of one since which nothing changed on a" in page
    assert "data: of the 3 tasks that it is shown for, 2 have intervals" in page
    assert "all three, of 3 seeds at least. Clearly ahead of all three by AUC on 2 of 2 tasks (now, now too)" in page
    assert "the part helps in now, now too, now in part; undecided in 0 of 3 tasks, of 3 seeds at least; over" in page
    assert "`without_squares`: the part" not in page
    assert content["earned"]["without_gates"] | {"over_tasks": None} == {
        "ahead": ["now", "now too", "now in part"],
        "behind": [],
        "undecided": [],
        "seeds": 3,
        "over_tasks": None,
    }
    # A mean of three tasks is said, and of two is none.
    assert content["earned"]["without_gates"]["over_tasks"]["auc"]["mean"] == pytest.approx(0.01)
    assert "in 0 of 3 tasks, of 3 seeds at least; over tasks AUC **+10.0 (" in page
    assert content["earned"]["one_tower"]["over_tasks"] == {"auc": {}, "log_loss": {}}


def test_choices_and_combinations_are_not_called_parts() -> None:
    lines = versus("worse", 0.79, "from_towers", "pair_merged", "without_council", "rows_alike")
    lines += versus("better", 0.81, "from_towers", "pair_merged")
    page = as_markdown(as_json(lines))
    assert (
        "- `from_towers`: given always, it is clearly worse than the choice in worse; is clearly better in better; "
        "undecided in 0 of 2 tasks, of 3 seeds at least."
    ) in page
    assert "- `pair_merged`: the parts together help in worse; hurt in better; undecided in 0 of 2" in page
    assert "- `without_council`: the part helps in worse; undecided in 0 of 1" in page
    assert "- `rows_alike`: the part helps in worse; undecided in 0 of 1" in page
    even = as_markdown(as_json(versus("even", 0.80, "afresh", "rows_near_zero", "pair_afresh")))
    for name in ("afresh", "rows_near_zero"):
        assert f"- `{name}`: given always, it is clearly worse than the choice nowhere; undecided in 1 of 1" in even
    assert "- `pair_afresh`: the parts together clearly help nowhere; undecided in 1 of 1" in even


def test_the_page_lists_what_the_present_method_has_not_run() -> None:
    others = [name for name in VARIANTS if name not in {"full", "narrow", "rows_alike", "afresh"}]
    lines = [*versus("a", 0.79, *others), line("full", 1, 0.8, 0.5, "b"), line("rows_alike", 1, 0.8, 0.5, "b")]
    lines += versus("old", 0.79, "narrow", "rows_alike", method=METHOD - 1)
    content = as_json(lines)
    lacking = {"a": ["rows_alike"], "b": others}
    assert content["not_run"] == {"anywhere": ["afresh", "narrow"], "nothing": ["old"], "tasks": lacking}
    _, _, section = as_markdown(content).partition("## Not run yet by the present method\n\n")
    assert section.startswith("- on no task: `afresh`, `narrow`\n- nothing at all on: old\n- on a, of what others")
    assert " have: `rows_alike`\n- on b, of what others have: `without_filter`, " in section


def test_the_best_tower_is_validations_best_and_costs_no_step_more(
    whole: tuple[Ablated, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, where = whole
    assert fitted(BestTower, where).steps < full.steps
    found = toy(BestTower, tmp_path, TRAIN)
    towers = [found.fresh(number) for number in range(3)]
    noise = np.random.default_rng(0).normal(0.0, 1.0, len(found.valid)).astype(np.float32)
    said = {
        id(tower): found.valid.split.label + weight * noise for tower, weight in zip(towers, (2, 1, 3), strict=True)
    }
    monkeypatch.setattr(found, "towers", lambda: TowerPair(towers[0], towers[1], towers[2:]))
    monkeypatch.setattr(found, "tower_logits", lambda tower: said[id(tower)].astype(np.float32))
    found.fit()
    assert found.model is towers[1]


def test_a_part_that_gains_in_one_metric_and_loses_in_the_other_is_a_tie() -> None:
    mixed = {"auc": {"low": 0.1, "high": 0.2}, "log_loss": {"low": 0.1, "high": 0.2}}
    assert verdict({"toy": mixed}) == ([], [])
