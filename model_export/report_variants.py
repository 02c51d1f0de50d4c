"""The part of the export's table about precisions: what each is, and why it was kept or dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from model_export.variants import ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType

    from model_export.variants import Attempt

MIB = 1 << 20
NONE = "–"


def variants_table(attempts: Sequence[Attempt]) -> RenderableType:
    """Return a column a precision, and a line below that says why it was kept or dropped.

    Changes and times are against float32, the first.
    """
    first = attempts[0]
    table = Table(title="precision of the tables, against float32", title_justify="left")
    table.add_column("")
    for attempt in attempts:
        table.add_column(attempt.precision, justify="right", no_wrap=True)

    def add(label: str, cell: Callable[[Attempt], str]) -> None:
        table.add_row(label, *map(cell, attempts))

    add("file, MiB", lambda one: f"{one.bytes / MIB:,.2f}")
    add("of float32's", lambda one: f"{one.bytes / first.bytes:.2f}x")
    for rows in ROWS:
        add(f"µs a call, {rows} row{'s' * (rows > 1)}", lambda one, rows=rows: _time(one, first, rows))  # type: ignore[misc]
    add("largest error of a score", lambda one: f"{one.parity:.1e}")
    add("AUC", lambda one: _metric(one.auc, first.auc, own=one is first))
    add("log loss", lambda one: _metric(one.log_loss, first.log_loss, own=one is first))
    reasons = (f"{one.precision} {'kept' if one.kept else 'dropped'}: {one.why}" for one in attempts)
    return Group(table, *map(Text, reasons))


def _time(attempt: Attempt, first: Attempt, rows: int) -> str:
    time = attempt.latency_us.get(rows)
    if time is None:
        return NONE
    return f"{time:,.1f}" if attempt is first else f"{time / first.latency_us[rows]:.2f}x"


def _metric(value: float | None, first: float | None, *, own: bool) -> str:
    if value is None or first is None:
        return NONE
    return f"{value:.4f}" if own else f"{value - first:+.1e}"
