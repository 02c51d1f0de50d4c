"""Where counts live: doubles in one flat buffer, and histograms over runs of them.

One observation by the Prometheus client costs several microseconds (labels are looked up, a lock is taken); here it
is two additions. A flat buffer is also what several processes can share.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Cells", "Histogram"]


class Cells:
    """Runs of doubles in one flat buffer; counts are exact up to 2^53.

    Args:
        capacity: Doubles to begin with; the buffer grows when a model is added, never while requests are counted.
    """

    def __init__(self, capacity: int = 4096) -> None:
        self.values = memoryview(bytearray(8 * capacity)).cast("d")
        self._used = 0

    def take(self, count: int) -> int:
        """Reserve cells that follow each other; returns the position of the first."""
        first = self._used
        self._used = first + count
        if self._used > len(self.values):
            larger = memoryview(bytearray(8 * 2 * self._used)).cast("d")
            larger[: len(self.values)] = self.values
            self.values = larger
        return first


class Histogram:
    """Counts per bucket, then the sum of the values.

    Args:
        cells: Where the numbers live.
        bounds: Upper bounds, ascending; a value equal to a bound lies under it. One more bucket has no bound.
    """

    __slots__ = ("_cells", "_first", "_sum", "bounds")

    def __init__(self, cells: Cells, bounds: Sequence[float]) -> None:
        self._cells = cells
        self.bounds = tuple(bounds)
        self._first = cells.take(len(self.bounds) + 2)
        self._sum = self._first + len(self.bounds) + 1

    def observe(self, value: float) -> None:
        """Count one value."""
        values = self._cells.values
        values[self._first + bisect_left(self.bounds, value)] += 1.0
        values[self._sum] += value

    def observe_array(self, array: NDArray[np.float32]) -> None:
        """Count every value of an array (N,)."""
        values = self._cells.values
        # Bounds in the values' own precision: a float32 score equal to a bound lies under it, not beside it.
        buckets = np.searchsorted(np.asarray(self.bounds, array.dtype), array, side="left")
        for position, count in enumerate(np.bincount(buckets).tolist()):
            values[self._first + position] += count
        values[self._sum] += float(array.sum(dtype=np.float64))

    def cumulative(self) -> list[float]:
        """Values at or under each bound, then all of them."""
        counts, so_far = [], 0.0
        for count in self._cells.values[self._first : self._sum]:
            so_far += count
            counts.append(so_far)
        return counts

    @property
    def sum(self) -> float:
        """Sum of the values."""
        return self._cells.values[self._sum]
