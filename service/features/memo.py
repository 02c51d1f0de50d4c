"""Tables that remember the ids of raw values, for fields whose ids take more than one look-up to find.

A dictionary that answers `table[raw]` from memory runs inside of `operator.itemgetter` without a step of Python; the
values of logs repeat enough (counts are small, users and items follow power laws) for most answers to come from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Memo"]

# Past this many values a table is emptied and starts anew: what is asked for often is back at once.
_MOST: Final = 1 << 14
# Longer text is found, not remembered, so that memory stays bounded.
_LONGEST: Final = 64
_LARGEST: Final = 1 << 63


class Memo(dict[object, bytes]):
    """Ids by raw value, each found once and remembered.

    Keys meet by equality, and `1 == 1.0 == True`: it must never be asked for a boolean, and remembers numbers only
    where all that are equal have the same ids.

    Args:
        find: Ids of one raw value as bytes of int32. What it raises is raised to whoever asked.
        numbers: Whether numbers are remembered; else text and None alone.
    """

    def __init__(self, find: Callable[[object], bytes], *, numbers: bool = False) -> None:
        super().__init__()
        self._find = find
        self._numbers = numbers
        self.missed = 0

    def __missing__(self, raw: object) -> bytes:
        found = self._find(raw)
        self.missed += 1
        if isinstance(raw, str):
            if len(raw) > _LONGEST:
                return found
        elif (raw is not None and not self._numbers) or (isinstance(raw, int) and not -_LARGEST < raw < _LARGEST):
            return found
        if len(self) >= _MOST:
            self.clear()
        self[raw] = found
        return found
