"""`benchmarks/RELIABILITY.md`, written from `reliability.json` alone: one section a promise, one line a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.reliability.figures import add_figures
from benchmarks.reliability.sections import SECTIONS
from service.features.files import replaced_file

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FIGURES", "PAGE", "page", "publish"]

FIGURES: Final = Path(__file__).parents[1] / "reliability.json"
PAGE: Final = Path(__file__).parents[1] / "RELIABILITY.md"


_ABOUT: Final = (
    "What the service promises under change, load, faults and attack, against real processes, sockets and signals. "
    "Written from `reliability.json` by the commands named here; `make soak` runs them all."
)


def page(figures: Mapping[str, float]) -> str:
    """The page as Markdown: what was measured, and no line for what was not."""
    parts = [
        "# Reliability",
        _ABOUT,
    ]
    for section in SECTIONS:
        lines = [
            f"| {figure.what} | {figures[figure.key]:,} | {figure.target()} | {figure.met(figures[figure.key])} |"
            for figure in section.figures
            if figure.key in figures
        ]
        if lines:
            table = "\n".join(["| | measured | target | met |", "| --- | ---: | --- | --- |", *lines])
            parts += [f"## {section.title}", section.text, f"`{section.command}`", table]
    return "\n\n".join(parts) + "\n"


def publish(found: Mapping[str, float], figures: Path = FIGURES) -> None:
    """Set figures in the JSON, and write the page beside it from all of them.

    Args:
        found: By key.
        figures: The JSON.
    """
    add_figures(figures, found)
    with replaced_file(figures.with_name(f"{figures.stem.upper()}.md")) as staged:
        staged.write_text(page(json.loads(figures.read_text(encoding="utf-8"))), encoding="utf-8")
