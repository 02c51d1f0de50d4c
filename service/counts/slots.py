"""Which slot of the counts a model's are in: a few slots, given to the versions that are or were served lately."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.counts.cells import SLOTS

if TYPE_CHECKING:
    from collections.abc import Collection

    from service.counts.cells import Cells

__all__ = ["SlotTable"]

_DIGITS: Final = 8


@dataclass
class _Slot:
    """What a slot is used for.

    Attributes:
        manifest: SHA-256 of the bundle's manifest; None of one that could not be read.
        label: The model's name in metrics.
        last: When it was asked for, as a running number.
    """

    manifest: str | None
    label: str | None
    last: int


class SlotTable:
    """Gives slots to versions, the same one again to a version that comes back.

    Args:
        cells: Whose slots these are.
    """

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._slots: dict[int, _Slot] = {}
        self._asked = 0

    def take(self, manifest: str | None, model_id: str | None, in_use: Collection[int]) -> tuple[int, str | None]:
        """A slot and a name in metrics for a version.

        Args:
            manifest: SHA-256 of its manifest.
            model_id: The model's id.
            in_use: Slots of versions that processes serve, which stay as they are.

        Raises:
            MemoryError: All slots are in use.
        """
        self._asked += 1
        for slot, held in self._slots.items():
            if held.manifest == manifest:
                held.last = self._asked
                return slot, held.label
        slot = self._free(in_use)
        if slot in self._slots:
            self._cells.empty_slot(slot)
        others = {held.label for number, held in self._slots.items() if number != slot}
        label = model_id
        if label is not None and label in others and manifest is not None:
            label = f"{label}@{manifest[:_DIGITS]}"  # another bundle of the same name: two series must not be one
        self._slots[slot] = _Slot(manifest, label, self._asked)
        return slot, label

    def _free(self, in_use: Collection[int]) -> int:
        for slot in range(SLOTS):
            if slot not in self._slots:
                return slot
        idle = [slot for slot in self._slots if slot not in in_use]
        if not idle:
            raise MemoryError(f"slots of counts: expected at most {SLOTS} versions served at once, got one more")
        return min(idle, key=lambda slot: self._slots[slot].last)
