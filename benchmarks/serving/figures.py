"""From records to figures: ratios of the same round, their median and spread, lines of cost.

A record is one measured cell: `block`, `round`, `workload`, `entry`, `mode` (closed, open, floor) and what was
measured. Figures that were not measured are absent, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from benchmarks.serving.cells import GENERATOR_BUSY, NOISE, unusable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Record = dict[str, Any]
Cell = tuple[str, str]
"""A workload and an entry."""
Bound = Literal["", "upper", "lower", "unknown"]
_RATES: Final = ("requests_per_second", "rows_per_second")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its spread.

    Attributes:
        value: Median over rounds.
        low: Smallest round.
        high: Largest round.
        rounds: How many there were.
        noisy: Every round was disturbed by other processes.
        bound: A closed loop's generator was too busy: beside the lower cell, so that the figure is an upper bound,
            beside the upper one, or beside both, and then nothing is known.
    """

    value: float
    low: float
    high: float
    rounds: int
    noisy: bool = False
    bound: Bound = ""

    @classmethod
    def of(cls, values: Sequence[float], *, noisy: bool = False, bound: Bound = "") -> Figure | None:
        """The figure of one value a round; None of none."""
        return cls(median(values), min(values), max(values), len(values), noisy, bound) if values else None


def is_noisy(record: Record) -> bool:
    """Whether other processes used the cores meanwhile."""
    return float(record.get("noise", 0.0)) > NOISE


def select(records: Iterable[Record], cell: Cell, mode: str = "closed", **facts: object) -> list[Record]:
    """Records of a cell with these facts, but for those that no figure may be made of."""
    wanted = {"workload": cell[0], "entry": cell[1], "mode": mode} | facts
    return [
        record
        for record in records
        if all(record.get(name) == value for name, value in wanted.items()) and unusable(record) is None
    ]


def typical(records: Sequence[Record], cell: Cell, name: str, mode: str = "closed", **facts: object) -> float | None:
    """Median of one measure of a cell; of its undisturbed rounds where there are any."""
    found = [record for record in select(records, cell, mode, **facts) if record.get(name) is not None]
    values = [record[name] for record in found if not is_noisy(record)] or [record[name] for record in found]
    return median(values) if values else None


def ratio(
    records: Sequence[Record],
    top: Cell,
    bottom: Cell,
    name: str,
    mode: str = "closed",
    **facts: object,
) -> Figure | None:
    """One measure of two cells, divided round by round within a block.

    Args:
        records: All.
        top: The numerator.
        bottom: The denominator.
        name: The measure.
        mode: Of both cells.
        facts: What records of both must say.
    """
    other = {(one["block"], one["round"]): one for one in select(records, bottom, mode, **facts)}
    pairs = [
        (one, other[one["block"], one["round"]])
        for one in select(records, top, mode, **facts)
        if (one["block"], one["round"]) in other
    ]
    pairs = [(one, two) for one, two in pairs if one.get(name) and two.get(name)]
    clean = [(one, two) for one, two in pairs if not (is_noisy(one) or is_noisy(two))]
    used = clean or pairs
    values = [one[name] / two[name] for one, two in used]
    return Figure.of(values, noisy=not clean, bound=_bound(used) if name in _RATES and mode == "closed" else "")


def held_back(record: Record) -> bool:
    """Whether a closed loop's generator used so much of its core that it may have been the limit."""
    return float(record.get("generator_cpu", 0.0)) > GENERATOR_BUSY


def _bound(pairs: Sequence[tuple[Record, Record]]) -> Bound:
    upper, lower = any(held_back(two) for _, two in pairs), any(held_back(one) for one, _ in pairs)
    if upper and lower:
        return "unknown"
    return "upper" if upper else "lower" if lower else ""


@dataclass(frozen=True, slots=True)
class Line:
    """Cost against candidates: `fixed + slope * candidates`.

    Attributes:
        fixed: Of a request.
        slope: Of a candidate.
        worst: Largest relative distance of a point from the line.
    """

    fixed: float
    slope: float
    worst: float


def fit_line(points: Sequence[tuple[float, float]]) -> Line:
    """The line of least squared relative errors through (candidates, cost).

    Raises:
        ValueError: Fewer than two points.
    """
    if len(points) < _FEWEST_POINTS:
        raise ValueError(f"points: expected two or more, got {len(points)}")
    x, y = np.array(points, dtype=np.float64).T
    design = np.stack([1 / y, x / y], axis=1)
    (fixed, slope), *_ = np.linalg.lstsq(design, np.ones(len(y)), rcond=None)
    worst = float(np.max(np.abs(fixed + slope * x - y) / y))
    return Line(float(fixed), float(slope), worst)


def best_of(figures: dict[str, Figure]) -> tuple[str, Figure] | None:
    """The smallest of "how many times ahead": the one that the service is least ahead of."""
    return min(figures.items(), key=lambda item: item[1].value) if figures else None


def against_each(
    records: Sequence[Record], ours: Cell, others: Iterable[str], measure: str, *, smaller_is_better: bool = False
) -> dict[str, Figure]:
    """How many times ahead of each other entry the service is at a workload.

    Args:
        records: All.
        ours: The service's cell.
        others: Entries.
        measure: What is compared.
        smaller_is_better: Latencies, compared at the common rate of the open loop.
    """
    workload = ours[0]
    found = {}
    for entry in others:
        cells: tuple[Cell, Cell] = (ours, (workload, entry))
        if smaller_is_better:
            figure = ratio(records, cells[1], cells[0], measure, mode="open", purpose="common rate")
        else:
            figure = ratio(records, *cells, measure)
        if figure is not None:
            found[entry] = figure
    return found


_FEWEST_POINTS: Final = 2
