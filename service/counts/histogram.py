"""Histograms over runs of cells."""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zlib import crc32

import numpy as np

from service.counts.buckets import Buckets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from service.counts.cells import Cells

__all__ = ["Histogram", "observe_each"]

_buckets: Final = lru_cache(64)(Buckets)  # most histograms of a service have the same bounds


class Histogram:
    """Counts per bucket, then the sum of the values.

    Args:
        cells: Where the numbers live.
        name: What workers share it under, if their bounds are the same too.
        bounds: Upper bounds, ascending; a value equal to a bound lies under it. One more bucket has no bound.
    """

    __slots__ = ("_buckets", "_cells", "_counts", "_first", "_sum", "_values", "bounds")

    def __init__(self, cells: Cells, name: str, bounds: Sequence[float]) -> None:
        self._cells = cells
        self._values = cells.values
        self.bounds = tuple(bounds)
        self._first = cells.take(f"{name} {crc32(repr(self.bounds).encode()):08x}", len(self.bounds) + 2)
        self._sum = self._first + len(self.bounds) + 1
        self._counts = np.asarray(cells.values)[self._first : self._sum]
        # In the values' own precision: a float32 score equal to a bound lies under it, not beside it.
        self._buckets = {np.dtype(kind): _buckets(self.bounds, kind) for kind in (np.float32, np.float64)}

    def observe(self, value: float) -> None:
        """Count one value."""
        values = self._values
        values[self._first + bisect_left(self.bounds, value)] += 1.0
        values[self._sum] += value

    def observe_array(self, array: NDArray[np.float32] | NDArray[np.float64]) -> None:
        """Count every value of an array (N,)."""
        self._counts += np.bincount(self._buckets[array.dtype](array), minlength=len(self._counts))
        self._values[self._sum] += float(array.sum(dtype=np.float64))

    def buckets(self, array: NDArray[np.float64]) -> NDArray[np.intp]:
        """The bucket of each value."""
        return self._buckets[array.dtype](array)

    def add(self, counts: NDArray[np.intp], total: float) -> None:
        """Count values of which there are so many in each bucket, and their sum."""
        self._counts += counts
        self._values[self._sum] += total

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


def observe_each(histograms: Sequence[Histogram], values: NDArray[np.float64]) -> None:
    """Count the values (H, N) of H histograms with the same bounds: numpy is called once for all, not for each.

    Args:
        histograms: Which.
        values: A row each.
    """
    kinds, (rows, columns) = len(histograms[0].bounds) + 1, values.shape
    buckets = histograms[0].buckets(values.ravel()) + np.repeat(np.arange(rows) * kinds, columns)
    counts = np.bincount(buckets, minlength=rows * kinds).reshape(rows, kinds)
    for histogram, row, total in zip(histograms, counts, values.sum(axis=1).tolist(), strict=True):
        histogram.add(row, total)
