"""Which runs are still to be done, and which config they choose: functions of the ledger alone."""

import math
from pathlib import Path

import pytest

from benchmarks.accuracy.ledger import Ledger, Line, Metrics
from benchmarks.accuracy.models import MODELS
from benchmarks.accuracy.plan import Want, expected, next_runs
from benchmarks.accuracy.runs import Spec
from benchmarks.accuracy.space import Choice, Linear, Log, trials
from benchmarks.accuracy.tuning import NEAR, choose

TASK, DATA = "avazu-random", "0123456789abcdef"


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


def test_trials_come_first_then_the_seeds_of_the_best_then_nothing(ledger: Ledger) -> None:
    specs = next_runs(want(), ledger)
    assert [(spec.purpose, spec.seed) for spec in specs] == [("trial", 1)] * 3
    for spec, loss in zip(specs, (0.5, 0.4, 0.6), strict=True):
        ledger.append(done(spec, loss))
    chosen = next_runs(want(), ledger)
    assert [(spec.purpose, spec.seed) for spec in chosen] == [("seed", 11), ("seed", 12)]
    assert all(spec.config == specs[1].config for spec in chosen)
    assert expected(want(), ledger) == 2
    for spec in chosen:
        ledger.append(done(spec, 0.4))
    assert next_runs(want(), ledger) == []
    assert expected(want(), ledger) == 0


def test_a_table_grows_from_three_trials_to_six_without_running_one_again(ledger: Ledger) -> None:
    for spec in next_runs(want(trials=3), ledger):
        ledger.append(done(spec, 0.5 + 0.1 * len(ledger)))
    more = next_runs(want(trials=6), ledger)
    assert len(more) == 3
    assert not any(spec.key in ledger for spec in more)


def test_near_ties_are_run_with_three_seeds_and_decided_by_their_mean(ledger: Ledger) -> None:
    first = next_runs(want(), ledger)
    for spec, loss in zip(first, (0.4, 0.4 + NEAR / 2, 0.4 + 3 * NEAR), strict=True):
        ledger.append(done(spec, loss))
    ties = next_runs(want(), ledger)
    assert {(spec.purpose, spec.seed) for spec in ties} == {("trial", 2), ("trial", 3)}
    assert len(ties) == 4
    for spec in ties:  # the second config, behind at first, is ahead with the other seeds
        ledger.append(done(spec, 0.41 if spec.config == first[0].config else 0.40))
    (config,) = {str(spec.config) for spec in next_runs(want(), ledger)}
    assert config == str(first[1].config)


def test_a_trial_that_failed_is_never_chosen(ledger: Ledger) -> None:
    specs = next_runs(want(), ledger)
    for spec, loss in zip(specs, (None, 0.7, None), strict=True):
        ledger.append(done(spec, loss))
    assert choose(want().configs(), ledger) == specs[1].config


def test_a_model_without_a_space_goes_straight_to_its_seeds(ledger: Ledger) -> None:
    assert [spec.purpose for spec in next_runs(want("REACTION"), ledger)] == ["seed", "seed"]


def test_more_trials_continue_the_same_sequence_within_the_bounds() -> None:
    space = (Log("train.rate", 1e-4, 1e-2), Linear("model.dropout", 0.0, 0.5), Choice("model.n", (1, 2, 3)))
    defaults = {"model": {"dropout": 0.2, "n": 1, "kept": "x"}, "train": {"rate": 1e-3}}
    many = trials(defaults, space, 40)
    assert trials(defaults, space, 7) == many[:7]
    assert many[0] == defaults
    rungs = trials(defaults, space, 5, [("train.rate", 0.5), ("model.n", 9)])
    assert [rungs[1]["train"]["rate"], rungs[2]["model"]["n"]] == [0.5, 9]
    assert rungs[3:] == many[1:3]
    assert len({str(config) for config in many}) == 40
    assert all(1e-4 <= config["train"]["rate"] <= 1e-2 for config in many)
    assert all(0.0 <= config["model"]["dropout"] <= 0.5 for config in many)
    assert all(config["model"]["kept"] == "x" for config in many)
    assert {config["model"]["n"] for config in many} == {1, 2, 3}
    logs = [math.log10(config["train"]["rate"]) for config in many[1:]]
    assert sum(logs) / len(logs) == pytest.approx(-3.0, abs=0.1)  # even on a logarithmic scale


def test_every_tuned_dimension_names_a_key_of_its_models_config() -> None:
    for name, model in MODELS.items():
        config = model.defaults(TASK, 26_000)
        for dimension in model.space:
            section, key = dimension.path.split(".")
            assert key in config[section], name
