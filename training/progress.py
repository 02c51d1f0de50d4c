"""Progress of long steps: a small interface that work reports to, and bars for a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from collections.abc import Iterator


class Progress(Protocol):
    """What long work reports to."""

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins; the one before it is over.

        Args:
            stage: what is being done, for people.
            total: steps in all, None where nobody knows beforehand.
        """

    def advance(self, steps: int = 1) -> None:
        """So many more steps of the stage are done."""


class Quiet:
    """Reports to nobody."""

    def start(self, stage: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""


class ConsoleProgress:
    """A bar a stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def start(self, stage: str, total: int | None = None) -> None:
        """Fill the last bar and begin the next."""
        self.finish()
        self._task = self._bars.add_task(stage, total=total)

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.advance(self._task, steps)

    def finish(self) -> None:
        """Fill the bar of the stage that is over, whose total may never have been known."""
        if self._task is not None:
            done = next(task.completed for task in self._bars.tasks if task.id == self._task)
            self._bars.update(self._task, total=done)
            self._bars.stop_task(self._task)


@contextmanager
def console_progress() -> Iterator[Progress]:
    """Bars on standard error where that is a terminal; nothing at all elsewhere (logs, pipes, CI)."""
    if not sys.stderr.isatty():
        yield Quiet()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        progress = ConsoleProgress(bars)
        yield progress
        progress.finish()
