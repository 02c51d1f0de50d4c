"""Paired bootstrap over test rows (or whole clusters of them) and over seeds.

A replicate is drawn from a seed and the number of clusters alone, so replicate r of any two models on one test split is
the same resample: what they differ in is the models, and intervals of differences come out of stored metrics without
the predictions.

Shapes: N rows, G clusters, R replicates, S seeds of a model.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 6 and 13; clusters: Field and Welsh,
"Bootstrapping clustered data", JRSS B 69(3), 2007.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

REPLICATES: Final = 200
LEVEL: Final = 0.95
_SEED_DRAWS: Final = 100  # resamples of the seeds a replicate of the rows
_EPSILON: Final = 1e-15  # as `training.metrics.log_loss` clips
_LEAST_SEEDS: Final = 2


class BootstrapError(ValueError):
    """Rows or lines that cannot be resampled; the message says why."""


@dataclass(frozen=True)
class Interval:
    """A difference of means over seeds.

    Attributes:
        mean: Ours minus theirs.
        low: Lower bound of the 95% interval.
        high: Upper bound.
        seeds: Seeds of the two; with one seed a side adds no spread of its own, which is then unknown.
    """

    mean: float
    low: float
    high: float
    seeds: tuple[int, int]


def counts(clusters: int, seed: int, replicates: int = REPLICATES) -> Iterator[Ints]:
    """How often each cluster is drawn: R times (G,), from seed, G and the replicate's number alone."""
    for number in range(replicates):
        generator = np.random.default_rng([seed, number])
        yield np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)


def replicates(
    label: NDArray[np.number],
    pctr: NDArray[np.number],
    cluster: NDArray[np.integer] | None = None,
    *,
    seed: int,
    replicates: int = REPLICATES,
) -> dict[str, list[float]]:
    """AUC and log loss on resampled rows.

    Args:
        label: (N,) of 0 and 1.
        pctr: (N,) probabilities.
        cluster: (N,) whole numbers; rows of one are drawn together (users, blocks of time). None: rows alone.
        seed: From the data, the same for every model.
        replicates: R.

    Returns:
        {"auc": R values, "log_loss": R values}.

    Raises:
        BootstrapError: A resample holds one class only, or the arrays do not fit together.
    """
    y, p, group, clusters = _checked(label, pctr, cluster)
    order = np.argsort(p, kind="stable")
    sorted_y, sorted_p, sorted_group = y[order], p[order], group[order]
    starts = np.flatnonzero(np.r_[True, sorted_p[1:] != sorted_p[:-1]])  # one tie a start
    clipped = np.clip(sorted_p, _EPSILON, 1.0 - _EPSILON)
    loss = -np.where(sorted_y > 0, np.log(clipped), np.log1p(-clipped))
    found: dict[str, list[float]] = {"auc": [], "log_loss": []}
    for drawn in counts(clusters, seed, replicates):
        weight = drawn[sorted_group].astype(np.float64)
        clicks = np.add.reduceat(weight * sorted_y, starts)
        others = np.add.reduceat(weight, starts) - clicks
        total = float(clicks.sum() * others.sum())
        if not total > 0:
            raise BootstrapError(f"a resample of {clusters} clusters holds one class only: too few to resample")
        below = np.cumsum(others) - 0.5 * others
        found["auc"].append(float(clicks @ below) / total)
        found["log_loss"].append(float(weight @ loss) / float(weight.sum()))
    return found


def interval(
    ours: Sequence[Mapping[str, object]],
    theirs: Sequence[Mapping[str, object]],
    metric: str,
    *,
    split: str = "test",
    bootstrap: str = "bootstrap",
) -> Interval:
    """Difference of means over seeds, ours minus theirs, with a 95% interval over rows and seeds.

    Every replicate of the rows takes the same resample on both sides and draws each side's seeds anew. A resample of S
    seeds varies (S - 1) / S as much as it should, and has S - 1 degrees of freedom: deviations of its mean are widened
    by sqrt(S / (S - 1)) and by Student's quantile over the normal one.

    Args:
        ours: Ledger lines of one model, one a seed.
        theirs: Those of the other, on the same task.
        metric: "auc" or "log_loss".
        split: The key of the observed metrics.
        bootstrap: The key of the resampled ones.

    Raises:
        BootstrapError: No lines, or different numbers of replicates.
    """
    (our_means, our_rows), (their_means, their_rows) = _both(ours, theirs, metric, split, bootstrap)
    generator = np.random.default_rng(0)
    drawn = _seed_means(our_rows, generator) - _seed_means(their_rows, generator)
    return _around(float(our_means.mean() - their_means.mean()), drawn, (len(our_means), len(their_means)))


