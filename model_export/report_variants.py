"""The part of the export's table about precisions: what each is, and why it was kept or dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from model_export.variants import ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_export.variants import Attempt

MIB = 1 << 20
NONE = "–"


def variants_table(attempts: Sequence[Attempt]) -> Table:
    """Return a line a precision; ratios and changes are against float32, the first."""
    first = attempts[0]
    table = Table(title="precision of the tables, against float32", title_justify="left")
    table.add_column("")
    for heading in ("MiB", "", *(f"µs, {rows}" for rows in ROWS), "score off by", "AUC", "log loss"):
        table.add_column(heading, justify="right")
    table.add_column("in the bundle")
    for attempt in attempts:
        own = attempt is first
        times = []
        for rows in ROWS:
            time = attempt.latency_us.get(rows)
            times.append(NONE if time is None else f"{time:,.1f}" if own else f"{time / first.latency_us[rows]:.2f}x")
        table.add_row(
            attempt.precision,
            f"{attempt.bytes / MIB:,.2f}",
            "" if own else f"{attempt.bytes / first.bytes:.2f}x",
            *times,
            f"{attempt.parity:.1e}",
            _metric(attempt.auc, first.auc, own=own),
            _metric(attempt.log_loss, first.log_loss, own=own),
            ("kept: " if attempt.kept else "dropped: ") + attempt.why,
        )
    return table


def _metric(value: float | None, first: float | None, *, own: bool) -> str:
    if value is None or first is None:
        return NONE
    return f"{value:.4f}" if own else f"{value - first:+.1e}"
