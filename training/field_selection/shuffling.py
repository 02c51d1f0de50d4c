"""Exact moments of a quadratic form under shuffling: what a cross table's unevenness is when it means nothing.

U units with residuals z of sum 0 fall into cells of n units; S is a cell's sum of z, and T = sum over cells of S^2 / n.
Shuffling z over the units gives T a null distribution. Its first three moments are closed formulas of the power sums
of z and of n, exact for any sizes (as Kazi-Aoual, Hitier, Sabatier and Lebreton, "Refined approximations to
permutation tests for multivariate inference", CSDA 20, 1995, show for the general form).

How: T^r is a sum over 2r picked units, grouped by which of them are the same unit. E of a product of powers of z over
*different* units is an augmented monomial symmetric function over a falling factorial; the number of ways to pick
different units from cells is a sum of products of falling factorials of n. All vectorised over independent strata.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from training.field_selection.information import Moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float64]"
Partition = tuple[int, ...]

# Ways to tie 2, 4 or 6 picks of one cell into blocks of the same unit: sizes of the blocks -> number of ways.
_TIES: Final[dict[int, dict[Partition, int]]] = {
    2: {(2,): 1, (1, 1): 1},
    4: {(4,): 1, (3, 1): 4, (2, 2): 3, (2, 1, 1): 6, (1, 1, 1, 1): 1},
    6: {
        (6,): 1,
        (5, 1): 6,
        (4, 2): 15,
        (4, 1, 1): 15,
        (3, 3): 10,
        (3, 2, 1): 60,
        (3, 1, 1, 1): 20,
        (2, 2, 2): 15,
        (2, 2, 1, 1): 45,
        (2, 1, 1, 1, 1): 15,
        (1, 1, 1, 1, 1, 1): 1,
    },
}
RESIDUAL_POWERS: Final = (2, 3, 4, 5, 6)
SIZE_POWERS: Final = (-2, -1, 0, 1, 2, 3)


@cache
def _falling(r: int) -> tuple[int, ...]:
    """Coefficients of n (n - 1) ... (n - r + 1), from n^0 up."""
    coefficients = [1]
    for root in range(r):
        coefficients = [low - root * high for low, high in zip([0, *coefficients], [*coefficients, 0], strict=True)]
    return tuple(coefficients)


@cache
def _product(parts: Partition) -> tuple[int, ...]:
    """Coefficients of the product of falling factorials of these lengths."""
    total = np.array([1], dtype=object)
    for r in parts:
        total = np.convolve(total, np.array(_falling(r), dtype=object))
    return tuple(int(value) for value in total)


class _Sums:
    """Expectations over units and sums over cells, for every stratum (S,), each computed once."""

    def __init__(self, units: Floats, residuals: Floats, sizes: Floats) -> None:
        self.units = units
        self.powers = dict(zip(RESIDUAL_POWERS, residuals, strict=True))
        self.sizes = dict(zip(SIZE_POWERS, sizes, strict=True))
        self._distinct: dict[Partition, NDArray[np.float64]] = {}
        self._expected: dict[Partition, NDArray[np.float64]] = {}
        self._cells: dict[tuple[Partition, int], NDArray[np.float64]] = {}

    def distinct(self, powers: Partition) -> NDArray[np.float64]:
        """Sum over different units of the product of these powers of z; the sum of z itself is 0."""
        if not powers:
            return np.ones_like(self.units)
        if powers not in self._distinct:
            *rest, last = powers
            total = self.powers[last] * self.distinct(tuple(rest)) if last > 1 else np.zeros_like(self.units)
            for place in range(len(rest)):
                tied = sorted([*rest[:place], rest[place] + last, *rest[place + 1 :]], reverse=True)
                total = total - self.distinct(tuple(tied))
            self._distinct[powers] = total
        return self._distinct[powers]

    def expected(self, powers: Partition) -> NDArray[np.float64]:
        """E of the product of these powers of z of different units."""
        powers = tuple(sorted(powers, reverse=True))
        if powers not in self._expected:
            ways = np.ones_like(self.units)
            for taken in range(len(powers)):
                ways = ways * (self.units - taken)
            self._expected[powers] = np.where(ways > 0, self.distinct(powers) / np.where(ways > 0, ways, 1.0), 0.0)
        return self._expected[powers]

    def cells(self, lengths: Partition, power: int) -> NDArray[np.float64]:
        """Sum over cells of the product of falling factorials of n of these lengths, over n^power."""
        key = (lengths, power)
        if key not in self._cells:
            total = np.zeros_like(self.units)
            for exponent, coefficient in enumerate(_product(lengths)):
                if coefficient:
                    total = total + coefficient * self.sizes[exponent - power]
            self._cells[key] = total
        return self._cells[key]


def shuffled_moments(units: Floats, residuals: Floats, sizes: Floats) -> Moments:
    """Moments of the sum of T over independent strata.

    Args:
        units: (S,) U of every stratum.
        residuals: (5, S) sums of z^2 to z^6 over its units; the sum of z is 0.
        sizes: (6, S) sums of n^-2 to n^3 over its cells.
    """
    s = _Sums(units, residuals, sizes)
    mean = second = third = np.zeros_like(units)
    for a, ways in _TIES[2].items():
        mean = mean + ways * s.cells((len(a),), 1) * s.expected(a)
    for a, ways in _TIES[4].items():
        second = second + ways * s.cells((len(a),), 2) * s.expected(a)
    for a, b in product(_TIES[2], repeat=2):
        pairs = s.cells((len(a),), 1) * s.cells((len(b),), 1) - s.cells((len(a), len(b)), 2)
        second = second + pairs * s.expected(a + b)
    for a, ways in _TIES[6].items():
        third = third + ways * s.cells((len(a),), 3) * s.expected(a)
    for (a, ways), b in product(_TIES[4].items(), _TIES[2]):
        pairs = s.cells((len(a),), 2) * s.cells((len(b),), 1) - s.cells((len(a), len(b)), 3)
        third = third + 3.0 * ways * pairs * s.expected(a + b)
    for a, b, c in product(_TIES[2], repeat=3):
        one, two, three = ((len(part),) for part in (a, b, c))
        triples = (
            s.cells(one, 1) * s.cells(two, 1) * s.cells(three, 1)
            - s.cells(one, 1) * s.cells(two + three, 2)
            - s.cells(two, 1) * s.cells(one + three, 2)
            - s.cells(three, 1) * s.cells(one + two, 2)
            + 2.0 * s.cells(one + two + three, 3)
        )
        third = third + triples * s.expected(a + b + c)
    variance = np.maximum(second - mean**2, 0.0)
    # One cell (the target is a function of the condition), or one unit a cell: nothing can vary but by rounding.
    cells = sizes[SIZE_POWERS.index(0)]
    live = (cells > 1) & (cells < units)
    skew = third - 3.0 * second * mean + 2.0 * mean**3
    return Moments(float(mean.sum()), float(variance[live].sum()), float(skew[live].sum()))
