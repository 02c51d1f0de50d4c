"""What trials came to, and which of them to train with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.models.base import FieldSlot
    from training.tuning.space import Overrides

Monitor = Literal["log_loss", "auc"]
State = Literal["complete", "stopped early", "too large", "diverged"]

NEAR: Final = {"log_loss": 1e-3, "auc": 1e-3}
"""Differences that seeds can make: relative to the log loss, or of AUC. Trials this near the best go to more seeds."""
FINALISTS: Final = 3


@dataclass(frozen=True)
class Tried:
    """One trial.

    Attributes:
        number: From 0, the experiment as it was.
        overrides: What it changes.
        state: How it ended.
        scores: Seed -> what the fused model came to on the validation split; empty unless complete.
        parameters: Of the fused model, tables and dense layers, before gates close any field.
        seconds: Of its training, or of the last part of one that was resumed.
    """

    number: int
    overrides: Overrides
    state: State
    scores: dict[int, float]
    parameters: int
    seconds: float

    def mean(self) -> float:
        """The mean over its seeds."""
        return math.fsum(self.scores.values()) / len(self.scores)


@dataclass(frozen=True)
class Found:
    """What a search came to so far.

    Attributes:
        monitor: What it went by.
        seed: The experiment's.
        limit: Most parameters of a trial.
        trials: All that ended.
        chosen: The number of the one to train with.
        ended: The search went to its end, ties and all.
    """

    monitor: Monitor
    seed: int
    limit: int
    trials: tuple[Tried, ...]
    chosen: int
    ended: bool

    @property
    def best(self) -> Tried:
        """The trial to train with."""
        return next(trial for trial in self.trials if trial.number == self.chosen)


def choose(trials: Sequence[Tried], monitor: Monitor, seed: int) -> int:
    """Choose among trials: the best mean over the seeds that all finalists have.

    What replaces the experiment as it was (number 0) must be ahead of it on the further seeds alone, which had no part
    in making it a finalist: the best of many is partly luck.
    """
    sign = -1.0 if monitor == "auc" else 1.0
    done = [trial for trial in trials if trial.state == "complete"]
    again = [trial for trial in done if len(trial.scores) > 1] or done
    for trial in sorted(again, key=lambda trial: (sign * trial.mean(), trial.number)):
        start = next((other for other in again if other.number == 0), None)
        fresh = trial.scores.keys() - {seed}
        if start is None or trial is start or not fresh:
            return trial.number
        ahead = [sign * (start.scores[s] - trial.scores[s]) for s in sorted(fresh & start.scores.keys())]
        if math.fsum(ahead) > 0.0:
            return trial.number
    return 0


def finalists(trials: Sequence[Tried], monitor: Monitor, seed: int) -> list[Tried]:
    """The trials that further seeds decide between: the nearest to the best, and the experiment as it was."""
    sign = -1.0 if monitor == "auc" else 1.0
    done = sorted((t for t in trials if t.state == "complete"), key=lambda t: (sign * t.scores[seed], t.number))
    if not done:
        return []
    best = sign * done[0].scores[seed]
    margin = NEAR[monitor] * (abs(best) if monitor == "log_loss" else 1.0)
    near = [trial for trial in done if sign * trial.scores[seed] <= best + margin][:FINALISTS]
    start = [trial for trial in done if trial.number == 0 and trial not in near]
    near += start
    return near if len(near) > 1 else []


def served_parameters(slots: Sequence[FieldSlot], widths: Sequence[int]) -> int:
    """Parameters of the fused model: a table and a projection a field, layers with biases, batch norms merged."""
    tables = sum(slot.rows * slot.dim for slot in slots)
    sizes = [sum(slot.dim for slot in slots), *widths, 1]
    return tables + sum(size * after + after for size, after in pairwise(sizes))
