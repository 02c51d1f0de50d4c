"""What became of the scores of one model: counts that add up over workers and replicas, whoever gets which event.

An impression is counted by the worker that issued its token, a click by the worker that was told of it. Neither knows
of the other, and neither has to: both count by score, in a ring of stretches of time by when the *token* was issued.
When the window of a stretch is over, no event for it is taken any more, and each worker adds its own counts of it to
its totals. Then the clicks of a stretch and its impressions are there as a whole in the sum of all, and whatever was
shown and not clicked is a negative: impressions less those withdrawn less clicks, of every bucket of scores and of
every sum. The log loss of N impressions with clicks C is such a sum:

    sum over all of -ln(1 - p)  -  sum over C of -ln(1 - p)  +  sum over C of -ln p
"""

from __future__ import annotations

from bisect import bisect_left
from math import exp, log, log1p
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from service.counts.cells import Cells

__all__ = [
    "BOUNDS",
    "CELLS",
    "CLICK",
    "EVENTS",
    "IMPRESSION",
    "IN_WINDOW",
    "STRETCHES",
    "WITHDRAWN",
    "Tally",
    "VersionCounts",
]

EVENTS: Final = ("impression", "withdrawn", "click")
IMPRESSION, WITHDRAWN, CLICK = range(3)

# A quarter of a logit wide: two scores in one bucket differ by 28% of their odds at most.
BOUNDS: Final = tuple(float(f"{1 / (1 + exp(-k / 4)):.4g}") for k in range(-32, 17))
BUCKETS: Final = len(BOUNDS) + 1
# Scores of exactly 0 and 1 have no finite loss.
_LEAST: Final = 1e-7

# A window is cut into stretches; a ring of them also holds the one that is open and those whose window is not over.
IN_WINDOW: Final = 8
STRETCHES: Final = IN_WINDOW + 3

# Of an event: a count a bucket, a sum of scores a bucket, loss had all been negatives, loss had all been positives.
_ROW: Final = 2 * BUCKETS + 2
_NEGATIVE_LOSS: Final = 2 * BUCKETS
_POSITIVE_LOSS: Final = 2 * BUCKETS + 1
_TABLE: Final = len(EVENTS) * _ROW

# Of a model: tokens issued, totals, the number of the stretch at each place of the ring, the ring.
CELLS: Final = 1 + _TABLE + STRETCHES * (1 + _TABLE)


class Tally(NamedTuple):
    """Totals of one event of one model.

    Attributes:
        counts: Scores in each bucket.
        scores: Their sum in each bucket.
        negative_loss: Sum of -ln(1 - p).
        positive_loss: Sum of -ln p.
    """

    counts: Sequence[float]
    scores: Sequence[float]
    negative_loss: float
    positive_loss: float


class Stretches:
    """How time is cut.

    Args:
        window_seconds: How long after its issue a token's events are taken.
    """

    def __init__(self, window_seconds: int) -> None:
        self.window_seconds = window_seconds
        self._seconds = -(-window_seconds // IN_WINDOW)

    def of(self, second: int) -> int:
        """The stretch of a second."""
        return second // self._seconds

    def is_late(self, second: int, now: float) -> bool:
        """Whether the window of a token issued in this second is over."""
        return now >= second + 1 + self.window_seconds

    def is_forgotten(self, second: float, now: float) -> bool:
        """Whether all that may come of a token issued then has come and was counted, some time ago."""
        return now > second + STRETCHES * self._seconds + 1

    def is_over(self, stretch: int, now: float) -> bool:
        """Whether the window of every token of a stretch is over."""
        return self.is_late((stretch + 1) * self._seconds - 1, now)


class VersionCounts:
    """Counts of one model by this worker, and its totals over all workers.

    Args:
        cells: Where they live.
        model: The model's id.
        first: The first of its `CELLS` cells.
        time: How time is cut.
        use: Told of each second of which something is to be counted; false once these cells are another model's.
    """

    def __init__(
        self, cells: Cells, model: str, first: int, time: Stretches, use: Callable[[int], bool] = lambda _: True
    ) -> None:
        self.model = model
        self.use = use
        self._time = time
        self._cells = cells
        self._values = cells.values
        self._issued = first
        self._totals = first + 1
        self._numbers = self._totals + _TABLE
        self._ring = self._numbers + STRETCHES

    def issue(self, tokens: int) -> None:
        """Count tokens that went out."""
        self._values[self._issued] += tokens

    def add(self, event: int, second: int, scores: Iterable[float]) -> None:
        """Count an event of tokens that were issued in the same second."""
        values, first = self._values, self._table_of(self._time.of(second)) + event * _ROW
        for score in scores:
            bucket = first + bisect_left(BOUNDS, score)
            p = min(max(score, _LEAST), 1.0 - _LEAST)
            values[bucket] += 1.0
            values[bucket + BUCKETS] += score
            values[first + _NEGATIVE_LOSS] -= log1p(-p)
            values[first + _POSITIVE_LOSS] -= log(p)

    def _table_of(self, stretch: int) -> int:
        """Where to count what belongs to a stretch."""
        place = stretch % STRETCHES
        number = self._values[self._numbers + place]
        if number != stretch:
            if number > stretch:  # its window was over once: a clock was set back
                return self._totals
            self._close(self._values, place)
            self._values[self._numbers + place] = stretch
        return self._ring + place * _TABLE

    def close(self, now: float) -> None:
        """Add to the totals what was counted in stretches whose window is over, by this worker or by one that ended."""
        for place in self._over(self._values, now):
            self._close(self._values, place)
        if any(self._over(values, now) for values in self._cells.ended()):
            with self._cells.alone():  # several workers may be asked at the same time
                for values in self._cells.ended():
                    for place in self._over(values, now):
                        self._close(values, place)

    def _over(self, values: memoryview[float], now: float) -> list[int]:
        """Places of a worker's ring whose window is over."""
        numbers = values[self._numbers : self._numbers + STRETCHES].tolist()
        return [place for place, number in enumerate(numbers) if number and self._time.is_over(int(number), now)]

    def _close(self, values: memoryview[float], place: int) -> None:
        """Empty a place of the ring. A reader may see part of it: totals only ever grow."""
        first, totals = self._ring + place * _TABLE, self._totals
        values[self._numbers + place] = 0.0
        for cell in range(_TABLE):
            if value := values[first + cell]:
                values[totals + cell] += value
                values[first + cell] = 0.0

    def issued(self) -> float:
        """Tokens issued by all workers."""
        return self._cells.totals(self._issued)[0]

    def tallies(self) -> list[Tally]:
        """Totals of each event over all workers."""
        cells = self._cells.totals(self._totals, _TABLE)
        rows = (cells[event * _ROW : (event + 1) * _ROW] for event in range(len(EVENTS)))
        return [
            Tally(row[:BUCKETS], row[BUCKETS : 2 * BUCKETS], row[_NEGATIVE_LOSS], row[_POSITIVE_LOSS]) for row in rows
        ]
