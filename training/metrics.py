"""Metrics of click predictions, in numpy alone; every one takes sample weights.

Shapes: N predictions. `label` is 0/1, `score` any real number (only its order counts), `pctr` a probability.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_EPSILON = 1e-15
_NEWTON_STEPS = 50


class MetricError(ValueError):
    """Labels, scores or weights on which a metric is not defined."""


def auc(label: "ArrayLike", score: "ArrayLike", weight: "ArrayLike | None" = None) -> float:
    """Return the area under the ROC curve: P(score of a click > score of a non-click), ties count half.

    Raises:
        MetricError: No click or no non-click (of positive weight), lengths that differ, values that are not finite.
    """
    y, s, w = _checked(label, score, weight)
    order = np.argsort(s, kind="stable")
    y, s, w = y[order], s[order], w[order]
    # One group a distinct score: its clicks beat all lower non-clicks and half of its own.
    starts = np.flatnonzero(np.r_[True, s[1:] != s[:-1]])
    clicks = np.add.reduceat(w * y, starts)
    others = np.add.reduceat(w * (1.0 - y), starts)
    total = clicks.sum() * others.sum()
    if not total > 0:
        raise MetricError(f"AUC needs both classes; got {clicks.sum():g} of weight 1 and {others.sum():g} of weight 0")
    below = np.cumsum(others) - others
    return float((clicks * (below + 0.5 * others)).sum() / total)


def log_loss(label: "ArrayLike", pctr: "ArrayLike", weight: "ArrayLike | None" = None) -> float:
    """Return the mean negative log likelihood in nats (raises MetricError unless 0 <= pctr <= 1)."""
    y, p, w = _checked(label, pctr, weight)
    _probabilities(p)
    p = np.clip(p, _EPSILON, 1.0 - _EPSILON)
    return float(-(w * (y * np.log(p) + (1.0 - y) * np.log1p(-p))).sum() / w.sum())


def scaled_log_loss(label: "ArrayLike", logits: "ArrayLike", weight: "ArrayLike | None" = None) -> float:
    """Return the log loss of sigmoid(a * logits + b) at its best a >= 0 and b: what is left once calibrated.

    A model that goes on to learn the order may say it too surely; calibration mends the one and not the other. Nor does
    it mend an order that is the wrong way round: see `scaled_logits`.
    """
    y, z, w = _checked(label, logits, weight)
    t = scaled_logits(y, z, w)
    return float((w * (np.logaddexp(0.0, t) - y * t)).sum() / w.sum())


def scaled_logits(label: "ArrayLike", logits: "ArrayLike", weight: "ArrayLike | None" = None) -> "Floats":
    """Return a * logits + b (N,) at the a >= 0 and b of least log loss.

    Where logits are no higher on clicks than elsewhere, no slope above 0 helps (the problem is convex), and the base
    rate's logit is left.
    Source: Platt, "Probabilistic outputs for support vector machines", 1999; a and b by Newton's method with halved
    steps, as Lin, Lin, Weng, "A note on Platt's probabilistic outputs", Machine Learning 68 (2007).
    """
    y, z, w = _checked(label, logits, weight)
    w = w / w.sum()
    rate = float(w @ y)
    if not w @ ((y - rate) * z) > 0.0:
        rate = min(max(rate, _EPSILON), 1.0 - _EPSILON)
        return np.full_like(z, np.log(rate) - np.log1p(-rate))
    x = np.stack([z, np.ones_like(z)])
    theta = np.array([1.0, 0.0])

    def loss(at: "Floats") -> float:
        t = at @ x
        return float((w * (np.logaddexp(0.0, t) - y * t)).sum())

    found = loss(theta)
    for _ in range(_NEWTON_STEPS):
        p = np.exp(-np.logaddexp(0.0, -(theta @ x)))
        step = np.linalg.solve((x * (w * p * (1.0 - p))) @ x.T + 1e-12 * np.eye(2), x @ (w * (p - y)))
        size = 1.0
        while size > _EPSILON and not loss(theta - size * step) <= found:
            size /= 2.0
        theta, before = theta - size * step, found
        found = min(found, loss(theta))
        if before - found < _EPSILON:
            break
    return np.asarray(theta @ x)


def gauc(label: "ArrayLike", score: "ArrayLike", group: "ArrayLike", weight: "ArrayLike | None" = None) -> float:
    """Return the mean AUC within groups, weighted by a group's weight; groups of one class are left out.

    Source: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, eq. 5 (weights: the
    number of impressions).

    Raises:
        MetricError: No group holds both classes.
    """
    y, s, w = _checked(label, score, weight)
    total = area = 0.0
    for rows in _groups(group, len(y)):
        mass = w[rows]
        clicks = float((mass * y[rows]).sum())
        if 0.0 < clicks < float(mass.sum()):
            total += float(mass.sum())
            area += float(mass.sum()) * auc(y[rows], s[rows], mass)
    if not total > 0:
        raise MetricError("GAUC needs a group with both classes; got none")
    return area / total


def ndcg(
    label: "ArrayLike", score: "ArrayLike", group: "ArrayLike", k: int = 10, weight: "ArrayLike | None" = None
) -> float:
    """Return the mean NDCG@k over groups with a click; gains are labels, tied scores share their mean gain.

    A group's share in the mean is its weight divided by its rows (1 without weights).

    Raises:
        MetricError: No group holds a click.
    """
    y, s, w = _checked(label, score, weight)
    total = mean = 0.0
    for rows in _groups(group, len(y)):
        if not y[rows].any():
            continue
        discount = 1.0 / np.log2(np.arange(2, len(rows) + 2))
        discount[k:] = 0.0
        share = float(w[rows].mean())
        total += share
        mean += share * _tied_dcg(y[rows], s[rows], discount) / float((-np.sort(-y[rows]) * discount).sum())
    if not total > 0:
        raise MetricError("NDCG needs a group with a click; got none")
    return mean / total


@dataclass(frozen=True)
class CalibrationCurve:
    """Mean prediction, observed rate and weight of every bin that holds a row (all (bins,))."""

    predicted: "Floats"
    observed: "Floats"
    weight: "Floats"


def calibration_curve(
    label: "ArrayLike", pctr: "ArrayLike", weight: "ArrayLike | None" = None, bins: int = 20
) -> CalibrationCurve:
    """Return the reliability curve over bins of equal weight; equal predictions are never cut apart."""
    y, p, w = _checked(label, pctr, weight)
    _probabilities(p)
    order = np.argsort(p, kind="stable")
    y, p, w = y[order], p[order], w[order]
    middle = np.cumsum(w) - 0.5 * w
    name = np.minimum((middle / w.sum() * bins).astype(np.int64), bins - 1)
    first = np.flatnonzero(np.r_[True, p[1:] != p[:-1]])
    name = np.repeat(name[first], np.diff(np.r_[first, len(p)]))  # a tie is named after its first row
    starts = np.flatnonzero(np.r_[True, name[1:] != name[:-1]])
    mass = np.add.reduceat(w, starts)
    keep = mass > 0
    safe = np.where(keep, mass, 1.0)
    return CalibrationCurve(
        predicted=(np.add.reduceat(w * p, starts) / safe)[keep],
        observed=(np.add.reduceat(w * y, starts) / safe)[keep],
        weight=mass[keep],
    )


def ece(label: "ArrayLike", pctr: "ArrayLike", weight: "ArrayLike | None" = None, bins: int = 20) -> float:
    """Return the expected calibration error: the mean |observed - predicted| over bins of equal weight.

    Source: Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    """
    curve = calibration_curve(label, pctr, weight, bins)
    return float((curve.weight * np.abs(curve.observed - curve.predicted)).sum() / curve.weight.sum())


def evaluate(
    label: "ArrayLike", pctr: "ArrayLike", weight: "ArrayLike | None" = None, group: "ArrayLike | None" = None
) -> dict[str, float]:
    """Return every metric that is defined here: auc, log_loss, ece, base_rate, mean_pctr; gauc and ndcg@10 by group."""
    y, p, w = _checked(label, pctr, weight)
    found = {
        "auc": auc(y, p, w),
        "log_loss": log_loss(y, p, w),
        "ece": ece(y, p, w),
        "base_rate": float((w * y).sum() / w.sum()),
        "mean_pctr": float((w * p).sum() / w.sum()),
    }
    if group is not None:
        for name, metric in (("gauc", gauc), ("ndcg@10", ndcg)):
            try:
                found[name] = metric(y, p, group, weight=w)
            except MetricError:  # groups of one row each: the metric is left out, not made up
                continue
    return found


def _tied_dcg(y: "Floats", s: "Floats", discount: "Floats") -> float:
    # McSherry and Najork, ECIR 2008: the expectation over orders of tied rows.
    order = np.argsort(-s, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(s[order]) != 0])
    sizes = np.diff(np.r_[starts, len(s)])
    return float((np.add.reduceat(y[order], starts) / sizes * np.add.reduceat(discount, starts)).sum())


def _groups(group: "ArrayLike", rows: int) -> "list[NDArray[np.int64]]":
    g = np.asarray(group)
    if g.shape != (rows,):
        raise MetricError(f"group: expected shape ({rows},), got {g.shape}")
    order = np.argsort(g, kind="stable")
    return np.split(order, np.flatnonzero(g[order][1:] != g[order][:-1]) + 1)


def _probabilities(p: "Floats") -> None:
    if p.min() < 0.0 or p.max() > 1.0:
        raise MetricError(f"expected probabilities in [0, 1], got {p.min():g} to {p.max():g}")


def _checked(label: "ArrayLike", score: "ArrayLike", weight: "ArrayLike | None") -> "tuple[Floats, Floats, Floats]":
    y = np.asarray(label, dtype=np.float64)
    s = np.asarray(score, dtype=np.float64)
    w = np.ones_like(y) if weight is None else np.asarray(weight, dtype=np.float64)
    if y.ndim != 1 or not len(y) or s.shape != y.shape or w.shape != y.shape:
        raise MetricError(f"expected arrays of one length >= 1; got {y.shape}, {s.shape}, {w.shape}")
    if not ((y == 0.0) | (y == 1.0)).all():
        raise MetricError("label: expected 0 or 1 everywhere")
    if not np.isfinite(s).all():
        raise MetricError(f"score: expected finite values; row {int(np.flatnonzero(~np.isfinite(s))[0])} is not")
    if not np.isfinite(w).all() or w.min() < 0.0 or not w.sum() > 0.0:
        raise MetricError("weight: expected finite values >= 0 with a positive sum")
    return y, s, w
