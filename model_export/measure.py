"""Fits the cost model of folding to timed graphs: `python -m model_export.measure`.

Random towers of many shapes are exported as they are, folded, and padded, and timed on ONNX Runtime; the prices are
the non-negative least squares fit of relative errors. The defaults of `CostModel` came from this command.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle, pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from model_export.fusion.bias import absorb_bias
from model_export.fusion.cost import PRICES, CostModel, write_cost_model
from model_export.fusion.counts import Counts, count_call
from model_export.fusion.embedding import fold_embeddings, pad
from model_export.fusion.layout import SIDES, arrange
from model_export.fusion.tower import Dense, FusedField, FusedTower
from model_export.graph import serialise
from model_export.latency import interleaved_medians, session
from model_export.passes import apply_passes
from model_export.to_onnx import to_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model_export.fusion.tower import Float
    from model_export.latency import Feed

FEEDS: Final = {1: 512, 100: 64, 1000: 16}
"""Rows of a request to the number of different ones: a table's rows must not all be in cache from the call before."""

SHAPES: Final = tuple(
    product(
        ((26, 13), (0, 40), (3, 12), (1, 4)),  # context and candidate fields
        (50, 1_000, 10_000),  # ids a field
        ((4,), (8,), (16,), (2, 4), (2, 4, 8), (2, 4, 8, 16), (4, 32)),
        ((64, 64), (16,), (128, 64, 32)),
    )
)
QUANTILE: Final = 0.25
"""Of a graph's calls: other work on the machine only adds to a call, and must not become a price."""

CACHE_SIZES: Final = tuple(1 << power for power in range(18, 27))


@dataclass(frozen=True)
class Sample:
    """One timed graph.

    Attributes:
        parts: What each part of a call does, and its rows.
        rows: Candidates of the request.
        microseconds: A call.
    """

    parts: tuple[tuple[Counts, int], ...]
    rows: int
    microseconds: float


def random_tower(
    fields: tuple[int, int], ids: int, dims: Sequence[int], widths: Sequence[int], generator: np.random.Generator
) -> FusedTower:
    """A tower of so many context and candidate fields with one column each, taking turns in `dims`."""
    made = []
    turns = cycle(dims)
    for side, number in zip(SIDES, fields, strict=True):
        for first in range(number):
            dim = next(turns)
            table = generator.standard_normal((ids, dim), np.float32)
            projection = generator.standard_normal((dim, widths[0]))
            made.append(FusedField(f"{side}_{first}", side, first, 1, table, projection))
    layers = tuple(Dense(generator.standard_normal((h, g)) / h, np.zeros(g)) for h, g in pairwise(widths))
    output = Dense(generator.standard_normal((widths[-1], 1)) / widths[-1], np.zeros(1))
    return FusedTower(tuple(made), np.ones(widths[0]), layers, output)


def ways(tower: FusedTower) -> dict[str, FusedTower]:
    """The same tower served in several ways; equal ones once."""
    names = {side: {field.name for field in tower.side(side)} for side in SIDES}
    widest = max(field.dim for field in tower.fields)
    served = {"kept": tower, "folded": fold_embeddings(tower, names["context"] | names["candidate"])}
    if names["context"]:
        served["context folded"] = fold_embeddings(tower, names["context"])
    if any(field.dim < widest for field in tower.fields):
        served["padded"] = replace(tower, fields=tuple(pad(field, widest) for field in tower.fields))
        some = {field.name for field in tower.fields if field.dim == widest}
        served["some folded"] = fold_embeddings(tower, some)
    return {name: arrange(absorb_bias(way)) for name, way in served.items()}


def take_samples(*, seconds: float, shapes: int = 84, seed: int = 0) -> list[Sample]:
    """Time graphs of many shapes.

    Args:
        seconds: For all of them together, building apart.
        shapes: How many of `SHAPES` are drawn.
        seed: Of the draw, the tables and the requests.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.permutation(len(SHAPES))[:shapes]
    samples = []
    for fields, ids, dims, widths in (SHAPES[index] for index in drawn):
        served = ways(random_tower(fields, ids, dims, widths, generator))
        sessions = {name: session(serialise(apply_passes(to_onnx(tower)))) for name, tower in served.items()}
        for rows in FEEDS:
            feeds = list(_feeds(generator, fields, ids, rows))
            times = interleaved_medians(
                {name: (runner, feeds) for name, runner in sessions.items()},
                seconds=seconds / len(drawn) / len(FEEDS),
                quantile=QUANTILE,
            )
            samples += [Sample(tuple(count_call(served[name], rows)), rows, time) for name, time in times.items()]
    return samples


def _feeds(generator: np.random.Generator, fields: tuple[int, int], ids: int, rows: int) -> Iterator[Feed]:
    for _ in range(FEEDS[rows]):
        yield {
            "context_ids": generator.integers(0, ids, (1, fields[0]), np.int32),
            "candidate_ids": generator.integers(0, ids, (rows, fields[1]), np.int32),
        }


def fit(samples: list[Sample]) -> tuple[CostModel, dict[int, float]]:
    """Fit prices to samples.

    Returns:
        The model, and for each number of rows the median relative error of its predictions.
    """
    from scipy.optimize import nnls  # noqa: PLC0415 - slow to import, and only fitting needs it

    best: tuple[CostModel, float, Float] | None = None
    time = np.array([sample.microseconds for sample in samples])
    for cache_bytes in CACHE_SIZES:
        trial = CostModel(cache_bytes=cache_bytes)
        design = np.array([_terms(trial, sample) for sample in samples])
        # Relative errors: a graph of ten microseconds matters as much as one of a thousand.
        prices, residual = nnls(design / time[:, None], np.ones(len(time)))
        error = np.abs(design @ prices / time - 1)
        if best is None or residual < best[1]:
            named = {name: float(f"{price:.3g}") for name, price in zip(PRICES, prices, strict=True)}
            best = replace(trial, **named), float(residual), error  # type: ignore[arg-type]
    assert best is not None  # noqa: S101 - there is at least one cache size
    rows = np.array([sample.rows for sample in samples])
    return best[0], {int(number): float(np.median(best[2][rows == number])) for number in np.unique(rows)}


def _terms(model: CostModel, sample: Sample) -> Float:
    """What each price is multiplied by."""
    parts = [np.array(model.terms(counts, rows)) for counts, rows in sample.parts]
    return np.concatenate([[1.0], np.sum(parts, axis=0)])


Seconds = Annotated[float, typer.Option(min=1.0, help="how long to time graphs")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="write the prices, for model_export --cost")]


def main(seconds: Seconds = 120.0, to: Out = None) -> None:
    """Measure on this machine what folding and padding cost and save."""
    console = Console(highlight=False)
    with Console(stderr=True).status("timing graphs"):
        model, errors = fit(take_samples(seconds=seconds))
    table = Table("price", "measured", "default")
    for name in (*PRICES, "cache_bytes"):
        table.add_row(name, str(getattr(model, name)), str(getattr(CostModel(), name)))
    console.print(table)
    shown = ", ".join(f"{error:.1%} at {rows} row{'s' * (rows > 1)}" for rows, error in errors.items())
    console.print(f"median relative error of the fit: {shown}")
    if to is not None:
        write_cost_model(to, model)
        console.print(f"wrote {to}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
