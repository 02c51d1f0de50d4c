"""How a call of the graph grows with candidates and with context fields: `python -m tests.model_export.bench_graph`.

Random weights in the shapes of a click log: 26 context and 13 candidate fields of d = 2 to 16, 64-64 above. Every
graph is served as the cost model chooses, and all take turns call by call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from model_export.fusion import CostModel, FusionFacts, fuse
from model_export.graph import serialise
from model_export.latency import interleaved_medians, session
from model_export.measure import random_tower
from model_export.passes import apply_passes
from model_export.to_onnx import to_onnx

if TYPE_CHECKING:
    from model_export.fusion import FusedTower
    from model_export.latency import Feed

IDS = 2_000
ROWS = (1, 10, 100, 300, 1000)
FEEDS = 64
# Of both, candidates have the same d, so that they differ in the context alone.
FIELDS = {"10 context fields": (10, 13), "26 context fields": (26, 13)}


def main(seconds: float = 20.0) -> None:
    """Time both graphs at every number of candidates, and print slopes and differences."""
    cost = CostModel()
    towers, runners = {}, {}
    for name, fields in FIELDS.items():
        merged = random_tower(fields, IDS, (2, 4, 8, 16), (64, 64), np.random.default_rng(0))
        towers[name] = fuse(merged, FusionFacts(cost=cost))
        runners[name] = session(serialise(apply_passes(to_onnx(towers[name]))))
    measured: dict[str, list[float]] = {name: [] for name in FIELDS}
    for rows in ROWS:
        contestants = {name: (runner, feeds(towers[name], rows)) for name, runner in runners.items()}
        for name, time in interleaved_medians(contestants, seconds=seconds / len(ROWS), quantile=0.25).items():
            measured[name].append(time)
    show(towers, measured, cost)


def feeds(tower: FusedTower, rows: int) -> list[Feed]:
    """Requests of one context, evenly drawn."""
    generator = np.random.default_rng(rows)
    return [
        {
            "context_ids": generator.integers(0, IDS, (1, tower.columns("context")), np.int32),
            "candidate_ids": generator.integers(0, IDS, (rows, tower.columns("candidate")), np.int32),
        }
        for _ in range(FEEDS)
    ]


def show(towers: dict[str, FusedTower], measured: dict[str, list[float]], cost: CostModel) -> None:
    """Print a line a graph, and what was measured of growth."""
    table = Table("µs a call: cost model → measured", *(f"{rows:,}" for rows in ROWS))
    for name, times in measured.items():
        predicted = [cost.call(towers[name], rows) for rows in ROWS]
        table.add_row(name, *(f"{one:.1f} → {two:.1f}" for one, two in zip(predicted, times, strict=True)))
    few, many = (np.array(times) for times in measured.values())
    table.add_row("difference", *(f"{time:.1f}" for time in many - few))
    console = Console(highlight=False, width=120)
    console.print(table)
    slopes = np.diff(many) / np.diff(ROWS)
    steps = ", ".join(f"{ROWS[i]:,} to {ROWS[i + 1]:,}: {slope * 1e3:.0f}" for i, slope in enumerate(slopes))
    console.print(f"ns a candidate more, {list(measured)[-1]}: {steps}")


if __name__ == "__main__":
    main()
