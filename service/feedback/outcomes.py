"""What an event of feedback may be counted as: in the answer, in its documentation, and in the metrics."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["OUTCOMES", "Outcome"]

Outcome = Literal[
    "click",
    "no_click",
    "shown",
    "withdrawn",
    "repeated",
    "late",
    "early",
    "forged",
    "malformed",
    "unknown_version",
]
OUTCOMES: Final[tuple[Outcome, ...]] = Outcome.__args__  # type: ignore[attr-defined]
