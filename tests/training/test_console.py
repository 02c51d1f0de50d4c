"""What the commands print, as read in a terminal of 80 columns and in a pipe."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
import tiny
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from training.analyze import analysis_tables
from training.console import PhaseBars, models_table
from training.pages.results import COLUMNS, MODELS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REASON = "noise: says 0.03 mbit, where noise of so many values would say 0.06 mbit; alone, in pairs and beyond the rest"


def printed(tables: Sequence[Table | str], width: int) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=width)
    for table in tables:
        console.print(table)
    return screen.getvalue()


def a_field(name: str, fate: str, reason: str, beyond: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "side": "candidate",
        "ids": 12_345_678,
        "millibits": 1234.56,
        "noise_millibits": 1234.56,
        "low_millibits": 1230.12,
        "high_millibits": 1239.01,
        "p_value": 1e-12,
        "beyond": beyond,
        "beyond_millibits": 12.34,
        "dimension": 16,
        "fate": fate,
        "reason": reason,
    }


ANALYSIS: dict[str, Any] = {
    "rows": 45_840_617,
    "base_rate": 0.2562,
    "fields": [
        a_field("advertiser_identifier", "kept", ""),
        a_field("hour_of_the_week", "kept beyond the rest", "", "all that inform alone"),
        a_field("copy_of_advertiser_identifier", "dropped", REASON),
    ],
    "groups": [{"kept": "advertiser_identifier", "copies": [["copy_of_advertiser_identifier", 1.0]]}],
    "pairs": [
        {
            "first": "advertiser_identifier",
            "second": "hour_of_the_week",
            "alone_millibits": 12.3,
            "gain_millibits": 1234.5,
            "p_value": 1e-9,
        }
    ],
    "redundant": [
        {
            "first": "advertiser_identifier",
            "second": "hour_of_the_week",
            "of_smaller_entropy": 0.5,
            "of_larger_entropy": 0.25,
        }
    ],
    "interactions": [
        {
            "first": "advertiser_identifier",
            "second": "hour_of_the_week",
            "both_bits": 1.23456,
            "beyond_better_bits": 1.23456,
            "interaction_bits": -1.23456,
            "low_bits": -1.24,
            "high_bits": -1.23,
            "p_value": 1e-9,
        }
    ],
    "clusters": [["advertiser_identifier", "hour_of_the_week"]],
    "kinds": [{"kind": "noise", "names": ["copy_of_advertiser_identifier"], "fields": 0.33, "parameters": 0.123}],
    "carried": {"text": "1 of 3 fields carries 99% of what all say."},
}


def headings(tables: list[Table]) -> list[str]:
    return [str(column.header) for table in tables for column in table.columns]


@pytest.mark.parametrize("width", [80, 160])
def test_no_heading_number_or_side_is_broken_in_80_columns(width: int) -> None:
    metrics = {model: dict.fromkeys(COLUMNS, 0.1234) for model in MODELS}
    tables = [*analysis_tables(ANALYSIS), models_table("Validation", metrics)]
    for table in (found for found in tables if isinstance(found, Table)):
        lines = printed([table], width).splitlines()
        assert max(map(len, lines)) <= width
        # Titles may take two lines; all headings stand in one, each whole.
        assert any(all(heading in line for heading in headings([table])) for line in lines), lines
    shown = printed(tables, width).split()
    assert shown.count("candidate") == 3
    for number in ("12,345,678", "1234.56", "0.1234", "1234.50"):
        assert number in shown


def test_a_reason_takes_few_lines_of_80_columns() -> None:
    lines = printed(analysis_tables(ANALYSIS), 80).splitlines()
    begin = next(number for number, line in enumerate(lines) if "noise: says" in line)
    end = next(number for number, line in enumerate(lines) if "the rest" in line and number >= begin)
    assert end - begin < 4
    assert " ".join(REASON.split()[:4]) in lines[begin]


def test_in_a_pipe_tables_are_as_wide_as_they_need_to_be(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = tiny.training_here("analyze", "run", cwd=tiny_home).stdout
    found = json.loads(tiny.training_here("analyze", "run", "--json", cwd=tiny_home).stdout)
    reasons = [row["reason"] for row in found["fields"] if row["reason"]]
    assert reasons
    assert all(any(reason in line for line in shown.splitlines()) for reason in reasons)


def test_another_attempt_at_a_phase_starts_its_bar_and_its_clock_anew() -> None:
    now = [0.0]
    with Progress(console=Console(file=io.StringIO()), auto_refresh=False, get_time=lambda: now[0]) as bars:
        tell = PhaseBars(bars)
        for now[0], done, note in ((0.0, 0, "a"), (60.0, 10, "a"), (60.0, 2, "b"), (65.0, 4, "b")):
            tell("tower_a", done, 10, note)
        (task,) = bars.tasks
        assert (task.completed, task.finished, task.fields["note"]) == (4, False, "b")
        assert task.elapsed == pytest.approx(5.0)
