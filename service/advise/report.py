"""What was measured beside what is recommended, as text."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from service.advise.tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.advise.decisions import Decision

__all__ = ["decision_table", "show", "shown_value", "table_lines"]

WIDTH: Final = 110


def table_lines(table: Table) -> Iterator[str]:
    """A table in columns; those that hold numbers are set to the right."""
    yield table.title
    columns = list(zip(table.head, *table.rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(_is_number(cell) for cell in column[1:]) for column in columns]
    for number, row in enumerate((table.head, *table.rows)):
        cells = [
            cell.rjust(width) if r else cell.ljust(width) for cell, width, r in zip(row, widths, right, strict=True)
        ]
        yield f"  {'  '.join(cells)}".rstrip()
        if number == 0:
            yield f"  {'  '.join('-' * width for width in widths)}"
    for note in table.notes:
        yield f"  {note}".rstrip()


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").rstrip("%").isdigit()


def shown_value(value: object) -> str:
    """A value as a variable of the environment holds it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def decision_table(decisions: Sequence[Decision]) -> Table:
    """What to do about each setting, and below why."""
    rows = tuple(
        (
            f"REACTION_{decision.setting.upper()}",
            shown_value(decision.present),
            "no change" if decision.value is None else shown_value(decision.value),
        )
        for decision in decisions
    )
    reasons = [f"{name}: {decision.why}" for (name, *_), decision in zip(rows, decisions, strict=True)]
    notes = [line for reason in reasons for line in textwrap.wrap(reason, WIDTH, subsequent_indent="    ")]
    return Table("What to set", ("setting", "now", "advice"), rows, ("", *notes))


def show(tables: Sequence[Table]) -> str:
    """All tables, with an empty line after each."""
    return "\n".join("\n".join([*table_lines(table), ""]) for table in tables)
