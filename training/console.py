"""What the commands show: bars of a training, tables, and which errors need no traceback."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from training.pages.results import COLUMNS, MODELS, SPLITS, cells, columns_of, metrics_by_split
from training.strict_toml import misfits

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from training.phases.phase import Progress as PhaseProgress


PIPE_WIDTH = 160
"""Columns where there is no terminal to ask."""


def is_told_in_full(error: BaseException) -> bool:
    """Whether an error's message is the whole story, so that no traceback is due.

    Our own error classes say where, expected and got; the system's say which file; settings of a data set are checked
    by pydantic. Anything else is a defect.
    """
    ours = type(error).__module__.partition(".")[0] in {"service", "training"}
    return ours or isinstance(error, (OSError, ValidationError))


def told(error: BaseException) -> str:
    """The message of an error, for people."""
    if isinstance(error, ValidationError):
        return "\n".join(f"{error.title}: {line}" for line in misfits(error))
    return str(error)


def show(*what: Table | str) -> None:
    """Print tables and lines of text on standard output: in a pipe or a file, wide enough for every table."""
    free = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    screen = Console(highlight=False, width=PIPE_WIDTH if free else None)
    for item in what:
        screen.print(item, markup=False)


class PhaseBars:
    """A bar a phase of the training, told by `phase, done, total, note`."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}

    def __call__(self, phase: str, done: int, total: int, note: str) -> None:
        """Move the phase's bar; a new phase gets a new one, and another attempt at one starts its bar anew."""
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total, note="")
        elif done < self._done[phase]:
            self._bars.reset(self._tasks[phase])
        self._done[phase] = done
        self._bars.update(self._tasks[phase], completed=done, total=total, note=note)


def _log(phase: str, done: int, total: int, note: str) -> None:
    """One line for every new evaluation."""
    if note and _last.get(phase) != note:
        _last[phase] = note
        sys.stderr.write(f"{phase}: step {done} of {total}: {note}\n")


_last: dict[str, str] = {}


@contextmanager
def phase_progress(lines: Collection[str] | None = None) -> Iterator[PhaseProgress]:
    """Bars on standard error where that is a terminal, else a line an evaluation.

    Args:
        lines: where there is no terminal, only these phases get lines.
    """
    if not sys.stderr.isatty():
        _last.clear()
        yield lambda phase, *told: None if lines is not None and phase not in lines else _log(phase, *told)
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


def text_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, left: Sequence[int] = (0,)
) -> Table:
    """A table for the terminal; all columns but those in `left` are set flush right."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for index, column in enumerate(columns):
        # Numbers and words of headings stay whole; in a narrow terminal, text is what goes on in the next line.
        word = max(map(len, column.split()), default=1)
        text = index in left
        table.add_column(column, justify="left" if text else "right", overflow="fold", no_wrap=not text, min_width=word)
    for row in rows:
        # Text objects, not markup: a field may be called [bold].
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def metrics_tables(metrics: Mapping[str, Any]) -> list[Table]:
    """A table a split of a run's `metrics.json`."""
    return [models_table(SPLITS[split], models) for split, models in metrics_by_split(metrics).items()]


def models_table(title: str, models: Mapping[str, Mapping[str, float]]) -> Table:
    """A row a model, in the order of `MODELS`."""
    columns = columns_of(models)
    rows = [[MODELS[model], *cells(models[model], columns)] for model in MODELS if model in models]
    return text_table(title, ["model", *(COLUMNS[key] for key in columns)], rows)
