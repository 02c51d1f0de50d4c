"""Whether one model beats another on the same rows beyond what those rows leave open.

Shapes: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from training.calibrating import losses, mean_and_error
from training.metrics import scaled_logits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.phases.phase import Monitor

    Floats = NDArray[np.float64]

CLEARLY: Final = 0.001
"""Gain of log loss or AUC below which a difference is chance, however many rows there are."""


@dataclass(frozen=True)
class Gain:
    """How far one model is ahead of another.

    Attributes:
        mean: By how much its loss is less, or its AUC more.
        error: The standard error of that over rows, both models scoring the same ones.
    """

    mean: float
    error: float

    def clear(self, errors: float = 1.0) -> bool:
        """Whether it is more than chance: beyond `CLEARLY`, and so many standard errors."""
        return self.mean > max(CLEARLY, errors * self.error)


def gain(
    monitor: Monitor, label: NDArray[Any], ours: NDArray[Any], theirs: NDArray[Any], weight: NDArray[Any] | None
) -> Gain:
    """Compare the logits (N,) of two models on the same rows by a monitor."""
    y = np.asarray(label, np.float64)
    w = np.ones_like(y) if weight is None else np.asarray(weight, np.float64)
    if monitor == "auc":
        return _auc_gain(y, np.asarray(ours, np.float64), np.asarray(theirs, np.float64), w)
    if monitor == "scaled_log_loss":
        ours, theirs = scaled_logits(y, ours, w), scaled_logits(y, theirs, w)
    found = losses(np.asarray(theirs, np.float64), y) - losses(np.asarray(ours, np.float64), y)
    return Gain(*mean_and_error(found, w, np.arange(len(y))))


def _auc_gain(y: Floats, ours: Floats, theirs: Floats, w: Floats) -> Gain:
    """Source of the error: DeLong, DeLong, Clarke-Pearson, "Comparing the areas under two or more correlated receiver
    operating characteristic curves", Biometrics 1988: each row's share of the other class that it is right about.
    """  # noqa: D205
    mean, variance = 0.0, 0.0
    for kind in (1.0, 0.0):
        rows, others = y == kind, y != kind
        right = [_above(score[rows], score[others], w[others], kind) for score in (ours, theirs)]
        mean, error = mean_and_error(right[0] - right[1], w[rows], np.arange(int(rows.sum())))
        variance += error**2
    return Gain(mean, float(np.sqrt(variance)))


def _above(scores: Floats, others: Floats, weight: Floats, kind: float) -> Floats:
    """The share of other rows' weight that lies on the right side of each score; ties count half."""
    order = np.argsort(others, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(weight[order])])
    sides = [total[np.searchsorted(others[order], scores, side)] for side in ("left", "right")]
    below = (sides[0] + sides[1]) / (2.0 * total[-1])
    return np.asarray(below if kind else 1.0 - below)