def paired_interval(
    ours: Sequence[Mapping[str, object]],
    theirs: Sequence[Mapping[str, object]],
    metric: str,
    *,
    split: str = "test",
    bootstrap: str = "bootstrap",
) -> Interval:
    """As `interval`, where line i of both is of one seed and shares with it what it began from.

    A replicate draws seeds for both sides together, so what a seed moves alike in both is in neither bound.

    Args:
        ours: Ledger lines, one a seed.
        theirs: Those of the same seeds, in the same order.
        metric: "auc" or "log_loss".
        split: The key of the observed metrics.
        bootstrap: The key of the resampled ones.

    Raises:
        BootstrapError: No lines, or different numbers of lines or replicates.
    """
    if len(ours) != len(theirs):
        raise BootstrapError(f"{metric}: expected a line a seed on both sides, got {len(ours)} and {len(theirs)}")
    (our_means, our_rows), (their_means, their_rows) = _both(ours, theirs, metric, split, bootstrap)
    drawn = _seed_means(our_rows - their_rows, np.random.default_rng(0))
    return _around(float((our_means - their_means).mean()), drawn, (len(our_means), len(their_means)))


def _both(
    ours: Sequence[Mapping[str, object]],
    theirs: Sequence[Mapping[str, object]],
    metric: str,
    split: str,
    bootstrap: str,
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Each side's observed (S,) and resampled (S, R), of as many replicates."""
    our, their = (_lines(side, metric, split, bootstrap) for side in (ours, theirs))
    our_rows, their_rows = our[1], their[1]
    if our_rows.shape[1] != their_rows.shape[1]:
        raise BootstrapError(
            f"{metric}: expected as many replicates, got {our_rows.shape[1]} and {their_rows.shape[1]}"
        )
    return our, their


def _around(mean: float, drawn: Floats, seeds: tuple[int, int]) -> Interval:
    low, high = np.quantile(drawn - drawn.mean(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, mean + float(low), mean + float(high), seeds)


def _seed_means(rows: Floats, generator: np.random.Generator) -> Floats:
    """Means over resampled seeds: (R, draws)."""
    S, R = rows.shape
    centre = rows.mean(axis=0)[:, None]
    if S < _LEAST_SEEDS:
        return np.repeat(centre, _SEED_DRAWS, axis=1)
    share = generator.multinomial(S, np.full(S, 1.0 / S), size=(R, _SEED_DRAWS)) / S
    deviation = np.einsum("rks,sr->rk", share, rows) - centre
    return np.asarray(centre + deviation * _widening(S))


def _widening(seeds: int) -> float:
    from scipy.stats import norm, t  # noqa: PLC0415 - slow to import, and only intervals need it

    upper = (1 + LEVEL) / 2
    return float(np.sqrt(seeds / (seeds - 1)) * t.ppf(upper, seeds - 1) / norm.ppf(upper))


def _lines(lines: Sequence[Mapping[str, object]], metric: str, split: str, bootstrap: str) -> tuple[Floats, Floats]:
    """Observed (S,) and resampled (S, R)."""
    if not lines:
        raise BootstrapError(f"{metric}: expected at least one line, got none")
    observed = np.array([_floats(line, split)[metric] for line in lines], np.float64)
    resampled = [_floats(line, bootstrap)[metric] for line in lines]
    if len({len(values) for values in resampled}) != 1:
        raise BootstrapError(f"{metric}: expected as many replicates in every line, got {[len(v) for v in resampled]}")
    return observed, np.array(resampled, np.float64)


def _floats(line: Mapping[str, object], key: str) -> Mapping[str, list[float]]:
    value = line[key]
    if not isinstance(value, dict):
        raise BootstrapError(f"{key}: expected metrics, got {value!r}")
    return value


def _checked(
    label: NDArray[np.number], pctr: NDArray[np.number], cluster: NDArray[np.integer] | None
) -> tuple[Floats, Floats, Ints, int]:
    y, p = np.asarray(label, np.float64), np.asarray(pctr, np.float64)
    if y.ndim != 1 or p.shape != y.shape or not len(y):
        raise BootstrapError(f"expected arrays of one length >= 1, got {y.shape} and {p.shape}")
    if not ((y == 0) | (y == 1)).all() or not ((p >= 0) & (p <= 1)).all():
        raise BootstrapError("expected labels of 0 and 1 and probabilities in [0, 1]")
    if cluster is None:
        return y, p, np.arange(len(y)), len(y)
    found, group = np.unique(np.asarray(cluster), return_inverse=True)
    if group.shape != y.shape:
        raise BootstrapError(f"cluster: expected shape {y.shape}, got {group.shape}")
    return y, p, group.astype(np.int64), len(found)
