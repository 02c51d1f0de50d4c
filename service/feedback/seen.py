"""Which tokens have been counted, in memory of a fixed size that all workers share.

An identity is kept with those issued in the same stretch of time, in a table of open addressing. When a stretch is so
old that its tokens are refused for their age, its table is emptied and becomes that of a new one. Looking up and
entering are one step under a lock, so a token is counted once however many workers get it at the same moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from service.counts.cells import Cells

__all__ = ["SeenTokens"]

# A look-up reads so many places at most; tables that are three quarters full hardly ever need more.
_PROBES: Final = 64


class SeenTokens:
    """Identities of tokens of the current window.

    Args:
        cells: Where they live.
        capacity: Identities that can be kept of one window.
        stretches: Tables, each for a stretch of time.
        in_window: How many of these make a window.
    """

    def __init__(self, cells: Cells, capacity: int, *, stretches: int, in_window: int) -> None:
        self._size = -(-capacity // in_window)
        self._stretches = stretches
        size = stretches * self._size
        first = cells.take("feedback/seen", stretches + size)
        shared = cells.shared(first, stretches + size).cast("B").cast("Q")
        self._numbers, self._table = shared[:stretches], shared[stretches:]
        self._alone = cells.alone

    def enter(self, stretch: int, identity: int) -> Literal["new", "known", "full"]:
        """Keep an identity.

        Args:
            stretch: Number of the stretch of time in which its token was issued.
            identity: 64 bits, not 0.

        Returns:
            Whether it was new; `full` if there was no room to keep it, or its stretch is over.
        """
        row, table, size = stretch % self._stretches, self._table, self._size
        first = row * size
        with self._alone():
            if self._numbers[row] != stretch:
                if self._numbers[row] > stretch:
                    return "full"
                table.cast("B")[8 * first : 8 * (first + size)] = bytes(8 * size)
                self._numbers[row] = stretch
            place = identity % size
            for _ in range(min(_PROBES, size)):
                found = table[first + place]
                if found == identity:
                    return "known"
                if not found:
                    table[first + place] = identity
                    return "new"
                place = place + 1 if place + 1 < size else 0
        return "full"
