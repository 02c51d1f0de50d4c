"""Fits a calibration and decides whether it is kept: by log loss on rows that it was not fitted on, beyond noise."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from scipy.optimize import fmin_l_bfgs_b

from training.calibration import IDENTITY, Calibration, pieces, probability

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from training.calibration import CalibrationConfig, Kind

    Floats: TypeAlias = NDArray[np.float64]

FLATTEST: Final = 0.01
"""Least slope: what is flatter would let float32 tie scores that differ."""

PRIOR: Final = 1.0
"""Weight of ((slope - 1)^2) / 2 beside the summed log loss: pieces with hardly a click stay as they were."""

FEWEST_OF_A_CLASS: Final = 50
"""Rows of clicks, and of none, below which nothing is fitted."""


@dataclass(frozen=True)
class Scored:
    """Rows with a logit.

    Attributes:
        logits: (N,).
        label: (N,) 0 or 1.
        weight: (N,).
    """

    logits: Floats
    label: Floats
    weight: Floats

    @property
    def both_classes(self) -> bool:
        """Whether there is weight on clicks and on none."""
        return 0.0 < float(self.weight @ self.label) < float(self.weight.sum())

    def some(self, rows: NDArray[np.bool_]) -> Scored:
        """Some of the rows."""
        return Scored(self.logits[rows], self.label[rows], self.weight[rows])


def fit(kind: Kind, scored: Scored, most_knots: int = 4) -> Calibration:
    """Fit by maximum likelihood with slopes held to 1 by a weak prior; the problem is convex.

    Args:
        kind: What to fit.
        scored: Rows of both classes.
        most_knots: Of a piecewise function.
    """
    logits, label, weight = scored.logits, scored.label, scored.weight
    if kind == "identity":
        return IDENTITY
    knots = information_knots(logits, weight, most_knots) if kind == "piecewise" else ()
    design = np.stack([*pieces(logits, knots), np.ones_like(logits)], axis=1)
    mass = weight.sum()
    share = weight / mass

    def loss(theta: Floats) -> tuple[float, Floats]:
        eta = design @ theta
        away = theta[:-1] - 1.0
        value = float(share @ losses(eta, label)) + PRIOR * float(away @ away) / (2.0 * mass)
        gradient = design.T @ (share * (probability(eta) - label))
        gradient[:-1] += PRIOR * away / mass
        return value, gradient

    start = np.ones(design.shape[1])
    start[-1] = knots[0] if knots else 0.0
    bounds = [(FLATTEST, None)] * (len(start) - 1) + [(None, None)]
    found = fmin_l_bfgs_b(loss, start, bounds=bounds, factr=10.0, pgtol=1e-9, maxiter=1000)[0]
    return Calibration(tuple(map(float, found[:-1])), knots, float(found[-1]))


def information_knots(logits: Floats, weight: Floats, most: int) -> tuple[float, ...]:
    """Knots that cut the rows into pieces of equal information about a logit, w p (1 - p)."""
    order = np.argsort(logits, kind="stable")
    chance = probability(logits[order])
    information = np.cumsum(weight[order] * chance * (1.0 - chance))
    wanted = information[-1] * np.arange(1, most + 1) / (most + 1)
    return tuple(np.unique(logits[order][np.searchsorted(information, wanted)]).tolist())


@dataclass(frozen=True)
class Candidate:
    """A kind of calibration, cross-fitted.

    Attributes:
        log_loss: Of rows that it was not fitted on.
        gain: How much less that is than the next simpler one's that was kept.
        error: The gain's standard error, by group where there are groups.
        kept: Whether it took that one's place.
    """

    log_loss: float
    gain: float
    error: float
    kept: bool


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        calibration: The function.
        rows: Validation rows that decided.
        log_loss: Of the logits as they came.
        candidates: What was tried, the simplest first.
        why: Why nothing was tried; empty where something was.
    """

    calibration: Calibration
    rows: int
    log_loss: float
    candidates: Mapping[str, Candidate]
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """`calibration` of `metrics.json`."""
        tried = {name: asdict(candidate) for name, candidate in self.candidates.items()}
        kind, rows = self.calibration.kind, self.rows
        return {"kind": kind, "rows": rows, "log_loss": self.log_loss, "candidates": tried, "why": self.why}


def choose(
    config: CalibrationConfig,
    logits: ArrayLike,
    label: ArrayLike,
    weight: ArrayLike | None = None,
    group: ArrayLike | None = None,
    *,
    seed: int = 0,
) -> Choice:
    """Choose a calibration by cross-fitted log loss.

    Args:
        config: What to try, and what it must gain.
        logits: (N,) of rows that the model was not trained on.
        label: (N,).
        weight: (N,) or None.
        group: (N,) or None: rows of a group are in one fold, and are one unit of the standard error.
        seed: Of the folds.
    """
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(label, dtype=np.float64)
    w = np.ones_like(y) if weight is None else np.asarray(weight, dtype=np.float64)
    scored, units = Scored(z, y, w), _units(group, len(y), config.folds)
    before = losses(z, y)
    plain = float(w @ before / w.sum())
    if not config.candidates:
        return Choice(IDENTITY, len(y), plain, {}, "none was asked for")
    if min(np.sum(w * y > 0), np.sum(w * (1.0 - y) > 0)) < FEWEST_OF_A_CLASS:
        return Choice(IDENTITY, len(y), plain, {}, f"fewer than {FEWEST_OF_A_CLASS} rows of a class")
    fold = np.random.default_rng([seed, 0xCA]).permutation(units.max() + 1)[units] % config.folds
    kept: Kind = "identity"
    tried: dict[str, Candidate] = {}
    for kind in config.candidates:
        after = losses(_cross_fitted(kind, scored, fold, config.knots), y)
        gain, error = mean_and_error(before - after, w, units)
        better = gain > 0.0 and gain > config.errors * error
        tried[kind] = Candidate(float(w @ after / w.sum()), gain, error, better)
        if better:
            kept, before = kind, after
    return Choice(fit(kept, scored, config.knots), len(y), plain, tried)


def losses(logits: Floats, label: Floats) -> Floats:
    """Log loss of each row in nats, exact for any logit."""
    return np.asarray(np.logaddexp(0.0, logits) - label * logits)


def _units(group: ArrayLike | None, rows: int, folds: int) -> NDArray[np.int64]:
    """Numbers from 0 on of what is never cut apart: groups, or rows where there are fewer groups than folds."""
    if group is not None:
        names, units = np.unique(np.asarray(group), return_inverse=True)
        if len(names) >= folds:
            return units.astype(np.int64)
    return np.arange(rows)


def _cross_fitted(kind: Kind, scored: Scored, fold: NDArray[np.int64], most_knots: int) -> Floats:
    """Every row's logit by a calibration of the other folds' rows."""
    found = scored.logits.copy()
    for number in np.unique(fold):
        rest = scored.some(fold != number)
        if rest.both_classes:
            found[fold == number] = fit(kind, rest, most_knots)(scored.logits[fold == number])
    return found


def mean_and_error(values: Floats, weight: Floats, units: NDArray[np.int64]) -> tuple[float, float]:
    """A weighted mean and its standard error, whole units being what is independent."""
    mass = weight.sum()
    mean = float(weight @ values / mass)
    sums = np.bincount(units, weight * (values - mean))
    count = len(sums)
    return mean, float(np.sqrt(np.square(sums).sum() * count / max(count - 1, 1)) / mass)
