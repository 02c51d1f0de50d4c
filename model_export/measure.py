"""Fits the cost model of folding to timed graphs: `python -m model_export.measure`.

Random towers of many sizes are exported, folded and unfolded, and timed on ONNX Runtime; the prices are the
non-negative least squares fit of relative errors. The defaults of `CostModel` came from this command.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy.optimize import nnls

from model_export.fusion.cost import CostModel, Counts, count, write_cost_model
from model_export.fusion.embedding import fold_embeddings
from model_export.fusion.layout import arrange
from model_export.fusion.tower import Dense, FusedField, FusedTower
from model_export.graph import serialise
from model_export.latency import interleaved_medians, session
from model_export.passes import apply_passes
from model_export.to_onnx import to_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model_export.fusion.tower import Float
    from model_export.latency import Feed

ROWS = (1, 100, 1000)
FEEDS = 16
# Towers of several widths have more nodes for the same look-ups; other first layers separate bytes from FLOPs.
OTHER_SIZES = [(16, 500, dims, width) for dims in ((2, 4), (2, 4, 8), (2, 4, 8, 16)) for width in (16, 32, 128)]
CACHE_SIZES = tuple(1 << power for power in range(18, 27))
PRICES = ("node_us", "lookup_ns", "read_ns", "miss_ns", "sum_ns", "add_ns", "flop_ns")


@dataclass(frozen=True)
class Sample:
    """One timed graph.

    Attributes:
        counts: What it does.
        rows: Rows of the request.
        microseconds: A call's median.
    """

    counts: Counts
    rows: int
    microseconds: float


def random_tower(fields: int, ids: int, dims: Sequence[int], width: int, generator: np.random.Generator) -> FusedTower:
    """A tower of candidate fields with one column each, taking turns in `dims`, and no further hidden layer."""
    made = tuple(
        FusedField(
            name=f"field_{number}",
            side="candidate",
            first=number,
            width=1,
            table=generator.standard_normal((ids, dim)),
            projection=generator.standard_normal((dim, width)),
        )
        for number, dim in zip(range(fields), cycle(dims), strict=False)
    )
    output = Dense(generator.standard_normal((width, 1)) / width, np.zeros(1))
    return FusedTower(made, np.zeros(width), (), output)


def take_samples(*, seconds: float, seed: int = 0) -> list[Sample]:
    """Time graphs of many sizes, folded and unfolded.

    Args:
        seconds: For all of them together, building apart.
        seed: Of the tables and the requests.
    """
    generator = np.random.default_rng(seed)
    sizes = [*product((4, 16, 40), (32, 2_000, 20_000), ((4,), (8,), (16,), (32,)), (16, 64)), *OTHER_SIZES]
    samples = []
    for fields, ids, dims, width in sizes:
        plain = random_tower(fields, ids, dims, width, generator)
        towers = {"kept": plain, "folded": fold_embeddings(plain, {field.name for field in plain.fields})}
        sessions = {name: session(serialise(apply_passes(to_onnx(arrange(tower))))) for name, tower in towers.items()}
        for rows in ROWS:
            feeds = list(_feeds(generator, fields, ids, rows))
            times = interleaved_medians(
                {name: (runner, feeds) for name, runner in sessions.items()}, seconds=seconds / len(sizes) / len(ROWS)
            )
            samples += [Sample(count(tower.fields, width), rows, times[name]) for name, tower in towers.items()]
    return samples


def _feeds(generator: np.random.Generator, fields: int, ids: int, rows: int) -> Iterator[Feed]:
    for _ in range(FEEDS):
        candidate_ids = generator.integers(0, ids, (rows, fields), np.int32)
        yield {"context_ids": np.zeros((1, 0), np.int32), "candidate_ids": candidate_ids}


def fit(samples: list[Sample]) -> tuple[CostModel, float]:
    """Fit prices to samples.

    Returns:
        The model, and the median relative error of its predictions.
    """
    best: tuple[CostModel, float, float] | None = None
    time = np.array([sample.microseconds for sample in samples])
    for cache_bytes in CACHE_SIZES:
        design = _design(samples, cache_bytes)
        # Relative errors: a graph of ten microseconds matters as much as one of a thousand.
        prices, residual = nnls(design / time[:, None], np.ones(len(time)))
        error = float(np.median(np.abs(design @ prices / time - 1)))
        if best is None or residual < best[1]:
            named = {name: float(f"{price:.3g}") for name, price in zip(PRICES, prices, strict=False)}
            best = replace(CostModel(), cache_bytes=cache_bytes, **named), float(residual), error  # type: ignore[arg-type]
    assert best is not None  # noqa: S101 - there is at least one cache size
    return best[0], best[2]


def _design(samples: list[Sample], cache_bytes: int) -> Float:
    """One row a sample: what each price is multiplied by, then a call's own cost and a row's."""
    design = []
    for sample in samples:
        counts, kilorows = sample.counts, sample.rows * 1e-3
        missed = max(0.0, 1.0 - cache_bytes / counts.table)
        terms = (counts.lookups, counts.read, counts.read * missed, counts.summed, counts.add, counts.flops)
        design.append([counts.nodes, *(kilorows * term for term in terms), 1.0, kilorows])
    return np.array(design, np.float64)


Seconds = Annotated[float, typer.Option(min=1.0, help="how long to time graphs")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="write the prices, for model_export --cost")]


def main(seconds: Seconds = 120.0, to: Out = None) -> None:
    """Measure on this machine what folding costs and saves."""
    console = Console(highlight=False)
    with Console(stderr=True).status("timing graphs"):
        model, error = fit(take_samples(seconds=seconds))
    table = Table("price", "measured", "default")
    for name in (*PRICES, "cache_bytes"):
        table.add_row(name, str(getattr(model, name)), str(getattr(CostModel(), name)))
    console.print(table)
    console.print(f"median relative error of the fit: {error:.1%}")
    if to is not None:
        write_cost_model(to, model)
        console.print(f"wrote {to}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
