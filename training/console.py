"""What the commands show: bars of a training, tables, and which errors need no traceback."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from training.results import COLUMNS, MODELS, SPLITS, cells, columns_of, metrics_by_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


def is_told_in_full(error: BaseException) -> bool:
    """Whether an error's message is the whole story, so that no traceback is due.

    Our own error classes say where, expected and got; the system's say which file. Anything else is a defect.
    """
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in {"service", "training"}


class PhaseBars:
    """A bar a phase of the training, told by `phase, done, total, note`."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, phase: str, done: int, total: int, note: str) -> None:
        """Move the phase's bar; a new phase gets a new one."""
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total, note="")
        self._bars.update(self._tasks[phase], completed=done, total=total, note=note)


def _log(phase: str, done: int, total: int, note: str) -> None:
    """One line for every new evaluation."""
    if note and _last.get(phase) != note:
        _last[phase] = note
        sys.stderr.write(f"{phase}: step {done} of {total}: {note}\n")


_last: dict[str, str] = {}


@contextmanager
def phase_progress() -> Iterator[Callable[[str, int, int, str], None]]:
    """Bars on standard error where that is a terminal, else a line an evaluation."""
    if not sys.stderr.isatty():
        _last.clear()
        yield _log
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield PhaseBars(bars)


def text_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, numbers_from: int = 1) -> Table:
    """A table for the terminal; the columns from `numbers_from` on are set flush right."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index >= numbers_from else "left", overflow="fold")
    for row in rows:
        # Text objects, not markup: a field may be called [bold].
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def metrics_tables(metrics: Mapping[str, Any]) -> list[Table]:
    """A table a split of a run's `metrics.json`."""
    return [models_table(SPLITS[split], models) for split, models in metrics_by_split(metrics).items()]


def models_table(title: str, models: Mapping[str, Mapping[str, float]]) -> Table:
    """Both towers, the pair, the fused model and the baseline, a row each."""
    columns = columns_of(models)
    rows = [[MODELS[model], *cells(models[model], columns)] for model in MODELS if model in models]
    return text_table(title, ["model", *(COLUMNS[key] for key in columns)], rows)
