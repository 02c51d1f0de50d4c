"""The part of the export's table about folding: why each field is as it is, and whether the cost model was right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from model_export.fusion import FusionFacts, ParameterBudget, fuse, fuse_towers
from model_export.fusion.counts import parameters
from model_export.graph import written
from model_export.latency import interleaved_medians, session
from model_export.passes import apply_passes
from model_export.serving import serving_encoder, serving_ids
from model_export.to_onnx import to_onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import RenderableType

    from model_export.export import Exported
    from model_export.fusion import CostModel, FusedTower
    from model_export.fusion.tower import FoldingTrade, Ids

CHOSEN, NONE, ALL, UNLIMITED = "as chosen", "none folded", "all folded", "without the budget"


@dataclass(frozen=True)
class Way:
    """One way to serve the model.

    Attributes:
        parameters: What is stored.
        predicted_us: Number of candidates to microseconds a call, by the cost model.
        measured_us: The same, timed.
        weighed_us: What was timed, at the requests that the choice was made for.
    """

    parameters: int
    predicted_us: Mapping[int, float]
    measured_us: Mapping[int, float]
    weighed_us: float


def measure_ways(
    exported: Exported,
    cost: CostModel,
    requests: Callable[[int], list[tuple[Ids, Ids]]],
    rows: tuple[int, ...],
    *,
    seconds: float,
) -> dict[str, Way]:
    """Time the model as it was chosen to be served beside the same model with no field folded, and with all.

    Args:
        exported: A finished export.
        cost: The prices that it was made by.
        requests: Number of candidates to requests on the run's layout.
        rows: Numbers of candidates to show.
        seconds: Of timing in all.

    Returns:
        `CHOSEN`, `NONE`, `ALL` (every field whose table may grow that large), and `UNLIMITED` where the budget of
        parameters decided.

    Raises:
        NoRoomError: See `graph.written`.
    """
    loaded, encoder = exported.loaded, exported.loaded.encoder
    facts = FusionFacts(loaded.negative_sampling_rate, cost, calibration=loaded.calibration)
    merged = fuse_towers(loaded.form)
    towers: dict[str, FusedTower] = {
        CHOSEN: exported.tower,
        NONE: fuse(merged, replace(facts, folding="none")),
        ALL: fuse(merged, replace(facts, folding="all")),
    }
    if exported.tower.trade is not None and exported.tower.trade.chosen != exported.tower.trade.unlimited:
        towers[UNLIMITED] = fuse(merged, replace(facts, budget=ParameterBudget(factor=None)))
    serving = {name: serving_encoder(encoder, tower) for name, tower in towers.items()}
    wanted = tuple(dict.fromkeys([*rows, cost.few_rows, cost.many_rows]))
    with written({name: apply_passes(to_onnx(tower)) for name, tower in towers.items()}) as paths:
        runners = {name: session(str(path)) for name, path in paths.items()}
        times: dict[int, dict[str, float]] = {}
        for number in wanted:
            drawn = requests(number)
            contestants = {}
            for name, runner in runners.items():
                ids = [serving_ids(encoder, serving[name], own) for own in drawn]
                contestants[name] = (runner, [{"context_ids": one, "candidate_ids": many} for one, many in ids])
            times[number] = interleaved_medians(contestants, seconds=seconds / len(wanted))
    return {
        name: Way(
            parameters(tower).total,
            {number: cost.call(tower, number) for number in rows},
            {number: times[number][name] for number in rows},
            (times[cost.few_rows][name] + cost.many_weight * times[cost.many_rows][name]) / (1.0 + cost.many_weight),
        )
        for name, tower in towers.items()
    }


_HEADINGS: Final = ("ids", "d", "kept", "padded", "folded")


def folding_table(tower: FusedTower) -> RenderableType:
    """Return a line a field: microseconds of its side by the cost model for each choice, and what was chosen.

    Below, for every choice that is not the fastest, what decided.
    """
    table = Table(
        title=f"look-ups into {tower.width} columns: µs of its side by the cost model",
        title_justify="left",
    )
    # Where it is narrow, names break, and no number is cut.
    table.add_column("field", overflow="fold")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("choice", no_wrap=True)
    choices = {choice.name: choice for choice in tower.folding}
    notes: dict[str, list[str]] = {}
    side = None
    for field in tower.fields:
        if field.side != side:
            side = field.side
            table.add_section()
            table.add_row(f"({side})")
        choice = choices[field.name]
        if choice.why:
            notes.setdefault(choice.why, []).append(field.name)
        padded = f"padded to {choice.served_dim}" if choice.served_dim > choice.dim else "kept"
        table.add_row(
            Text(field.name),
            f"{field.rows:,}",
            str(choice.dim),
            *(_time(time) for time in (choice.kept_us, choice.padded_us, choice.folded_us)),
            ("folded" if choice.folded else padded) + ("*" if choice.why else ""),
        )
    return Group(table, *(Text(f"* {', '.join(names)}: {why}") for why, names in notes.items()))


def trade_line(trade: FoldingTrade) -> str:
    """Say what folding and padding buy, with how many parameters, and what the budget refused."""
    (before, slow), (after, fast) = trade.kept, trade.chosen
    limit = "any number" if trade.limit is None else f"{trade.limit:,}"
    said = (
        f"parameters: {before:,} with no field folded or padded, {after:,} as chosen, of {limit} allowed: "
        f"{slow - fast:.2f} of {slow:.2f} µs of look-ups bought with {after - before:+,}"
    )
    more, time = trade.unlimited
    if trade.unlimited == trade.chosen:
        return f"{said}; the budget refused nothing"
    return f"{said}; the budget refused {fast - time:.2f} µs for {more - after:+,} more"


def ways_table(ways: Mapping[str, Way]) -> Table:
    """Return a line a way to serve: the whole graph's call, predicted and measured."""
    table = Table(title="µs a call of the whole graph: cost model → measured", title_justify="left")
    table.add_column("")
    table.add_column("parameters", justify="right")
    for rows in ways[CHOSEN].measured_us:
        table.add_column(f"{rows} row{'s' * (rows > 1)}", justify="right")
    table.add_column("weighed", justify="right")
    for name, way in ways.items():
        cells = [f"{way.predicted_us[rows]:,.1f} → {time:,.1f}" for rows, time in way.measured_us.items()]
        table.add_row(name, f"{way.parameters:,}", *cells, f"{way.weighed_us:,.1f}")
    return table


def verdict(ways: Mapping[str, Way]) -> str:
    """Say whether what was chosen is at least as fast as folding nothing and folding all, as measured just now."""
    chosen = ways[CHOSEN].weighed_us
    best = min((NONE, ALL), key=lambda name: ways[name].weighed_us)
    ratio = chosen / ways[best].weighed_us
    return f"measured, weighed: {CHOSEN} takes {ratio:.2f} of the time of {best}, the better plain way"


def _time(microseconds: float) -> str:
    """Two digits; a dash for what is not open to choice."""
    return f"{microseconds:.2f}" if microseconds < float("inf") else "–"
