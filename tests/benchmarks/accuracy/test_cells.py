"""What a cell lacks, what tuning chose, what is counted of ours, and how often test was read: from made-up runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from ledger_lines import MODELS, TASKS, line, timings, whole

from benchmarks.accuracy.__main__ import summary
from benchmarks.accuracy.cells import choice
from benchmarks.accuracy.ledger import Ledger, Line, Metrics, run_key
from benchmarks.accuracy.models import METHOD, UNGROUPED, UNSHARED, as_recorded, method_of
from benchmarks.accuracy.models import MODELS as MODEL_TABLE
from benchmarks.accuracy.plan import finished, guarded
from benchmarks.accuracy.report import markdown
from benchmarks.accuracy.summary import chosen_runs, summarise

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def told(document: dict[str, Any], claim: str, task: str = "films-random") -> dict[str, Any]:
    (found,) = [one for one in document["verdicts"] if (one["task"], one["claim"]) == (task, claim)]
    return found  # type: ignore[no-any-return]


def tuned(model: str, **values: list[Any]) -> list[dict[str, Any]]:
    """A worse trial a value of `train` settings, beside the usual config, which has three."""
    worse = {"purpose": "trial", "shift": -0.05}
    return [line("films-random", model, seed, purpose="trial") for seed in (2, 3)] + [
        line("films-random", model, 1, **worse, config={"model": {"width": 10}, "train": {name: value}})
        for name, some in values.items()
        for value in some
    ]


def test_no_claim_is_judged_against_a_cell_with_fewer_than_six_trials() -> None:
    few = [*whole(), *tuned("FinalMLP", l2=[1.0, 2.0, 3.0, 4.0])]
    document = summarise(few, timings(), TASKS, MODELS, tuned={"FinalMLP"})
    for claim in ("auc", "log_loss", "auc_above"):
        assert told(document, claim)["holds"] is None, claim
        assert "5 of 6 trials" in told(document, claim)["open"]
    for claim in ("parameters_ratio FinalMLP", "latency 100 FinalMLP", "parameters_ratio DCNv2"):
        assert told(document, claim)["holds"] is True  # of given widths: tuning changes nothing of it
    small = [*whole(), *tuned("DNN-small", l2=[1.0, 2.0, 3.0, 4.0])]  # whose widths are tuned
    claim = told(summarise(small, timings(), TASKS, MODELS, tuned={"DNN-small"}), "parameters_ratio DNN-small")
    assert (claim["holds"], "5 of 6 trials" in claim["open"]) == (None, True)
    assert "5 of 6 trials: FinalMLP" in markdown(document)
    enough = summarise([*few, *tuned("FinalMLP", l2=[5.0])], timings(), TASKS, MODELS, tuned={"FinalMLP"})
    assert told(enough, "auc")["holds"] is True


@pytest.mark.parametrize("model", ["DNN", "REACTION"])
def test_no_claim_of_accuracy_is_judged_on_two_seeds_or_without_a_model_of_the_core_table(model: str) -> None:
    two = [one for one in whole() if one["model"] != model or one["seed"] <= 12]
    none = [one for one in whole() if one["model"] != "FM"]
    for lines, why in ((two, f"2 of 3 seeds: {model}"), (none, "not run: FM")):
        found = told(summarise(lines, timings(), TASKS, MODELS), "auc")
        assert found["holds"] is None
        assert found["open"] == why
        assert found["detail"]  # what is known is shown
    three = [one for one in whole() if one["seed"] <= 13]
    assert told(summarise(three, timings(), TASKS, MODELS), "auc")["holds"] is True


def test_each_metric_is_compared_with_the_baseline_that_is_best_by_it() -> None:
    lines = whole()
    for one in lines:
        if one["model"] == "FwFM":  # by far the least log loss, and not the highest AUC
            one["validation"]["log_loss"] = 0.1
    document = summarise(lines, timings(), TASKS, MODELS)
    assert told(document, "auc")["detail"].endswith("against FinalNet")
    found = told(document, "log_loss")["detail"]
    assert found.endswith("against FwFM")
    assert found.startswith("-0.0150")  # on test, where the two differ by as much as their AUC


def test_being_ahead_of_a_deep_model_below_logistic_regression_counts_for_nothing() -> None:
    document = summarise(whole(FinalMLP=-0.03), timings(), TASKS, MODELS)
    for claim in ("parameters_ratio FinalMLP", "dense_ratio FinalMLP", "latency 1000 FinalMLP"):
        assert told(document, claim)["holds"] is None
        assert "below logistic regression" in told(document, claim)["open"]
    assert told(document, "dense_ratio DCNv2")["holds"] is True


def test_rows_of_equal_table_rows_are_stored_numbers_and_the_largest_seed_counts() -> None:
    lines, table = whole(), timings()
    for one in lines:
        if one["model"] == "REACTION" and one["purpose"] == "seed":  # a map of int32, larger with every seed
            one["parameters"]["bytes"] += 4 * 1000 * (one["seed"] - 10)
    table["tasks"]["films-random"]["models"]["REACTION"]["seed"] = 12
    document = summarise(lines, table, TASKS, MODELS)
    (row,) = [row for row in document["rows"] if row["model"] == "REACTION"]
    assert (row["parameters_inference"], row["parameters_maps"], row["parameters_dense"]) == (311_000, 5000, 6000)
    assert row["parameters_inference_mean"] == pytest.approx(309_000)
    assert row["bundle"]["seed"] == 12
    assert row["bundle"]["bytes"] == 4 * 308_000
    ratio = next(one for one in document["comparisons"] if one["against"] == "FinalMLP")["parameters_ratio"]
    assert ratio == pytest.approx(311_000 / 1_400_000)
    page = markdown(document)
    assert "311,000 numbers in its largest bundle, 5,000 of" in page
    assert "1,232,000 bytes" in " ".join(page.split())


def test_a_choice_at_the_end_of_what_was_tried_is_flagged() -> None:
    runs = [line("films-random", "DNN", 11, config={"model": {"width": 10}, "train": {"l2": 9.0, "rate": 0.1}})]
    tried = [(1.0, 0.1), (3.0, 0.1), (9.0, 0.1), (9.0, 0.2)]
    trials = [
        line("films-random", "DNN", 1, purpose="trial", config={"model": {"width": 10}, "train": {"l2": a, "rate": b}})
        for a, b in tried
    ]
    found = choice(runs, trials, None)
    assert found["trials"] == 4
    assert found["tuned"] == {"L2": [9.0, [1.0, 3.0, 9.0]], "rate": [0.1, [0.1, 0.2]]}
    assert found["edge"] == ["L2", "rate"]
    beyond = line("films-random", "DNN", 1, purpose="trial", config={"model": {"width": 10}, "train": {"l2": 27.0}})
    beyond["config"]["train"]["rate"] = 0.05
    assert choice(runs, [*trials, beyond], None)["edge"] == []
    otherwise = json.loads(json.dumps(beyond))
    otherwise["config"]["train"] |= {"recipe": "library", "calibrated": True}
    told_of = choice(runs, [*trials, otherwise], None)
    assert told_of["edge"] == ["L2", "rate"]  # of another loop: nothing beyond was tried in this one
    assert told_of["tuned"]["recipe"] == [None, ["library", None]]
    for line_of, dropout in ((trials[0], 0.3), *((one, 0.0) for one in (*runs, *trials[1:]))):
        line_of["config"]["model"]["dropout"] = dropout
    assert choice(runs, trials, None)["edge"] == ["L2", "rate"]  # no less dropout than none
    for one in (*runs, *trials):
        one["config"]["model"]["dropout"] += 0.1
    assert choice(runs, trials, None)["edge"] == ["L2", "rate", "dropout"]


def test_what_tuning_chose_is_in_the_table_once_it_has_its_seeds_and_until_then_nothing_is_judged() -> None:
    better = {"model": {"width": 10}, "train": {"l2": 3.0}}
    usual = [line("films-random", "FinalMLP", seed, purpose="trial") for seed in (2, 3)]
    trials = [
        line("films-random", "FinalMLP", seed, purpose="trial", config=better, shift=0.004 if seed == 1 else 0.002)
        for seed in (1, 2, 3)
    ]
    # Clearly better than the usual config once, and with the seeds of a tie.
    for some, why in ((trials[:1], "tuning not over"), (trials, "seeds of its tuning's choice")):
        before = summarise([*whole(), *usual, *some], timings(), TASKS, MODELS)
        assert told(before, "auc")["holds"] is None
        assert why in told(before, "auc")["open"]
    seeds = [line("films-random", "FinalMLP", seed, config=better, shift=0.001) for seed in (11, 12, 13)]
    after = summarise([*whole(), *usual, *trials, *seeds], timings(), TASKS, MODELS)
    assert told(after, "auc")["holds"] is True
    (row,) = [row for row in after["rows"] if row["model"] == "FinalMLP"]
    assert row["config"] == better
    # A trial that was lucky: its own seeds of the table are behind the usual config's.
    unlucky = [line("films-random", "FinalMLP", seed, config=better, shift=-0.02) for seed in (11, 12, 13)]
    back = summarise([*whole(), *usual, *trials, *unlucky], timings(), TASKS, MODELS)
    (row,) = [row for row in back["rows"] if row["model"] == "FinalMLP"]
    assert row["config"] == usual[0]["config"]
    assert told(back, "auc")["holds"] is True
    # What is settled is asked for, where somebody knows: the runs alone do not say what else was to be tried.
    asked = summarise([*whole(), *usual, *trials, *seeds], timings(), TASKS, MODELS, settled=lambda _: None)
    assert "tuning not over" in told(asked, "auc")["open"]


def test_no_claim_rests_on_runs_of_an_older_method() -> None:
    config = {"method": 2, "model": {"width": 10}, "train": {}}
    lines = [{**one, "config": config} if one["model"] == "REACTION" else one for one in whole()]
    for method, holds in ((2, True), (3, None)):
        document = summarise(lines, timings(), TASKS, MODELS, method=lambda _, present=method: present)
        for claim in ("auc", "log_loss", "parameters_ratio FinalMLP", "merged"):
            assert told(document, claim)["holds"] is holds
    assert "runs of the present method, 3" in told(document, "auc")["open"]


def test_what_holds_baselines_up_is_open_while_one_is_missing_and_broken_by_one() -> None:
    for missing in ("FinalMLP", "LR"):
        found = told(summarise([one for one in whole() if one["model"] != missing], {}, TASKS, MODELS), "guard floor")
        assert found["holds"] is None
        assert found["open"] == f"not run: {missing}"
    broken = [one for one in whole(DCNv2=-0.05) if one["model"] != "FinalMLP"]
    assert told(summarise(broken, {}, TASKS, MODELS), "guard floor")["holds"] is False
    usual = {"model": {"width": 10}, "train": {}}

    def compared(*models: str, config: dict[str, Any] = usual, library: float = 0.7) -> dict[str, Any]:
        facts = {"library": {"auc": library}}
        guards = [
            line("films-random", name, 1, purpose="guard", config=guarded(config), facts=facts) for name in models
        ]
        return told(summarise([*whole(), *guards], {}, TASKS, MODELS), "guard library")

    def without(name: str, data: str = "d1") -> dict[str, Any]:
        facts = {"library": {"auc": 0.7}}
        guards = [
            line("films-random", one, 1, purpose="guard", config=guarded(usual), facts=facts, data=data) for one in deep
        ]
        return told(
            summarise([*(one for one in whole() if one["model"] != name), *guards], {}, TASKS, MODELS), "guard library"
        )

    deep = ("FM", "FwFM", "DNN", "DNN-small", "DCNv2", "FinalMLP", "FinalNet")
    assert compared(*deep)["holds"] is True
    assert compared(*deep, library=0.9)["holds"] is False

    def at_its_end(
        *models: str, ahead: float = 0.0, config: dict[str, Any] = usual, seeds: tuple[int, ...] = (11, 12, 13)
    ) -> dict[str, Any]:
        guards = [
            line("films-random", name, seed, purpose="guard", config=finished(config), shift=ahead)
            for name in models
            for seed in seeds
        ]
        return told(summarise([*whole(), *guards], {}, TASKS, MODELS), "guard whole")

    assert at_its_end(*deep, ahead=0.0009)["holds"] is True
    assert at_its_end(*deep, ahead=0.0011)["holds"] is False
    one_seed = at_its_end(*deep, ahead=0.0011, seeds=(13,))  # may be luck
    assert (one_seed["holds"], one_seed["open"]) == (None, f"behind, of fewer than 3 seeds: {', '.join(sorted(deep))}")
    assert at_its_end(*deep[1:])["open"] == "not compared: FM"
    assert at_its_end(*deep, config={"model": {"width": 20}, "train": {}})["holds"] is None
    assert compared(*deep[1:])["open"] == "not compared: FM"
    assert without("FinalMLP")["open"] == "not compared: FinalMLP"  # nor is what the table does not have
    assert without("nothing")["holds"] is True
    assert without("nothing", data="d0")["holds"] is None  # of other data

    def by_its_trainer(gap: float) -> dict[str, Any]:
        guards = [line("films-random", "DNN", 13, purpose="guard", config=finished(usual), shift=gap)]
        return told(summarise([*whole(), *guards], {}, TASKS, MODELS), "auc")

    assert by_its_trainer(0.0)["holds"] is True
    assert by_its_trainer(0.0015)["holds"] is True  # better than ours, and far behind the best of ours
    assert by_its_trainer(0.0030)["open"] == "better by the library's trainer: DNN"
    other = compared(*deep, config={"model": {"width": 99}, "train": {}})  # says nothing of what is in the table
    assert other["holds"] is None


def test_a_newer_method_takes_the_place_of_an_older_and_what_that_read_is_counted() -> None:
    newer = [
        line("films-random", "REACTION", seed, shift=-0.01, config={"method": 2, "model": {"width": 10}, "train": {}})
        for seed in (11, 12, 13)
    ]
    lines = [*newer, *whole()]
    assert [one["config"].get("method") for one in chosen_runs(lines)["REACTION"]] == [2, 2, 2]
    before = [{"task": "films-random", "model": "REACTION", "reading": reading} for reading in (1, 1, 2)]
    document = summarise(lines, {}, TASKS, MODELS, before=before)
    (found,) = [one for one in document["test_readings"] if one["task"] == "films-random"]
    assert found["runs"] == 9 * 5 + 3
    assert found["superseded_runs"] == 5 + 3
    assert found["superseded_versions"] == {"REACTION": 3}


def test_what_was_taken_out_of_the_ledger_is_not_in_it() -> None:
    record = json.loads((BENCHMARKS / "accuracy_superseded.json").read_text())
    ledger = [json.loads(text) for text in (BENCHMARKS / "accuracy.jsonl").read_text().splitlines()]
    there = {(one["key"], one["test"]["auc"]) for one in ledger if "test" in one}
    assert record["runs"]
    for one in record["runs"]:
        assert (one["key"], one["test"]["auc"]) not in there
        assert {"task", "model", "seed", "key", "created", "test", "reading"} == set(one)


def test_the_merged_tower_is_held_against_half_of_what_its_two_towers_cost() -> None:
    table = timings()
    models = table["tasks"]["films-random"]["models"]
    for name in ("tower A", "tower B"):
        models[name] = json.loads(json.dumps(models["REACTION"]))
    document = summarise(whole(), table, TASKS, MODELS)
    (pair,) = document["pairs"]
    assert pair["flops_ratio"]["100"] == pytest.approx(0.5)
    assert pair["latency_ratio"]["1000"] == pytest.approx(0.5)
    assert told(document, "merged cost")["holds"] is True
    for timing in models["REACTION"]["latency"].values():  # 0.6 of both, net of the empty graph's call
        timing["blocks"] = [10.0 + 1.2 * (block - 10.0) for block in timing["blocks"]]
    assert told(summarise(whole(), table, TASKS, MODELS), "merged cost")["holds"] is False
    models["REACTION"] = json.loads(json.dumps(models["tower A"]))
    for timing in models["tower B"]["latency"].values():
        timing["blocks"] = [10.0] * 20  # as the empty graph: the other tower's cost alone is left
    dearer = summarise(whole(), table, TASKS, MODELS)
    assert dearer["pairs"][0]["latency_ratio"]["1000"] == pytest.approx(1.0)
    assert told(dearer, "merged cost")["holds"] is False


def test_a_finished_run_tells_nothing_of_the_test_split() -> None:
    config: dict[str, Any] = {"model": {}, "train": {}}
    run = Line(
        key=run_key("films-random", "d", "DNN", "seed", config, seed=11),
        task="films-random",
        data="d",
        split="random",
        model="DNN",
        purpose="seed",
        config=config,
        seed=11,
        rows={},
        validation=Metrics(auc=0.7123, log_loss=0.4123),
        test=Metrics(auc=0.8765, log_loss=0.5432),
        cpu_seconds=1.0,
        created="2026-01-01T00:00:00Z",
        versions={},
    )
    assert "0.7123" in summary(run)
    assert "0.8765" not in summary(run)
    assert "0.5432" not in summary(run)


def test_the_page_says_how_the_table_was_sized() -> None:
    page = " ".join(markdown(summarise([*whole(), *tuned("DNN", l2=[1.0])], {}, TASKS, MODELS)).split())
    assert "runs an hour" in page
    assert "1 to 2 trials" not in page
    assert "have had 2 trials" in page


def test_the_page_says_how_fast_training_is_and_what_it_missed() -> None:
    figures = [
        {"what": "a", "rows_a_second": 50_000.0, "ratio": 3.1, "low": 2.9, "high": 3.3, "least": 3.0, "most": None},
        {"what": "b", "rows_a_second": 9_000.0, "ratio": 1.36, "low": 1.3, "high": 1.4, "least": None, "most": 1.3},
    ]
    found = {"command": "c", "machine": timings()["machine"], "threads": 1, "rounds": 7, "figures": figures}
    document = summarise(whole(), timings(), TASKS, MODELS) | {"training_speed": found}
    page = markdown(document).partition("## Training speed")[2]
    assert "| a | 50,000 | 3.10 (2.90 to 3.30) | at least 3 | reached |" in page
    assert "| b | 9,000 | 1.36 (1.30 to 1.40) | at most 1.3 | **missed** |" in page
    assert "takes 1 to 1 times" in page
    assert "not been measured" in markdown(document | {"training_speed": None})


def test_a_method_that_changed_nothing_on_some_data_leaves_the_runs_of_that_present() -> None:
    lines = [line for line in Ledger(BENCHMARKS / "accuracy.jsonl") if line.validation is not None]
    grouped = {line.task: line.validation.gauc is not None for line in lines}  # GAUC is of groups
    assert {"avazu-time", "criteo-random", "movielens_100k-time", "movielens_latest_tags-time"} < grouped.keys()
    older = {task: method_of(task) for task in grouped if method_of(task) < METHOD}
    assert older == {task: UNSHARED if of_groups else UNGROUPED for task, of_groups in grouped.items() if task in older}
    assert {"avazu-time", "criteo-random", "movielens_100k-time"} < older.keys()
    assert "movielens_latest_tags-time" not in older
    for task, method in older.items():
        usual = MODEL_TABLE["REACTION"].defaults(task, 1000)
        assert usual["method"] == method
        # They are those that a run of today looks for, so that none is trained again.
        present = [one for one in lines if (one.task, one.model, one.config) == (task, "REACTION", usual)]
        assert len(present) >= 5
        assert not any(one.facts["chosen"]["share_below"] for one in present)


def test_a_run_that_is_given_to_share_rows_is_by_the_newest_method_on_any_data() -> None:
    for below, method in ((None, UNSHARED), (0.0, UNSHARED), (10.0, METHOD)):
        sections = {"afe": {"share_below": below}, "dtf": {"evidence": 100.0, "evidence_l2": 0.3, "council": 2}}
        found = as_recorded("movielens_100k-time", sections)
        assert found["method"] == method
        assert ("evidence" in found["dtf"]) == ("evidence_l2" in found["dtf"]) == (method == METHOD)
        assert found["dtf"]["council"] == 2


def test_settings_of_an_evidence_tower_are_in_no_config_of_data_that_has_none_and_in_all_others() -> None:
    for task, told in (("avazu-time", False), ("movielens_100k-time", False), ("movielens_latest_tags-random", True)):
        dtf = MODEL_TABLE["REACTION"].defaults(task, 1000)["model"]["dtf"]
        assert [name in dtf for name in ("council", "evidence", "evidence_l2")] == [True, told, told]
