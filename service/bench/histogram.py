"""Latency histogram with a bounded relative error, after HdrHistogram (Gil Tene).

A value below 2^11 ns has a bucket of its own; above, every power of two is cut into 2^10 equal buckets. A bucket is
therefore at most 1/1024 of its values wide, and what a quantile says is its upper edge: at most 0.1% too high, never
too low. Histograms add, which quantiles do not: repeats are pooled by adding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from service.bench.arrivals import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["RELATIVE_ERROR", "Histogram", "Quantiles"]

_HALF: Final = 10  # buckets a power of two: 2^10
RELATIVE_ERROR: Final = 2.0**-_HALF


@dataclass(frozen=True, slots=True)
class Quantiles:
    """What is said of a distribution, in seconds; all are 0 where there is nothing to say it of."""

    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values by bucket.

    Attributes:
        buckets: (K,) numbers of the buckets that hold something, ascending.
        counts: (K,) values in each.
        total: Sum of all values, ns.
        largest: The largest value, ns, exactly.
    """

    buckets: NDArray[np.int64]
    counts: NDArray[np.int64]
    total: int
    largest: int

    @classmethod
    def of(cls, values: NDArray[np.int64]) -> Self:
        """Histogram of (N,) values in ns; a negative one counts as 0."""
        values = np.maximum(values, 0)
        buckets, counts = np.unique(_bucket_of(values), return_counts=True)
        return cls(buckets, counts.astype(np.int64), int(values.sum()), int(values.max(initial=0)))

    @classmethod
    def sum(cls, parts: Iterable[Self]) -> Self:
        """All values of several histograms."""
        held = list(parts)
        if not held:
            return cls.of(np.empty(0, dtype=np.int64))
        every = np.concatenate([part.buckets for part in held])
        buckets, places = np.unique(every, return_inverse=True)
        counts = np.zeros(len(buckets), dtype=np.int64)
        np.add.at(counts, places, np.concatenate([part.counts for part in held]))
        return cls(buckets, counts, sum(part.total for part in held), max(part.largest for part in held))

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The smallest value that at least `share` of all values do not exceed, in seconds, at most 0.1% too high."""
        if not len(self.buckets):
            return 0.0
        reach = np.cumsum(self.counts)
        # Rounding must not ask for one value more than the share: 0.99 * 100 is a little above 99.
        wanted = max(1, int(np.ceil(share * reach[-1] - 1e-9)))
        place = int(np.searchsorted(reach, wanted))
        return min(int(_upper_edge(self.buckets[place])), self.largest) / NANOSECONDS

    def quantiles(self) -> Quantiles:
        """The usual ones."""
        count = self.count
        return Quantiles(
            mean=self.total / count / NANOSECONDS if count else 0.0,
            p50=self.quantile(0.5),
            p90=self.quantile(0.9),
            p99=self.quantile(0.99),
            p999=self.quantile(0.999),
            max=self.largest / NANOSECONDS,
        )

    def upper_edges(self) -> NDArray[np.int64]:
        """(K,) largest value each bucket may hold, ns."""
        return _upper_edge(self.buckets)


def _bucket_of(values: NDArray[np.int64]) -> NDArray[np.int64]:
    # frexp of an integer below 2^53 is exact: its exponent is the number of bits.
    shift = np.maximum(np.frexp(values.astype(np.float64))[1].astype(np.int64) - (_HALF + 1), 0)
    return (shift << _HALF) + (values >> shift)


def _upper_edge(buckets: NDArray[np.int64]) -> NDArray[np.int64]:
    shift = np.maximum((buckets >> _HALF) - 1, 0)
    place = buckets - (shift << _HALF)
    edge: NDArray[np.int64] = ((place + 1) << shift) - 1
    return edge
