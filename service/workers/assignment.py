"""What a serving process was given to do, beside its settings; by default, what one that serves alone does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.workers.passage import NO_PASSAGE, Passage

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.counts.cells import Cells
    from service.workers.order import Part, Told

__all__ = ["Assignment"]


def _nobody(_told: Told) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A process's part.

    Attributes:
        cells: Counts shared with other workers; None where this process serves alone.
        late: Others serve meanwhile, so it takes connections only once it is ready.
        low: They are at full strength, so it gets ready with what they leave it.
        part: What it must serve: what others serve, or what was chosen; None for the bundle of the settings.
        canary: What is to get a share of that; None for nothing.
        shadow: Descriptor that requests for a shadow are written to; None where there never is one.
        passage: Where connections come from whose process goes, and where this one's go when it does.
        tell: Told once requests can be scored, or that they never will be; on any thread.
    """

    cells: Cells | None = None
    late: bool = False
    low: bool = False
    part: Part | None = None
    canary: Part | None = None
    shadow: int | None = None
    passage: Passage = NO_PASSAGE
    tell: Callable[[Told], None] = _nobody
