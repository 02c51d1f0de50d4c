"""Whether one model beats another on the same rows beyond what those rows leave open.

Shapes: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

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
        error: The standard error of that, both models scoring the same rows; the larger one of rows taken to be
            independent and, where rows come in groups, of whole groups.
    """

    mean: float
    error: float

    def clear(self, errors: float = 1.0) -> bool:
        """Whether it is more than chance: beyond `CLEARLY`, and so many standard errors."""
        return self.mean > max(CLEARLY, errors * self.error)


class Judged(Protocol):
    """Rows that models are compared on."""

    @property
    def label(self) -> NDArray[Any]: ...  # noqa: D102
    @property
    def weight(self) -> NDArray[Any] | None: ...  # noqa: D102
    @property
    def group(self) -> NDArray[Any] | None: ...  # noqa: D102


def gain(monitor: Monitor, rows: Judged, ours: NDArray[Any], theirs: NDArray[Any]) -> Gain:
    """Compare the logits (N,) of two models on the same rows by a monitor.

    Args:
        monitor: What is gained.
        rows: Labels (N,), weights (N,) if any, and if they come in groups, requests or users, a number of each (N,).
        ours: Of one model.
        theirs: Of the other.
    """
    y = np.asarray(rows.label, np.float64)
    w = np.ones_like(y) if rows.weight is None else np.asarray(rows.weight, np.float64)
    units = None if rows.group is None else np.unique(np.asarray(rows.group), return_inverse=True)[1]
    if monitor == "auc":
        return _auc_gain(y, np.asarray(ours, np.float64), np.asarray(theirs, np.float64), w, units)
    if monitor == "scaled_log_loss":
        ours, theirs = scaled_logits(y, ours, w), scaled_logits(y, theirs, w)
    found = losses(np.asarray(theirs, np.float64), y) - losses(np.asarray(ours, np.float64), y)
    mean, error = mean_and_error(found, w, np.arange(len(y)))
    return Gain(mean, error if units is None else max(error, mean_and_error(found, w, units)[1]))


def _auc_gain(y: Floats, ours: Floats, theirs: Floats, w: Floats, units: NDArray[np.int64] | None) -> Gain:
    """Each row's share of the other class that it is right about, and how far that is from the mean.

    Source: of rows, DeLong, DeLong, Clarke-Pearson, "Comparing the areas under two or more correlated receiver
    operating characteristic curves", Biometrics 1988; of groups, Obuchowski, "Nonparametric analysis of clustered ROC
    curve data", Biometrics 1997: a group's rows of both classes are summed up before they are squared.
    """
    mean, variance, off = 0.0, 0.0, np.zeros(len(y))
    for kind in (1.0, 0.0):
        rows, others = y == kind, y != kind
        right = [_above(score[rows], score[others], w[others], kind) for score in (ours, theirs)]
        mean, error = mean_and_error(right[0] - right[1], w[rows], np.arange(int(rows.sum())))
        variance += error**2
        off[rows] = (right[0] - right[1] - mean) / w[rows].sum()
    error = float(np.sqrt(variance))
    if units is None:
        return Gain(mean, error)
    sums = np.bincount(units, w * off)
    return Gain(mean, max(error, float(np.sqrt(np.square(sums).sum() * len(sums) / max(len(sums) - 1, 1)))))


def _above(scores: Floats, others: Floats, weight: Floats, kind: float) -> Floats:
    """The share of other rows' weight that lies on the right side of each score; ties count half."""
    order = np.argsort(others, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(weight[order])])
    sides = [total[np.searchsorted(others[order], scores, side)] for side in ("left", "right")]
    below = (sides[0] + sides[1]) / (2.0 * total[-1])
    return np.asarray(below if kind else 1.0 - below)
