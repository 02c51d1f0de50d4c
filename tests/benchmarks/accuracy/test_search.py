"""What is tried, a stage after the other, as the losses so far decide it."""

import math

import pytest
from planned import TASK, by_recipe, l2, search_by, want

from benchmarks.accuracy.ledger import Ledger
from benchmarks.accuracy.models import MODELS
from benchmarks.accuracy.plan import next_runs
from benchmarks.accuracy.runs import Spec
from benchmarks.accuracy.search import SPREAD, search
from benchmarks.accuracy.space import Choice, Linear, Log, points


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
    dropouts = {spec.config["model"]["dropout"] for spec in ran[:7]}
    beyond = [spec for spec in ran[7:] if spec.config["model"]["dropout"] in dropouts]  # its own step comes last
    found = [spec.config["train"]["rate"] for spec in beyond]
    assert found == pytest.approx([end * step for step in steps], rel=1e-3)
    found_by = want(trials=7).search(list(ledger))
    assert found_by.whole
    best_point = min(ran[:7], key=law)
    for spec in beyond:  # but for the rate, the best point
        assert {**spec.config, "train": {**spec.config["train"], "rate": None}} == {
            **best_point.config,
            "train": {**best_point.config["train"], "rate": None},
        }


@pytest.mark.parametrize(("best", "end"), [(0.0, 0.0), (0.05, 0.0), (0.3, None), (0.5, 0.5)])
def test_after_the_rate_dropout_is_tried_at_the_end_of_its_range_where_the_best_is_at_an_end(
    ledger: Ledger, best: float, end: float | None
) -> None:
    def law(spec: Spec) -> float:
        far = abs(math.log10(l2(spec) / 1e4)), abs(math.log10(spec.config["train"]["rate"] / 1e-3))
        return 0.5 + sum(far) + 10.0 * abs(spec.config["model"]["dropout"] - best)

    ran = [spec for spec in search_by(ledger, law, trials=7) if spec.seed == 1]
    points = [spec.config["model"]["dropout"] for spec in ran[:7]]
    assert 0.0 < min(points) < max(points) < 0.5
    assert [spec.config["model"]["dropout"] for spec in ran if spec.config["model"]["dropout"] not in points] == (
        [] if end is None else [end]
    )
    assert want(trials=7).search(list(ledger)).whole
    if end is not None:  # but for the dropout, the best so far
        last, before = ran[-1].config, min(ran[:-1], key=law).config
        assert {**last, "model": {**last["model"], "dropout": before["model"]["dropout"]}} == before


@pytest.mark.parametrize(
    ("gain", "best", "steps"),
    [
        (-0.1, 1.0, [0]),
        (-math.inf, 1.0, [0]),
        (0.1, 1.0, [0, -1, 1]),
        (0.1, 9.0, [0, -1, 1, 2, 3]),
        (0.1, 1e-9, [0, -1, 1, -2, -3]),
    ],
)
@pytest.mark.parametrize("model", ["DNN", "FM"])
def test_the_librarys_recipe_is_tried_last_of_what_is_best_and_under_other_l2_where_it_is_better(
    ledger: Ledger, model: str, gain: float, best: float, steps: list[int]
) -> None:
    def own(spec: Spec) -> float:
        return 0.5 + 0.1 * abs(math.log10(l2(spec) / 1e3)) + 0.001 * spec.config["train"]["averaging"]

    def law(spec: Spec) -> float:
        if not by_recipe(spec):
            return own(spec)
        return 0.5 - gain + 0.01 * abs(math.log10(l2(spec) / (best * middle)))

    middle = 1.0
    ran = [spec for spec in search_by(ledger, law, model=model, trials=7) if spec.seed == 1]
    top = min(ran, key=own)
    middle = l2(top)
    ledger.lines.clear()
    again = [spec for spec in search_by(ledger, law, recipes=True, model=model, trials=7) if spec.seed == 1]
    followed = again[len(ran) :]
    assert again[: len(ran)] == ran
    assert [l2(spec) for spec in followed] == pytest.approx([middle * 3.0**step for step in steps], rel=1e-3)
    for spec in followed:
        assert spec.config["model"] == top.config["model"]
        kept = {key: top.config["train"][key] for key in ("batch_size", "epochs", "rate")}
        assert {**spec.config["train"], "l2": 0.0} == {**kept, "l2": 0.0, "recipe": "library", "calibrated": True}
    found = want(model, trials=7).search(list(ledger))
    assert found.whole


@pytest.mark.parametrize("lucky", [True, False])
def test_points_lie_around_what_several_seeds_decide_for_too(ledger: Ledger, lucky: bool) -> None:
    def law(spec: Spec) -> float:
        luck = 0.2 * (lucky and spec.seed == 1 and l2(spec) == 1e5 and spec.config["train"]["rate"] == 1e-3)
        settings = 0.3 * (by_recipe(spec) or "calibrated" in spec.config["train"]) + 0.1 * (l2(spec) not in {1e3, 1e5})
        return 0.5 + 0.05 * abs(math.log10(l2(spec) / 1e3)) + settings - luck + 1e-4 * spec.seed

    ran = search_by(ledger, law, trials=7)
    tried = [spec for spec in ran if spec.seed == 1]
    centres = [1e5, 1e3] if lucky else [1e3]
    rungs, turned, around = tried[:4], tried[4], [spec for spec in tried[5:] if spec.config["train"]["rate"] != 1e-3]
    assert [l2(spec) for spec in rungs] == [1e4, 1e3, 1e5, 1e6 if lucky else 1e2]
    assert "calibrated" in turned.config["train"]
    place = 0
    for centre in centres:
        points = [spec for spec in around if centre / 3 <= l2(spec) <= centre * 3]
        assert len({l2(spec) for spec in points}) >= 3
        assert tried.index(points[0]) > place
        place = tried.index(points[0])
    if not lucky:
        assert not any(l2(spec) > 3e4 for spec in around)
    assert next_runs(want(trials=7), ledger)[0].config["train"]["l2"] == 1e3
    assert want(trials=7).search(list(ledger)).whole


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
