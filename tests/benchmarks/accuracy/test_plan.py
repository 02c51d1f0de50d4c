"""Which runs are still to be done, and which config they choose: functions of the ledger alone."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy.ledger import Ledger, Line, Metrics
from benchmarks.accuracy.models import MODELS
from benchmarks.accuracy.plan import GUARD_EPOCHS, Want, expected, next_runs, settled
from benchmarks.accuracy.runs import Spec
from benchmarks.accuracy.search import SPREAD, search
from benchmarks.accuracy.space import Choice, Linear, Log, points
from benchmarks.accuracy.tuning import NEAR, choose, same

TASK, DATA = "avazu-random", "0123456789abcdef"
LEDGER = Path(__file__).resolve().parents[3] / "benchmarks" / "accuracy.jsonl"


def want(model: str = "DNN", trials: int = 3, seeds: int = 2) -> Want:
    return Want(TASK, DATA, 26_000, model, trials, seeds)


def done(spec: Spec, loss: float | None) -> Line:
    return Line(
        key=spec.key,
        task=spec.task,
        data=spec.data,
        split="random",
        model=spec.model,
        purpose=spec.purpose,
        config=spec.config,
        seed=spec.seed,
        rows={"train": 26_000},
        validation=None if loss is None else Metrics(auc=0.7, log_loss=loss),
        cpu_seconds=1.0,
        created="2026-01-01T00:00:00Z",
        versions={},
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def search_by(ledger: Ledger, law: Callable[[Spec], float], **more: Any) -> list[Spec]:
    """Run a cell's trials, each with the loss that a law gives it, until its seeds' turn has come."""
    ran: list[Spec] = []
    while (specs := next_runs(want(**more), ledger)) and specs[0].purpose == "trial":
        for spec in specs:
            ledger.append(done(spec, law(spec)))
        ran += specs
    return ran


def l2(spec: Spec) -> float:
    return float(spec.config["train"]["l2"])


def test_trials_come_first_then_the_seeds_of_the_best_then_nothing(ledger: Ledger) -> None:
    specs = next_runs(want(), ledger)
    assert [(spec.purpose, spec.seed) for spec in specs] == [("trial", 1)] * 3
    for spec, loss in zip(specs, (0.4, 0.5, 0.6), strict=True):
        ledger.append(done(spec, loss))
    chance = next_runs(want(), ledger)  # how much the best one's random numbers are worth
    assert [(spec.purpose, spec.seed, spec.config) for spec in chance] == [
        ("trial", seed, specs[0].config) for seed in (2, 3)
    ]
    assert expected(want(), ledger) == 4
    for spec in chance:
        ledger.append(done(spec, 0.41))
    chosen = next_runs(want(), ledger)
    assert [(spec.purpose, spec.seed) for spec in chosen] == [("seed", 11), ("seed", 12)]
    assert all(spec.config == specs[0].config for spec in chosen)
    assert expected(want(), ledger) == 2
    for spec in chosen:
        ledger.append(done(spec, 0.4))
    assert next_runs(want(), ledger) == []
    assert expected(want(), ledger) == 0


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (1e4, [1e4, 1e3, 1e5]),
        (1e5, [1e4, 1e3, 1e5, 1e6]),
        (1e6, [1e4, 1e3, 1e5, 1e6, 1e7]),
        (1e9, [1e4, 1e3, 1e5, 1e6, 1e7]),
        (1e2, [1e4, 1e3, 1e5, 1e2, 1e1]),
        (1e-9, [1e4, 1e3, 1e5, 1e2, 1e1, 1.0]),
    ],
)
def test_the_ladder_grows_beyond_an_end_as_long_as_that_is_best(
    ledger: Ledger, best: float, tried: list[float]
) -> None:
    ran = search_by(ledger, lambda spec: 1.0 + 0.1 * abs(math.log10(l2(spec) / best)))
    assert [l2(spec) for spec in ran if spec.seed == 1] == tried
    search = want().search(list(ledger))
    assert search.whole
    assert search.edge == (best in {1e9, 1e-9})


def test_after_the_ladder_its_best_is_calibrated_and_points_lie_around_the_better(ledger: Ledger) -> None:
    def law(spec: Spec) -> float:
        return 0.5 + 0.1 * abs(math.log10(l2(spec) / 1e5)) - 0.01 * ("calibrated" in spec.config["train"])

    ran = search_by(ledger, law, trials=7)
    ran = [spec for spec in ran if spec.seed == 1]
    rungs, turned, beside, around = ran[:4], ran[4], ran[5:7], ran[7:10]
    assert [l2(spec) for spec in rungs] == [1e4, 1e3, 1e5, 1e6]
    assert turned.config == {**rungs[2].config, "train": {**rungs[2].config["train"], "calibrated": True}}
    assert [l2(spec) for spec in beside] == [1e4, 1e6]
    for spec in beside:
        assert {**spec.config["train"], "l2": None} == {**turned.config["train"], "l2": None}
    assert len(around) == 3
    for spec in around:
        assert 1e5 / 3 <= l2(spec) <= 3e5
        assert spec.config["train"]["calibrated"]
    for section, key in (("train", "rate"), ("model", "dropout")):
        assert len({spec.config[section][key] for spec in around} - {rungs[0].config[section][key]}) == 3
    assert {spec.config["model"]["batch_norm"] for spec in around} == {False, True}


@pytest.mark.parametrize(
    ("best", "beside"),
    [
        (1e6, [1e5, 1e7]),
        (1e3, [1e5, 1e7, 1e4, 1e3, 1e2]),
        (1e7, [1e5, 1e7]),
        (1e0, [1e5, 1e7, 1e4, 1e3, 1e2, 1e1, 1e0]),
    ],
)
def test_what_is_calibrated_needs_another_l2_which_is_walked_to_rung_by_rung(
    ledger: Ledger, best: float, beside: list[float]
) -> None:
    """L2 that holds down how sure a model is, is too much of it once it is calibrated."""

    def law(spec: Spec) -> float:
        if "calibrated" not in spec.config["train"]:
            return 0.6 + 0.01 * abs(math.log10(l2(spec) / 1e6))
        return 0.5 + 0.01 * abs(math.log10(l2(spec) / best))

    ran = [spec for spec in search_by(ledger, law, trials=7) if spec.seed == 1]
    assert [l2(spec) for spec in ran[:5]] == [1e4, 1e3, 1e5, 1e6, 1e7]
    calibrated = [spec for spec in ran[5:] if spec.config["train"]["rate"] == 1e-3]
    assert [l2(spec) for spec in calibrated] == [1e6, *beside]
    around = [l2(spec) for spec in ran[5:] if spec.config["train"]["rate"] != 1e-3]
    assert len(around) >= 3
    for value in around:
        assert best / 3 <= value <= best * 3
    assert want(trials=7).search(list(ledger)).edge == (best in {1e0, 1e7})


def test_points_lie_around_the_plain_rung_where_calibration_did_not_help(ledger: Ledger) -> None:
    ran = search_by(ledger, lambda spec: 0.5 + 0.01 * ("calibrated" in spec.config["train"]), trials=7)
    assert ["calibrated" in spec.config["train"] for spec in ran if spec.seed == 1][:7] == [
        *[False] * 3,
        True,
        *[False] * 3,
    ]


@pytest.mark.parametrize(
    ("best", "steps"),
    [(1e-3, []), (5e-2, [2, 4, 8]), (4e-3, [2, 4]), (1e-9, [1 / 2, 1 / 4, 1 / 8]), (3e-4, [1 / 2])],
)
def test_in_the_end_the_rate_is_tried_beyond_what_is_best_while_the_best_is_at_an_end(
    ledger: Ledger, best: float, steps: list[float]
) -> None:
    def law(spec: Spec) -> float:
        return 0.5 + 0.1 * abs(math.log10(l2(spec) / 1e4)) + 0.3 * abs(math.log10(spec.config["train"]["rate"] / best))

    ran = [spec for spec in search_by(ledger, law, trials=7) if spec.seed == 1]
    before = [spec.config["train"]["rate"] for spec in ran[:7]]
    end = max(before) if steps and steps[0] > 1 else min(before)
    found = [spec.config["train"]["rate"] for spec in ran[7:]]
    assert found == pytest.approx([end * step for step in steps], rel=1e-3)
    found_by = want(trials=7).search(list(ledger))
    assert found_by.whole
    assert found_by.edge == (best in {5e-2, 1e-9})
    best_point = min(ran[:7], key=law)
    for spec in ran[7:]:  # but for the rate, the best point
        assert {**spec.config, "train": {**spec.config["train"], "rate": None}} == {
            **best_point.config,
            "train": {**best_point.config["train"], "rate": None},
        }


def test_a_table_grows_from_three_trials_to_more_without_running_one_again(ledger: Ledger) -> None:
    def law(spec: Spec) -> float:
        return 0.5 + 0.1 * abs(math.log10(l2(spec) / 1e5)) + 0.001 * spec.config["model"].get("dropout", 0.0)

    ran: list[Spec] = []
    before: list[str] = []
    for number in (3, 6, 9):
        ran += search_by(ledger, law, trials=number)
        assert len({spec.key for spec in ran}) == len(ran)
        points = [same(config) for config in want(trials=number).search(list(ledger)).configs]
        points = points[: number + 1]  # a rung more than three; steps of the rate come after
        assert points[: len(before)] == before
        before = points


def test_what_the_ledger_held_before_is_the_beginning_of_the_search() -> None:
    known = [line for line in Ledger(LEDGER) if line.purpose == "trial" and line.model == "DCNv2"]
    first = [line for line in known if "calibrated" not in line.config["train"]][:1]
    ((task, data, rows),) = {(line.task, line.data, line.rows["train"]) for line in first}
    trials = Want(task, data, rows, "DCNv2", 7, 3).search([]).configs
    assert {str(config) for config in trials} <= {str(line.config) for line in known if line.task == task}


def test_near_ties_are_run_with_three_seeds_and_decided_by_their_mean(ledger: Ledger) -> None:
    first = next_runs(want(), ledger)
    for spec, loss in zip(first, (0.4, 0.4 + NEAR / 2, 0.4 + 3 * NEAR), strict=True):
        ledger.append(done(spec, loss))
    for spec in next_runs(want(), ledger):  # the best, whose seeds hardly differ
        ledger.append(done(spec, 0.4001))
    ties = next_runs(want(), ledger)
    assert [(spec.purpose, spec.seed, spec.config) for spec in ties] == [
        ("trial", seed, first[1].config) for seed in (2, 3)
    ]
    for spec in ties:  # behind at first, it is ahead with the other seeds
        ledger.append(done(spec, 0.3995))
    (config,) = {same(spec.config) for spec in next_runs(want(), ledger)}
    assert config == same(first[1].config)


@pytest.mark.parametrize(("spread", "near"), [(0.001, 1), (0.02, 2), (0.2, 3)])
def test_what_seeds_alone_may_do_is_measured_and_decides_how_many_configs_are_run_again(
    ledger: Ledger, spread: float, near: int
) -> None:
    first = next_runs(want(), ledger)
    for spec, loss in zip(first, (0.4, 0.43, 0.5), strict=True):
        ledger.append(done(spec, loss))
    for spec in next_runs(want(), ledger):
        ledger.append(done(spec, 0.4 + spread * (spec.seed - 2)))
    specs = next_runs(want(), ledger)
    again = {same(spec.config) for spec in specs if spec.purpose == "trial"}
    assert again == {same(spec.config) for spec in first[1:near]}


def test_a_config_that_the_seeds_of_the_table_find_out_gives_way_to_the_next(ledger: Ledger) -> None:
    first = next_runs(want(), ledger)

    def law(spec: Spec) -> float:
        place = [one.config for one in first].index(spec.config)
        return (0.40, 0.404, 0.5)[place] if spec.purpose == "trial" else (0.42, 0.405, 0.5)[place]

    for spec in first:
        ledger.append(done(spec, law(spec) - 0.003 * (spec is first[0])))
    chosen = []
    while specs := next_runs(want(), ledger):
        for spec in specs:
            ledger.append(done(spec, law(spec)))
        chosen += [spec.config for spec in specs if spec.purpose == "seed"]
    assert [chosen.count(one.config) for one in first] == [2, 2, 0]
    assert choose(want().search(list(ledger)), ledger) == first[1].config


def test_the_guard_compares_trainers_at_the_chosen_config_and_at_the_usual_one_before(ledger: Ledger) -> None:
    guard = Want(TASK, DATA, 26_000, "DCNv2", 7, 2, guard=True)
    (before,) = next_runs(guard, ledger)
    assert l2(before) == 1e4

    def law(spec: Spec) -> float:
        return 0.5 + abs(math.log10(l2(spec) / 1e6)) - 0.01 * ("calibrated" in spec.config["train"])

    search_by(ledger, law, model="DCNv2", trials=7)
    (after,) = next_runs(guard, ledger)
    assert after.purpose == "guard"
    assert l2(after) > 1e5
    assert "calibrated" not in after.config["train"]
    assert after.config["train"]["epochs"] == GUARD_EPOCHS


def test_a_trial_that_failed_is_never_chosen(ledger: Ledger) -> None:
    specs = next_runs(want(), ledger)
    for spec, loss in zip(specs, (None, 0.7, None), strict=True):
        ledger.append(done(spec, loss))
    beyond = next_runs(want(), ledger)
    assert [l2(spec) for spec in beyond] == [1e2]
    ledger.append(done(beyond[0], None))
    for spec in next_runs(want(), ledger):
        ledger.append(done(spec, 0.7))
    assert choose(want().search(list(ledger)), ledger) == specs[1].config


@pytest.mark.parametrize("when", ["trial", "seed"])
def test_a_config_of_which_a_run_fails_gives_way_to_the_next(ledger: Ledger, when: str) -> None:
    first = next_runs(want(), ledger)
    for spec, loss in zip(first, (0.40, 0.45, 0.50), strict=True):
        ledger.append(done(spec, loss))
    while (specs := next_runs(want(), ledger)) and not (
        specs[0].purpose == "seed" and specs[0].config != first[0].config
    ):
        for spec in specs:
            fails = spec.purpose == when and spec.config == first[0].config and spec.seed in {2, 11}
            ledger.append(done(spec, None if fails else 0.40 if spec.config == first[0].config else 0.45))
    assert {same(spec.config) for spec in next_runs(want(), ledger)} == {same(first[1].config)}
    for spec in next_runs(want(), ledger):
        ledger.append(done(spec, 0.45))
    assert settled(list(ledger), 3) == same(first[1].config)


def test_where_all_trials_fail_nothing_is_chosen_and_nothing_more_tried(ledger: Ledger) -> None:
    while specs := next_runs(want(trials=7), ledger):
        for spec in specs:
            ledger.append(done(spec, None))
    assert choose(want(trials=7).search(list(ledger)), ledger) is None
    assert settled(list(ledger), 6) is None


def test_what_is_to_be_run_next_and_what_is_open_are_one_question_also_after_a_longer_search(ledger: Ledger) -> None:
    def law(spec: Spec) -> float:
        return 0.5 + 0.01 * abs(math.log10(l2(spec) / 1e5)) + 0.01 * int(spec.key[:4], 16) / 2**16

    while (specs := next_runs(want(trials=9), ledger)) and all(spec.seed == 1 for spec in specs):
        for spec in specs:
            ledger.append(done(spec, law(spec)))
    assert settled(list(ledger), 6) is None  # a longer search was left before its ties
    while specs := next_runs(want(trials=6), ledger):
        for spec in specs:
            ledger.append(done(spec, law(spec)))
    chosen = choose(want(trials=6).search(list(ledger)), ledger)
    assert chosen is not None
    assert settled(list(ledger), 6) == same(chosen)
    seeds = [line for line in ledger if line.purpose == "seed" and same(line.config) == same(chosen)]
    assert [line.seed for line in seeds] == [11, 12]


def test_a_model_without_a_space_goes_straight_to_its_seeds(ledger: Ledger) -> None:
    assert [spec.purpose for spec in next_runs(want("REACTION"), ledger)] == ["seed", "seed"]


def test_more_points_continue_the_same_sequence_within_the_bounds() -> None:
    space = (Log("train.rate", 1e-4, 1e-2), Linear("model.dropout", 0.0, 0.5), Choice("model.n", (1, 2, 3)))
    defaults = {"model": {"dropout": 0.2, "n": 1, "kept": "x"}, "train": {"rate": 1e-3}}
    many = search(defaults, space, 40, lambda _: None).configs
    assert search(defaults, space, 7, lambda _: None).configs == many[:7]
    assert many[0] == defaults
    assert len({str(config) for config in many}) == 40
    assert all(1e-4 <= config["train"]["rate"] <= 1e-2 for config in many)
    assert all(0.0 <= config["model"]["dropout"] <= 0.5 for config in many)
    assert all(config["model"]["kept"] == "x" for config in many)
    assert {config["model"]["n"] for config in many} == {1, 2, 3}
    logs = [math.log10(config["train"]["rate"]) for config in many[1:]]
    assert sum(logs) / len(logs) == pytest.approx(-3.0, abs=0.1)  # even on a logarithmic scale


def test_the_first_three_points_of_every_model_differ_in_each_of_its_choices() -> None:
    for name, model in MODELS.items():
        if model.ladder is None:
            continue
        space = (*model.space, Log("train.l2", 0.1, 1.0))
        first = [dict(point) for point in points(space, 3, SPREAD)]
        for dimension in space:
            taken = {str(point[dimension.path]) for point in first}
            values = len(dimension.values) if isinstance(dimension, Choice) else 3
            assert len(taken) == min(3, values), (name, dimension.path)


def test_every_tuned_dimension_names_a_key_of_its_models_config() -> None:
    for name, model in MODELS.items():
        config = model.defaults(TASK, 26_000)
        for dimension in model.space:
            section, key = dimension.path.split(".")
            assert key in config[section], name
