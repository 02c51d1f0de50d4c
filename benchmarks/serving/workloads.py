"""What is asked: how many candidates, whether they share a context, over how many connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of request.

    Attributes:
        title: For the tables.
        rows: Candidates a request.
        shared: They share one context (26 of 39 fields); else each carries all 39 fields.
        connections: How many the closed loop keeps busy.
        peers: Whether other servers take part, or the service alone.
    """

    title: str
    rows: int
    shared: bool
    connections: int
    peers: bool = True


WORKLOADS: Final[dict[str, Workload]] = {
    "one_row": Workload("1 row", 1, True, 16),
    "rank100": Workload("1 context + 100 candidates", 100, True, 8),
    "rank1000": Workload("1 context + 1000 candidates", 1000, True, 4),
    "rows100": Workload("100 rows, nothing shared", 100, False, 8),
    "rows1000": Workload("1000 rows, nothing shared", 1000, False, 4),
    "candidates10": Workload("1 context + 10 candidates", 10, True, 8, peers=False),
    "candidates30": Workload("1 context + 30 candidates", 30, True, 8, peers=False),
    "candidates300": Workload("1 context + 300 candidates", 300, True, 4, peers=False),
}

SLOPE: Final = ("one_row", "candidates10", "candidates30", "rank100", "candidates300", "rank1000")
"""Workloads whose costs give the line of cost against candidates, in the form `columns`."""
