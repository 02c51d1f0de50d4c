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
_WAITING: Final = 3  # with fewer requests it may be one slow request


@dataclass(frozen=True, slots=True)
class Stall:
    """One stall.

    Attributes:
        start: When the last answer before it came, or the first request that waited through it was due; seconds from
            the start of the run.
        seconds: How long nothing came.
        waiting: Requests that were due before its end and had no answer by then.
    """

    start: float
    seconds: float
    waiting: int


def find_stalls(due: NDArray[np.int64], ended: NDArray[np.int64], pauses: NDArray[np.int64]) -> tuple[Stall, ...]:
    """Spells without an answer while requests waited.

    Args:
        due: (N,) when requests that were answered were due, ns, ascending.
        ended: (N,) when their answers came, ns.
        pauses: (P, 2) start and length of times the generator itself stood still; they are not the server's.

    Returns:
        Stalls in order of time.
    """
    if len(due) < _WAITING:
        return ()
    ends = np.sort(ended)
    # For each answer: the oldest request that had none when the answer before it had come.
    order = np.argsort(ended, kind="stable")
    oldest = np.minimum.accumulate(due[order][::-1])[::-1]
    starts = np.maximum(oldest, np.concatenate(([np.iinfo(np.int64).min], ends[:-1])))
    gaps = ends - starts
    usual = float(np.median(gaps))
    longest = max(SHORTEST_STALL_SECONDS * NANOSECONDS, _TIMES_USUAL * usual)
    found = []
    for place in np.flatnonzero(gaps > longest):
        start, end = int(starts[place]), int(ends[place])
        length = end - start - _overlap(start, end, pauses)
        waiting = int(np.searchsorted(due, end)) - int(place)
        if length > longest and waiting >= _WAITING:
            found.append(Stall(start / NANOSECONDS, length / NANOSECONDS, waiting))
    return tuple(found)


def _overlap(start: int, end: int, pauses: NDArray[np.int64]) -> int:
    if not len(pauses):
        return 0
    begins, finishes = pauses[:, 0], pauses[:, 0] + pauses[:, 1]
    return int(np.maximum(np.minimum(finishes, end) - np.maximum(begins, start), 0).sum())
