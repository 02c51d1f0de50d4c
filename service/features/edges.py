"""Bucket edges for numeric fields: two ways to choose them, both fitted outside the graph in float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["log_squared_edges", "quantile_edges"]


def log_squared_edges(largest: float) -> tuple[float, ...]:
    """Edges of the buckets floor(ln(v)^2), the usual treatment of counts, as plain edges exp(sqrt(k)).

    Below 2, where the formula runs backwards, every integer from -2 on has a bucket of its own.

    Args:
        largest: Largest value seen; no edge lies beyond it, at least one does not lie below 2.

    Returns:
        Ascending float64 edges: -2, -1, 0, 1, 2, e, exp(sqrt(2)), exp(sqrt(3)), ...

    Raises:
        ValueError: `largest` is not finite.
    """
    if not math.isfinite(largest):
        raise ValueError(f"largest: expected a finite number, got {largest!r}")
    edges = [-2.0, -1.0, 0.0, 1.0, 2.0]
    for k in range(1, 1 + math.floor(math.log(max(largest, 1.0)) ** 2)):
        edge = math.exp(math.sqrt(k))
        if edge > largest:
            break
        edges.append(edge)
    return tuple(edges)


def quantile_edges(
    values: Sequence[float] | NDArray[np.float64],
    buckets: int,
    weights: Sequence[float] | NDArray[np.float64] | None = None,
) -> tuple[float, ...]:
    """Edges that cut the values in buckets of about equal weight; fewer buckets where values repeat.

    Args:
        values: Numbers, in any order, repeated or distinct with their counts as weights.
        buckets: Largest number of buckets, at least 1.
        weights: Weight (a count, say) of each value, 1 if None.

    Returns:
        Strictly ascending edges, at most `buckets - 1`; every edge is one of the values and no bucket is empty.

    Raises:
        ValueError: No value, a value or weight that is not finite, a negative weight, or `buckets` below 1.
    """
    if buckets < 1:
        raise ValueError(f"buckets: expected at least 1, got {buckets}")
    points = np.asarray(values, dtype=np.float64)
    mass = np.ones_like(points) if weights is None else np.asarray(weights, dtype=np.float64)
    if points.ndim != 1 or points.size == 0 or points.shape != mass.shape:
        raise ValueError(f"values: expected one value or more and as many weights, got {points.shape} and {mass.shape}")
    if not np.isfinite(points).all():
        raise ValueError("values: expected finite numbers, got NaN or infinity")
    if not np.isfinite(mass).all() or (mass < 0).any():
        raise ValueError("weights: expected finite numbers from 0 up, got a negative, NaN or infinity")
    points, mass = points[mass > 0], mass[mass > 0]
    if points.size == 0:
        raise ValueError("weights: expected one above 0, got none")
    distinct, place = np.unique(points, return_inverse=True)
    below = np.concatenate([[0.0], np.cumsum(np.bincount(place, weights=mass))])
    wanted = below[-1] * np.arange(1, buckets) / buckets
    # An edge v puts v itself to the right of the cut: choose the cut (a distinct value) whose mass to the left is
    # nearest to the wanted one.
    right = np.clip(np.searchsorted(below, wanted), 1, distinct.size)
    nearest = np.where(wanted - below[right - 1] < below[right] - wanted, right - 1, right)
    inner = nearest[(nearest > 0) & (nearest < distinct.size)]
    return tuple(float(edge) for edge in np.unique(distinct[inner]))
