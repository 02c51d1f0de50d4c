"""Histograms over runs of cells."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from service.counts.cells import Cells

__all__ = ["Histogram"]


class Histogram:
    """Counts per bucket, then the sum of the values.

    Args:
        cells: Where the numbers live.
        name: What workers share it under, if their bounds are the same too.
        bounds: Upper bounds, ascending; a value equal to a bound lies under it. One more bucket has no bound.
    """

    __slots__ = ("_bounds", "_cells", "_counts", "_first", "_sum", "_values", "bounds")

    def __init__(self, cells: Cells, name: str, bounds: Sequence[float]) -> None:
        self._cells = cells
        self._values = cells.values
        self.bounds = tuple(bounds)
        self._first = cells.take(f"{name} {crc32(repr(self.bounds).encode()):08x}", len(self.bounds) + 2)
        self._sum = self._first + len(self.bounds) + 1
        self._counts = np.asarray(cells.values)[self._first : self._sum]
        # In the values' own precision: a float32 score equal to a bound lies under it, not beside it.
        self._bounds = {kind: np.array(self.bounds, kind) for kind in (np.dtype(np.float32), np.dtype(np.float64))}

    def observe(self, value: float) -> None:
        """Count one value."""
        values = self._values
        values[self._first + bisect_left(self.bounds, value)] += 1.0
        values[self._sum] += value

    def observe_array(self, array: NDArray[np.float32] | NDArray[np.float64]) -> None:
        """Count every value of an array (N,)."""
        buckets = self._bounds[array.dtype].searchsorted(array)
        self._counts += np.bincount(buckets, minlength=len(self._counts))
        self._values[self._sum] += float(array.sum(dtype=np.float64))

    def cumulative(self) -> list[float]:
        """Values of all workers at or under each bound, then all of them."""
        counts, so_far = [], 0.0
        for count in self._cells.totals(self._first, self._sum - self._first):
            so_far += count
            counts.append(so_far)
        return counts

    @property
    def sum(self) -> float:
        """Sum of the values of all workers."""
        return self._cells.totals(self._sum)[0]
