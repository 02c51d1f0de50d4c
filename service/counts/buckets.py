"""Which bucket of a histogram a value lies in, for arrays.

A search by halves guesses wrong at every second step where values come as they please, and a wrong guess costs a
processor as much as fifty additions. A float's own bits, without the last ones, are a number that grows with it: a
table says of each such number which bucket begins there, and one comparison settles the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Buckets"]

_MANTISSA_BITS: Final = {4: 23, 8: 52}  # of a float of so many bytes
# Bits of the mantissa that are looked at: the fewest that keep bounds apart.
_KEPT_BITS: Final = range(4, 11)
_MOST_CELLS: Final = 8192


class Buckets:
    """Finds buckets; a value equal to a bound lies under it.

    Args:
        bounds: Upper bounds, ascending. One more bucket has no bound.
        kind: Type of the values: float32 or float64, in which bounds are compared.
    """

    __slots__ = ("_bits", "_bounds", "_bucket", "_first", "_shift", "_upper")

    def __init__(self, bounds: Sequence[float], kind: type[np.float32 | np.float64]) -> None:
        self._bounds: NDArray[Any] = np.array(bounds, kind)
        self._bits = np.dtype(f"i{self._bounds.itemsize}")
        self._bucket: NDArray[np.intp] | None = None
        self._shift = self._first = 0
        if not len(bounds) or not np.isfinite(self._bounds).all() or self._bounds[0] <= 0:
            return  # bits grow with numbers above zero alone
        for kept in _KEPT_BITS:
            self._shift = _MANTISSA_BITS[self._bounds.itemsize] - kept
            cells = self._bounds.view(self._bits) >> self._shift
            count = int(cells[-1]) - int(cells[0]) + 3
            if count > _MOST_CELLS:
                return
            if (np.diff(cells) > 0).all():
                break
        else:
            return
        # The first cell stands for all below the first bound's, the last for all above the last bound's.
        self._first = int(cells[0]) - 1
        begins = ((np.arange(count, dtype=self._bits) + self._first) << self._shift).view(self._bounds.dtype)
        self._bucket = self._bounds.searchsorted(begins)
        self._upper = np.append(self._bounds, np.array([np.inf], kind))[self._bucket]

    def __call__(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """The bucket of each value (N,), as `numpy.searchsorted` says it."""
        if self._bucket is None:
            return self._bounds.searchsorted(values)
        cells = values.view(self._bits) >> self._shift
        cells -= self._first
        found = self._bucket.take(cells, mode="clip")
        found += values > self._upper.take(cells, mode="clip")
        return found
