"""Stalls: spells in which a server that had work answered nothing at all.

Two neighbouring answers are as far apart as the server needs for one request, unless it had none to work on, or stood
still. The first is known from all the other pairs, the second from the requests that were under way; what is left is a
stall. A percentile alone does not tell it apart from a queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from service.bench.arrivals import NANOSECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SHORTEST_STALL_SECONDS", "Stall", "find_stalls"]

SHORTEST_STALL_SECONDS: Final = 0.02
_TIMES_USUAL: Final = 10  # longer than this many of the usual gaps
_RIGHT_AFTER_NS: Final = 1_000_000
_WAITING: Final = 3  # with fewer requests it may be one slow request


@dataclass(frozen=True, slots=True)
class Stall:
    """One stall.

    Attributes:
        start: When the last answer before it came, or the first request that waited through it was sent; seconds from
            the start of the run.
        seconds: How long nothing came.
        waiting: Requests that had no answer at its end.
    """

    start: float
    seconds: float
    waiting: int


def find_stalls(taken: NDArray[np.int64], ended: NDArray[np.int64], pauses: NDArray[np.int64]) -> tuple[Stall, ...]:
    """Spells without an answer while requests waited.

    Args:
        taken: (N,) when the generator came to the requests that were answered, ns, ascending.
        ended: (N,) when their answers were read, ns.
        pauses: (P, 2) start and length of times the generator itself stood still. One that an answer was read right
            after is taken off: the answer may have lain there for all of it.

    Returns:
        Stalls in order of time.
    """
    if len(taken) < _WAITING:
        return ()
    ends = np.sort(ended)
    # For each answer: the oldest request that had none when the answer before it had come.
    order = np.argsort(ended, kind="stable")
    oldest = np.minimum.accumulate(taken[order][::-1])[::-1]
    starts = np.maximum(oldest, np.concatenate(([np.iinfo(np.int64).min], ends[:-1])))
    gaps = ends - starts
    usual = float(np.median(gaps))
    longest = max(SHORTEST_STALL_SECONDS * NANOSECONDS, _TIMES_USUAL * usual)
    found = []
    for place in np.flatnonzero(gaps > longest):
        start, end = int(starts[place]), int(ends[place])
        length = end - start - _unread(start, end, pauses)
        waiting = int(np.searchsorted(taken, end)) - int(place)
        if length > longest and waiting >= _WAITING:
            found.append(Stall(start / NANOSECONDS, length / NANOSECONDS, waiting))
    return tuple(found)


def _unread(start: int, end: int, pauses: NDArray[np.int64]) -> int:
    """Length of the generator's own pauses at the end of a spell."""
    if not len(pauses):
        return 0
    begins, finishes = pauses[:, 0], pauses[:, 0] + pauses[:, 1]
    last = (begins < end) & (finishes >= end - _RIGHT_AFTER_NS)
    return int((end - np.maximum(begins[last], start)).clip(min=0).max(initial=0))
