"""Where a shadow is counted by those who are not it; no numpy here, for the supervisor is one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from service.counts.cells import Cells

__all__ = ["DROPPED", "LOST", "TOO_LONG", "end_cell", "ends_of", "labels_of", "lost_cells"]

LOST: Final = ("dropped", "too_long")
"""Why a request did not come to the shadow: there was no room, or it is longer than there ever is."""

DROPPED, TOO_LONG = range(len(LOST))
_LOST_START: Final = "shadow lost "
_END_START: Final = "shadow end "


def lost_cells(cells: Cells, label: str) -> int:
    """Position of the cells that workers count what is lost in, in the order of `LOST`."""
    return cells.take(f"{_LOST_START}{label}", len(LOST))


def end_cell(cells: Cells, label: str, reason: str) -> int:
    """Position of the cell that counts processes of a shadow that ended unasked."""
    return cells.take(f"{_END_START}{reason} {label}", 1)


def labels_of(cells: Cells) -> list[str]:
    """Names of all shadows that there have been."""
    return [name.removeprefix(_LOST_START) for name, _, _ in cells.names(_LOST_START)]


def ends_of(cells: Cells) -> dict[tuple[str, str], float]:
    """Processes of shadows that ended unasked, by name and reason."""
    found = {}
    for name, cell, _ in cells.names(_END_START):
        reason, _, label = name.removeprefix(_END_START).partition(" ")
        found[label, reason] = cells.totals(cell)[0]
    return found
