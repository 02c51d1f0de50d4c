"""Gains, the whole minus a variant: in words, and over tasks, the mean with an interval out of the tasks' intervals.

A part may earn its place by a little everywhere, which the few validation rows of no single task can tell. Every task
counts alike. Errors of tasks on different data are independent, and squares of an interval's arms are summed, each
side's by itself (MOVER: Zou and Donner, "Construction of confidence intervals about effect measures", Statistics in
Medicine 27(10), 2008). Two splits of the same data share rows, so the arms of those are summed as they are: as if what
moves one moved the other as much.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

METRICS = {"auc": "AUC", "log_loss": "log loss"}
"""What is measured, and its name for people."""

LEAST_TASKS = 3
"""Tasks that a mean over them is of at least."""


def over_tasks(gains: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The mean of a metric's differences and its 95% interval.

    Args:
        gains: Task -> mean, low, high of the whole minus a variant.

    Returns:
        "mean", "low", "high"; nothing of fewer tasks than `LEAST_TASKS`.
    """
    if len(gains) < LEAST_TASKS:
        return {}
    arms: dict[str, dict[str, float]] = {side: defaultdict(float) for side in ("low", "high")}
    for task, gain in gains.items():
        for side, of_data in arms.items():
            of_data[data_of(task)] += abs(gain["mean"] - gain[side])
    mean = statistics.fmean(gain["mean"] for gain in gains.values())
    low, high = (math.hypot(*arms[side].values()) / len(gains) for side in ("low", "high"))
    return {"mean": mean, "low": mean - low, "high": mean + high}


def gain_text(gain: Mapping[str, float]) -> str:
    """A difference with its interval, in thousandths; bold where that does not hold 0."""
    text = f"{1e3 * gain['mean']:+.1f} ({1e3 * gain['low']:+.1f} to {1e3 * gain['high']:+.1f})"
    return f"**{text}**" if gain["low"] > 0 or gain["high"] < 0 else text


def data_of(task: str) -> str:
    """The data that a task is a split of, by its name; tags are of the same users and movies as ratings."""
    return task.rpartition("-")[0].removesuffix("_tags")
