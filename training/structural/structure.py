"""Structural redundancy: how far a model's dense layers can be thinned out before its ranking suffers.

A curve gives the change of AUC and of log loss on validation rows against the share of dense parameters left, for every
way of `pruning`, with a bootstrap interval that is paired: the thinned and the whole model on the same resampled rows
(whole groups where the data has groups). Importance and stand-ins come from training rows, so nothing is chosen on the
rows that a curve is measured on.

Letters: N validation rows, R resamples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from pydantic import TypeAdapter

from training.structural.pruning import (
    by_magnitude,
    by_rank,
    by_units,
    choose_ranks,
    nonzero,
    observe,
    rank_parameters,
    removal_order,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from training.structural.dense import DenseTower

    Thin = Callable[[int], tuple[DenseTower, int]]

Floats: TypeAlias = "NDArray[np.float64]"

METHODS: Final = {
    "magnitude": "weights, over all layers",
    "magnitude_by_layer": "weights, each layer alike",
    "rank": "singular values",
    "units": "hidden units",
}
"""Ways to take parameters out, as people read them."""

SHARES: Final = tuple(0.75**step for step in range(1, 17))
"""Shares of the dense parameters left that are tried first."""

BROKEN: Final = 0.02
"""Loss of AUC from which on a curve goes no further."""

ALLOWED_LOSS: Final = 1e-3
"""AUC that a thinned model may lose."""

HALVINGS: Final = 4  # of the gap between the last share that is allowed and the first that is not
RESAMPLES: Final = 100
CALIBRATION_ROWS: Final = 8192
"""Training rows that importance and stand-ins come from."""

MEASURED_ROWS: Final = 20_000
"""Validation rows that a curve is measured on."""


@dataclass(frozen=True)
class Point:
    """One thinned model.

    Attributes:
        left: share of the dense parameters.
        parameters: their number.
        auc_change, auc_low, auc_high: AUC less that of the whole model, and the 95% interval.
        log_loss_change, log_loss_low, log_loss_high: the same of the log loss, in nats.
    """

    left: float
    parameters: int
    auc_change: float
    auc_low: float
    auc_high: float
    log_loss_change: float
    log_loss_low: float
    log_loss_high: float


@dataclass(frozen=True)
class Structure:
    """All curves of one model.

    Attributes:
        widths: D, H_0, ..., H_{L-1}.
        parameters: of the dense layers, projections of the fields included.
        rows, calibration_rows: validation rows measured on; training rows that importance comes from.
        auc, log_loss: of the whole model on the rows measured.
        curves: method -> points, the share left falling; the whole model first.
    """

    widths: tuple[int, ...]
    parameters: int
    rows: int
    calibration_rows: int
    auc: float
    log_loss: float
    curves: dict[str, tuple[Point, ...]]

    def removable(self, method: str, *, surely: bool = False) -> float:
        """Share of the dense parameters that can go at a loss of at most 0.001 AUC.

        Every model with more left must hold it too. `surely`: the interval's lower end counts, not the estimate.
        """
        best = 1.0
        for point in self.curves[method]:
            if (point.auc_low if surely else point.auc_change) < -ALLOWED_LOSS:
                break
            best = point.left
        return 1.0 - best

    def most_removable(self) -> tuple[str, float]:
        """The way that takes out most, and the share it takes."""
        return max(((method, self.removable(method)) for method in self.curves), key=lambda entry: entry[1])

    def as_json(self) -> dict[str, Any]:
        """For `structure.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: object) -> Structure:
        """Read what `as_json` gave (raises pydantic.ValidationError)."""
        return TypeAdapter(cls).validate_python(content)


@dataclass(frozen=True)
class Measured:
    """Embedded rows with what is known of them.

    Attributes:
        x: (N, D).
        label: (N,) 0 or 1.
        weight: (N,) or None.
        group: (N,) what is resampled as a whole, or None.
    """

    x: NDArray[np.float32]
    label: NDArray[np.uint8]
    weight: NDArray[np.float32] | None = None
    group: NDArray[np.int64] | None = None


def measure_structure(
    tower: DenseTower,
    known: Measured,
    measured: Measured,
    *,
    shares: Sequence[float] = SHARES,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Structure:
    """Thin a tower out in every way and measure what it loses.

    Args:
        tower: the dense layers.
        known: training rows, for importance and stand-ins.
        measured: validation rows.
        shares: of the dense parameters left, falling; more are tried where the allowed loss is passed.
        resamples: R.
        seed: of the resamples.
        progress: told (methods done, methods).
    """
    judge = _Judge(measured, resamples, seed)
    whole = judge.whole(tower.logits(measured.x))
    curves = {}
    for done, (method, thin) in enumerate(thinners(tower, known).items(), 1):

        def point(share: float, thin: Thin = thin) -> Point:
            model, parameters = thin(int(share * tower.parameters))
            return judge.point(model.logits(measured.x), parameters, tower.parameters)

        points = [whole_point(tower.parameters)]
        for share in shares:
            points.append(point(share))
            if points[-1].auc_change < -BROKEN:
                break
        curves[method] = _refined(points, point)
        if progress is not None:
            progress(done, len(METHODS))
    widths = tuple(layer.weight.shape[0] for layer in tower.layers)
    return Structure(widths, tower.parameters, len(measured.label), len(known.label), *whole, curves)


def thinners(tower: DenseTower, known: Measured) -> dict[str, Thin]:
    """Method -> parameters that may be left -> the thinned tower, and how many it has."""
    statistics = observe(tower, known.x, known.label)
    order = removal_order(tower, statistics)

    def magnitude(parameters: int, *, each_layer: bool) -> tuple[DenseTower, int]:
        thin = by_magnitude(tower, statistics, parameters, each_layer=each_layer)
        return thin, nonzero(thin)

    def rank(parameters: int) -> tuple[DenseTower, int]:
        ranks = choose_ranks(tower, statistics, parameters)
        left = sum(rank_parameters(layer.weight.shape, r) for layer, r in zip(tower.layers, ranks, strict=True))
        return by_rank(tower, statistics, ranks), left + tower.biases

    def units(parameters: int) -> tuple[DenseTower, int]:
        thin = by_units(tower, statistics, order, parameters)
        return thin, thin.parameters

    return {
        "magnitude": lambda parameters: magnitude(parameters, each_layer=False),
        "magnitude_by_layer": lambda parameters: magnitude(parameters, each_layer=True),
        "rank": rank,
        "units": units,
    }


def whole_point(parameters: int) -> Point:
    """The model with nothing taken out."""
    return Point(1.0, parameters, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def _refined(points: list[Point], point: Callable[[float], Point]) -> tuple[Point, ...]:
    """The points, and more of them where the allowed loss is passed for the first time."""
    passed = next((place for place, found in enumerate(points) if found.auc_change < -ALLOWED_LOSS), None)
    if passed is None:
        return tuple(points)
    high, low = points[passed - 1].left, points[passed].left
    for _ in range(HALVINGS):
        found = point((high + low) / 2.0)
        if not low < found.left < high:
            break
        points.append(found)
        high, low = (found.left, low) if found.auc_change >= -ALLOWED_LOSS else (high, found.left)
    return tuple(sorted(points, key=lambda found: -found.left))


class _Judge:
    """AUC and log loss of models on the same rows and the same R resamples of them."""

    def __init__(self, measured: Measured, resamples: int, seed: int) -> None:
        self.label = measured.label.astype(np.float64)
        rng = np.random.default_rng(seed)
        units = (
            np.arange(len(self.label)) if measured.group is None else np.unique(measured.group, return_inverse=True)[1]
        )
        count = int(units.max()) + 1
        weight = np.ones(len(units)) if measured.weight is None else measured.weight.astype(np.float64)
        # The rows themselves first, then R times as many units drawn with replacement.
        drawn = [np.bincount(rng.integers(0, count, count), minlength=count)[units] for _ in range(resamples)]
        self.weights = np.stack([np.ones(len(units)), *drawn]) * weight

    def whole(self, logits: Floats) -> tuple[float, float]:
        """Remember the whole model; its AUC and log loss."""
        self._auc, self._loss = self._measure(logits)
        return float(self._auc[0]), float(self._loss[0])

    def point(self, logits: Floats, left: int, parameters: int) -> Point:
        """A thinned model against the whole one."""
        auc, loss = self._measure(logits)
        changes = []
        for change in (auc - self._auc, loss - self._loss):
            low, high = np.quantile(change[1:], [0.025, 0.975]) if len(change) > 1 else (change[0], change[0])
            changes += [float(change[0]), float(low), float(high)]
        return Point(left / parameters, left, *changes)

    def _measure(self, logits: Floats) -> tuple[Floats, Floats]:
        """AUC and log loss (1 + R,)."""
        y, w = self.label, self.weights
        loss = w @ (np.logaddexp(0.0, logits) - y * logits) / w.sum(1)
        return resampled_auc(y, logits, w), loss


def resampled_auc(label: Floats, score: Floats, weights: Floats) -> Floats:
    """AUC (R,) of scores (N,) under R weightings (R, N) of the rows; ties count half, 1/2 where a class is missing."""
    order = np.argsort(score, kind="stable")
    s, y, w = score[order], label[order], weights[:, order]
    starts = np.flatnonzero(np.r_[True, s[1:] != s[:-1]])
    clicks = w * y
    others = w - clicks
    if len(starts) < len(s):  # adding ties up costs more than all else
        clicks, others = (np.add.reduceat(part, starts, axis=1) for part in (clicks, others))
    beaten = (clicks * (np.cumsum(others, axis=1) - 0.5 * others)).sum(1)
    pairs = clicks.sum(1) * others.sum(1)
    return np.where(pairs > 0.0, beaten / np.where(pairs > 0.0, pairs, 1.0), 0.5)
