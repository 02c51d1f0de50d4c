"""The table that an export prints: what merging saved, what the towers were worth, what was folded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Group
from rich.table import Table

from model_export.facts import graph_parameters
from model_export.graph import dense_flops, written
from model_export.latency import interleaved_medians, session
from model_export.report_folding import folding_table, trade_line, verdict, ways_table
from model_export.report_variants import variants_table
from model_export.serving import serving_encoder, serving_ids
from model_export.unfused import unfused_form, unfused_pair
from training.models.files import load_pair
from training.pages.results import COLUMNS, MODELS, SPLITS, lost_to_baseline, metrics_by_split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxruntime import InferenceSession
    from rich.console import RenderableType

    from model_export.export import Exported
    from model_export.fusion.tower import Ids
    from model_export.graph import Graph
    from model_export.latency import Feed
    from model_export.report_folding import Way
    from training.parameters import InferenceParameters

ROWS: Final = (1, 100, 1000)
FEEDS: Final = {1: 256, 100: 64}
"""Rows of a request to the number of different ones: a table's rows must not all be in cache from the call before."""

FEWEST_FEEDS: Final = 16


@dataclass(frozen=True)
class Stage:
    """One form of the model.

    Attributes:
        parameters: What is stored.
        dense_flops: Multiplications and additions of matrix products, a row.
        file_bytes: Of the ONNX file, tables included.
        latency_us: Number of rows to the median of a call in microseconds.
    """

    parameters: InferenceParameters
    dense_flops: int
    file_bytes: int
    latency_us: Mapping[int, float]


def measure_stages(exported: Exported, *, seconds: float = 3.0) -> dict[str, Stage]:
    """Measure the model before and after merging, on ONNX Runtime and on the same rows, in turns.

    Args:
        exported: A finished export.
        seconds: Of timing in all.

    Returns:
        "pair", "fusion form" and "fused".

    Raises:
        NoRoomError: See `graph.written`.
    """
    loaded = exported.loaded
    columns = {side: loaded.encoder.width(side) for side in ("context", "candidate")}
    graphs = {
        "pair": unfused_pair(load_pair(loaded.run.path, mapped=True), columns),  # type: ignore[arg-type]
        "fusion form": unfused_form(loaded.form, columns),  # type: ignore[arg-type]
        "fused": exported.graph,
    }
    with written(graphs) as paths:
        sizes = {
            name: sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) for name, path in paths.items()
        }
        times = _time(exported, {name: session(str(path)) for name, path in paths.items()}, seconds)
    return {name: _stage(graph, sizes[name], times[name]) for name, graph in graphs.items()}


def _time(exported: Exported, runners: dict[str, InferenceSession], seconds: float) -> dict[str, dict[int, float]]:
    """Form of the model to number of rows to the median of a call."""
    encoder = exported.loaded.encoder
    serving = serving_encoder(encoder, exported.tower)
    times: dict[str, dict[int, float]] = {name: {} for name in runners}
    for rows in ROWS:
        drawn = requests(exported, rows)
        plain = [feed(ids) for ids in drawn]
        fused = [feed(serving_ids(encoder, serving, ids)) for ids in drawn]
        contestants = {name: (runner, fused if name == "fused" else plain) for name, runner in runners.items()}
        for name, microseconds in interleaved_medians(contestants, seconds=seconds / len(ROWS)).items():
            times[name][rows] = microseconds
    return times


def requests(exported: Exported, rows: int) -> list[tuple[Ids, Ids]]:
    """Requests of one context and `rows` candidates, drawn from the validation sample."""
    sample = exported.loaded.run.validation()
    generator = np.random.default_rng(0)
    found = []
    for _ in range(FEEDS.get(rows, FEWEST_FEEDS)):
        drawn = generator.integers(0, len(sample.label), rows)
        found.append((sample.context_ids[drawn[:1]], sample.candidate_ids[drawn]))
    return found


def feed(ids: tuple[Ids, Ids]) -> Feed:
    """The graph's inputs."""
    return {"context_ids": ids[0], "candidate_ids": ids[1]}


def _stage(graph: Graph, file_bytes: int, latency_us: dict[int, float]) -> Stage:
    return Stage(graph_parameters(graph), dense_flops(graph), file_bytes, latency_us)


def render(exported: Exported, stages: Mapping[str, Stage], ways: Mapping[str, Way] | None = None) -> RenderableType:
    """Return the tables of an export, for `rich` to print; without what was not measured."""
    parts: list[RenderableType] = [_sizes(stages)] if stages else []
    parts += [_metrics(exported.loaded.run.metrics), folding_table(exported.tower)]
    if exported.tower.trade is not None:
        parts.append(trade_line(exported.tower.trade))
    if ways:
        parts += [ways_table(ways), verdict(ways)]
    if exported.variants:
        parts.append(variants_table(exported.variants))
    lost = lost_to_baseline(exported.loaded.run.metrics)
    return Group(*parts, _parity(exported), *([f"warning: {lost}"] if lost else []))


def _sizes(stages: Mapping[str, Stage]) -> Table:
    table = Table(title="before and after merging", title_justify="left")
    table.add_column("")
    for name in stages:
        table.add_column(name, justify="right")

    def add(label: str, values: list[float], form: str) -> None:
        table.add_row(label, *(format(value, form) for value in values))

    every = list(stages.values())
    add("embedding parameters", [stage.parameters.embedding for stage in every], ",")
    add("dense parameters", [stage.parameters.dense for stage in every], ",")
    add("dense FLOPs a row", [stage.dense_flops for stage in every], ",")
    add("file, KiB", [stage.file_bytes / 1024 for stage in every], ",.0f")
    for rows in every[0].latency_us:
        add(f"µs a call, {rows} row{'s' * (rows > 1)}", [stage.latency_us[rows] for stage in every], ",.1f")
    return table


def _metrics(metrics: Mapping[str, Any]) -> Table:
    splits = metrics_by_split(metrics)
    names = [name for name in MODELS if any(name in models for models in splits.values())]
    table = Table(title="measured by the run", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(MODELS[name].partition(" (")[0], justify="right")
    for split, models in splits.items():
        for metric in ("auc", "log_loss"):
            found = [models.get(name, {}).get(metric) for name in names]
            table.add_row(
                f"{SPLITS[split]} {COLUMNS[metric]}", *("–" if value is None else f"{value:.4f}" for value in found)
            )
    return table


def _parity(exported: Exported) -> str:
    parity = exported.parity
    return (
        f"fusion form = merged = ONNX Runtime on {parity.rows:,} rows: largest differences {parity.algebra:.1e} "
        f"(algebra, logits), {parity.logit:.1e} (float32, logits), {parity.pctr:.1e} (model.onnx, pctr)"
    )
