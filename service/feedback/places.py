"""Where the counts of each model are: a few places that all workers share, given anew once a model is out of use.

A service may serve another model every hour for as long as it runs. The place of one of which no token can come back
any more, and none was issued for as long, goes to the next; memory stays what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.feedback.counts import CELLS, VersionCounts

if TYPE_CHECKING:
    from service.counts.cells import Cells
    from service.feedback.counts import Stretches

__all__ = ["MOST_MODELS", "ModelPlaces"]

# More than are served within a window, and a bound on memory and labels.
MOST_MODELS: Final = 16

# Of a place, shared by all: how often it was given away, when it was last used, and whose it is.
_GENERATION, _USED, _LENGTH, _NAME = range(4)
_NAME_CELLS: Final = 16
_ENTRY: Final = _NAME + _NAME_CELLS
_DOUBLE: Final = 8


class ModelPlaces:
    """Finds the counts of models, those of this worker among them.

    Args:
        cells: Where they live.
        time: How time is cut.
    """

    def __init__(self, cells: Cells, time: Stretches) -> None:
        self._cells = cells
        self._time = time
        self._first = cells.take("feedback/counts", MOST_MODELS * CELLS)
        entries = cells.shared(cells.take("feedback/models", MOST_MODELS * _ENTRY), MOST_MODELS * _ENTRY)
        self._entries = [entries[place * _ENTRY : (place + 1) * _ENTRY] for place in range(MOST_MODELS)]

    def models(self) -> list[str]:
        """Every model that has a place."""
        with self._cells.alone():
            return [self._name(place) for place in range(MOST_MODELS) if self._entries[place][_LENGTH]]

    def find(self, model: str, now: float) -> VersionCounts | None:
        """Counts of a model, which gets a place if it has none; None if all are in use.

        Args:
            model: Its id, of 128 bytes at most.
            now: Seconds since 1970.
        """
        with self._cells.alone():
            place = next((place for place in range(MOST_MODELS) if self._name(place) == model), None)
            if place is None:
                place = min(range(MOST_MODELS), key=lambda place: self._entries[place][_USED])
                if self._entries[place][_LENGTH] and not self._time.is_forgotten(self._entries[place][_USED], now):
                    return None
                self._give(place, model, now)
            entry = self._entries[place]
            generation = entry[_GENERATION]

        def use(second: int) -> bool:
            if entry[_GENERATION] != generation:
                return False
            entry[_USED] = max(entry[_USED], second)
            return True

        return VersionCounts(self._cells, model, self._first + place * CELLS, self._time, use)

    def _name(self, place: int) -> str:
        """Whose a place is; empty for nobody's."""
        entry = self._entries[place]
        return bytes(entry[_NAME:].cast("B")[: int(entry[_LENGTH])]).decode()

    def _give(self, place: int, model: str, now: float) -> None:
        """Give a place away, emptied."""
        entry, name = self._entries[place], model.encode()
        entry[_GENERATION] += 1.0
        entry[_USED] = now
        self._cells.clear(self._first + place * CELLS, CELLS)
        entry[_NAME:].cast("B")[: len(name)] = name
        entry[_LENGTH] = len(name)
