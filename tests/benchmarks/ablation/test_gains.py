"""What a variant comes to over tasks: against errors of a known size."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ablation.gains import gain_text, over_tasks

ARM = 1.959964  # standard errors on either side of a 95% interval


def test_the_interval_over_tasks_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = {"one-time": 0.3, "two-time": -0.1, "three-random": 0.4, "four-random": 0.0}
    error = {"one-time": 1.0, "two-time": 0.2, "three-random": 0.5, "four-random": 2.0}
    held = []
    for _ in range(2000):
        seen = {task: true + error[task] * rng.normal() for task, true in truth.items()}
        found = over_tasks(
            {
                task: {"mean": mean, "low": mean - ARM * error[task], "high": mean + ARM * error[task]}
                for task, mean in seen.items()
            }
        )
        held.append(found["low"] < np.mean(list(truth.values())) < found["high"])
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)  # three standard errors of the count


def test_splits_of_the_same_data_err_together_and_each_side_by_itself() -> None:
    gains = {
        "same_data-random": {"mean": 3.0, "low": 2.0, "high": 5.0},
        "same_data-time": {"mean": 1.0, "low": -1.0, "high": 1.5},
        "other-time": {"mean": 2.0, "low": -2.0, "high": 8.0},
    }
    found = over_tasks(gains)
    assert found["mean"] == pytest.approx(2.0)
    assert found["low"] == pytest.approx(2.0 - np.sqrt((1 + 2) ** 2 + 4**2) / 3)
    assert found["high"] == pytest.approx(2.0 + np.sqrt((2 + 0.5) ** 2 + 6**2) / 3)
    apart = over_tasks({f"{number}-time": gain for number, gain in enumerate(gains.values())})
    assert found["low"] < apart["low"] < found["mean"] < apart["high"] < found["high"]
    # Ratings and tags are of the same users and films.
    beside = over_tasks({name.replace("data-time", "data_tags-time"): gain for name, gain in gains.items()})
    assert beside == found


def test_of_two_tasks_there_is_no_mean() -> None:
    gain = {"mean": 1.0, "low": 0.5, "high": 1.5}
    assert over_tasks({"a-time": gain, "b-time": gain}) == {}
    assert over_tasks(dict.fromkeys(("a-time", "b-time", "c-time"), gain))["mean"] == 1.0


@pytest.mark.parametrize(("low", "high", "bold"), [(-0.001, 0.002, False), (0.0005, 0.002, True), (-0.2, -0.1, True)])
def test_a_gain_is_bold_where_its_interval_does_not_hold_0(low: float, high: float, *, bold: bool) -> None:
    assert gain_text({"mean": (low + high) / 2, "low": low, "high": high}).startswith("**") is bold
