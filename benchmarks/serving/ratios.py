"""Every figure of the report, by name, and what it was meant to reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.serving.contestants import BASELINE, COALESCED, LOG_OFF, SERVICE, against_peers
from benchmarks.serving.figures import (
    Figure,
    Line,
    Record,
    against_each,
    best_of,
    fit_line,
    is_noisy,
    ratio,
    select,
    typical,
)
from benchmarks.serving.workloads import SLOPE, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LOADS: Final = (0.25, 0.5)
COMMON_RATE: Final = "common rate"
LOAD: Final = "load"
LOAD_WORKLOAD: Final = "rank1000"
OURS: Final = f"{SERVICE}.{BASELINE}"
FLOOR: Final = f"floor.{BASELINE}"


@dataclass(frozen=True)
class Sheet:
    """Records, and who is who in them.

    Attributes:
        records: What was measured.
        kinds: Server to its kind (`contestants.Kind`).
        tutorial: The tutorial's entry.
        listwise: The entry of the tutorial for ranking.
        throughput: The measure that throughputs are compared by.
        failed: Servers that could not take part.
    """

    records: Sequence[Record]
    kinds: Mapping[str, str]
    tutorial: str = "tutorial.rows"
    listwise: str = "listwise.listwise"
    throughput: str = "rows_per_second"
    failed: Mapping[str, str] = field(default_factory=dict)

    def rivals(self, workload: str, *kinds: str) -> list[str]:
        """Entries of servers of these kinds that were measured at a workload."""
        entries = {one["entry"] for one in self.records if one["workload"] == workload and one["mode"] == "closed"}
        return sorted(entry for entry in entries if self.kinds.get(entry.partition(".")[0]) in kinds)

    def line(self, entry: str) -> Line | None:
        """An entry's line of cost (microseconds of processor time) against candidates."""
        points = [
            (float(WORKLOADS[name].rows), cost)
            for name in SLOPE
            if (cost := typical(self.records, (name, entry), "cpu_us")) is not None
        ]
        return fit_line(points) if len(points) > 2 else None  # noqa: PLR2004 - two points are on any line


ALL_RIVALS: Final = ("tutorial", "by hand", "model server")


def _against(sheet: Sheet, workload: str, form: str, other: str, server: str = SERVICE) -> Figure | None:
    return ratio(sheet.records, (workload, f"{server}.{form}"), (workload, other), sheet.throughput)


def _tutorial(workload: str, form: str) -> Callable[[Sheet], Figure | None]:
    return lambda sheet: _against(sheet, workload, form, sheet.tutorial)


def _listwise(form: str) -> Callable[[Sheet], Figure | None]:
    return lambda sheet: _against(sheet, "rank100", form, sheet.listwise)


def _floor(form: str) -> Callable[[Sheet], Figure | None]:
    return lambda sheet: ratio(sheet.records, ("rank100", f"{SERVICE}.{form}"), ("rank100", f"floor.{form}"), "cpu_us")


def _tail(load: float) -> Callable[[Sheet], Figure | None]:
    def tail(sheet: Sheet) -> Figure | None:
        found = select(sheet.records, (LOAD_WORKLOAD, OURS), "open", purpose=LOAD, load=load)
        quiet = [one for one in found if not is_noisy(one)]
        return Figure.of([one["p99_ms"] / one["p50_ms"] for one in quiet or found], noisy=not quiet)

    return tail


def ahead(sheet: Sheet, kinds: Sequence[str], *, latency: bool) -> dict[str, dict[str, Figure]]:
    """How many times the service is ahead of each rival, by workload."""
    table = {}
    for workload, kind in WORKLOADS.items():
        if kind.peers:
            measure = "p99_ms" if latency else sheet.throughput
            rivals = sheet.rivals(workload, *kinds)
            found = against_each(
                sheet.records, (workload, against_peers(workload)), rivals, measure, smaller_is_better=latency
            )
            if found:
                table[workload] = found
    return table


def missing(sheet: Sheet, kinds: Sequence[str], *, latency: bool) -> list[str]:
    """Rivals that a figure over all of them does not hold, for want of a cell that can be used."""
    lost = [name for name in sheet.failed if sheet.kinds.get(name) in kinds]
    compared = ahead(sheet, kinds, latency=latency)
    for workload, kind in WORKLOADS.items():
        own = [one for one in sheet.records if one["workload"] == workload and one.get("purpose") != LOAD]
        if not kind.peers or (latency and not any(one["mode"] == "open" for one in own)):
            continue
        entries = {one["entry"] for one in own if sheet.kinds.get(one["entry"].partition(".")[0]) in kinds}
        lost += [f"{entry} at {workload}" for entry in sorted(entries - set(compared.get(workload, {})))]
    return lost


def _best(sheet: Sheet, kinds: Sequence[str], *, latency: bool) -> Figure | None:
    """Over the workloads, the smallest lead over the best rival. Without other servers there is none."""
    if "model server" not in sheet.kinds.values():
        return None
    leads = [best_of(found) for found in ahead(sheet, kinds, latency=latency).values()]
    return min((lead[1] for lead in leads if lead is not None), key=lambda figure: figure.value, default=None)


def _slope(sheet: Sheet) -> Figure | None:
    ours, floor = sheet.line(OURS), sheet.line(FLOOR)
    return None if ours is None or floor is None else Figure.of([ours.slope / floor.slope])


def _straightness(sheet: Sheet) -> Figure | None:
    ours = sheet.line(OURS)
    return None if ours is None else Figure.of([ours.worst])


def _context(sheet: Sheet) -> Figure | None:
    return ratio(sheet.records, ("rank1000", "floor.context"), ("one_row", "floor.context"), "difference_us", "context")


OVER_ALL: Final = {
    "best_peer_throughput": (ALL_RIVALS, False),
    "best_peer_p99": (ALL_RIVALS, True),
    "best_model_server_throughput": (("model server",), False),
    "best_model_server_p99": (("model server",), True),
}
"""Figures over all rivals: of which kinds, and whether latencies are compared."""

RATIOS: Final[dict[str, Callable[[Sheet], Figure | None]]] = {
    "one_row_vs_noop_asgi": lambda s: _against(s, "one_row", "rows", "noop_one_row.rows"),
    "one_row_vs_noop_asgi_log_off": lambda s: _against(s, "one_row", "rows", "noop_one_row.rows", LOG_OFF),
    "one_row_coalesced_vs_noop_asgi": lambda s: _against(s, "one_row", "rows", "noop_one_row.rows", COALESCED),
    "one_row_vs_tutorial": _tutorial("one_row", "rows"),
    "rank100_rows_vs_tutorial": _tutorial("rank100", "rows"),
    "rank100_columns_vs_tutorial": _tutorial("rank100", "columns"),
    "rank100_msgpack_vs_tutorial": _tutorial("rank100", "msgpack"),
    "rank100_binary_vs_tutorial": _tutorial("rank100", "binary"),
    "rank100_rows_vs_listwise": _listwise("rows"),
    "rank100_columns_vs_listwise": _listwise("columns"),
    "rank100_cpu_vs_inproc_floor": _floor("columns"),
    "rank100_rows_cpu_vs_inproc_floor": _floor("rows"),
    "rank1000_p99_vs_p50_at_25": _tail(0.25),
    "rank1000_p99_vs_p50_at_50": _tail(0.5),
    **{name: partial(_best, kinds=kinds, latency=latency) for name, (kinds, latency) in OVER_ALL.items()},
    "slope_vs_floor": _slope,
    "slope_straightness": _straightness,
    "context_fields_1_vs_1000": _context,
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure was meant to reach.

    Attributes:
        text: What it says.
        bound: The limit.
        at_least: The figure must not be below it; otherwise not above.
        lowest: With an upper bound: the figure must not be below this either.
    """

    text: str
    bound: float
    at_least: bool = True
    lowest: float | None = None

    @property
    def expected(self) -> str:
        """The bounds in words."""
        if self.at_least:
            return f"at least {self.bound:g}"
        return f"at most {self.bound:g}" if self.lowest is None else f"{self.lowest:g} to {self.bound:g}"

    def met(self, value: float) -> bool:
        """Whether a value reaches it."""
        if self.at_least:
            return value >= self.bound
        return value <= self.bound and (self.lowest is None or value >= self.lowest)


TARGETS: Final[dict[str, Target]] = {
    "one_row_vs_noop_asgi": Target("1 row: share of the no-op's requests/s, as shipped", 0.4),
    "one_row_vs_noop_asgi_log_off": Target("the same, request log off", 0.5),
    "one_row_vs_tutorial": Target("1 row: times the tutorial's requests/s", 4),
    "rank100_rows_vs_tutorial": Target("100 candidates as rows: times the tutorial's candidates/s", 12),
    "rank100_columns_vs_tutorial": Target("100 candidates as columns: times the tutorial's candidates/s", 20),
    "rank100_msgpack_vs_tutorial": Target("100 candidates as MessagePack columns: times the same", 20),
    "rank100_binary_vs_tutorial": Target("100 candidates as binary tensors: times the same", 20),
    "rank100_rows_vs_listwise": Target("rows: times the tutorial that takes a context and candidates", 6),
    "rank100_columns_vs_listwise": Target("columns: times the same", 10),
    "rank100_cpu_vs_inproc_floor": Target("100 candidates, columns: processor time, times decode to write", 2, False),
    "rank100_rows_cpu_vs_inproc_floor": Target("100 candidates, rows: processor time, times decode to write", 2, False),
    "rank1000_p99_vs_p50_at_25": Target("1000 candidates, Poisson arrivals, 25% load: p99 / p50", 3, False),
    "rank1000_p99_vs_p50_at_50": Target("the same at 50% load", 5.5, False),
    "best_peer_throughput": Target("smallest lead in throughput over any other server, any workload", 3),
    "best_peer_p99": Target("smallest lead in p99 at one common rate over any other server, any workload", 3),
    "best_model_server_throughput": Target("the same in throughput, over model servers alone", 3),
    "best_model_server_p99": Target("the same in p99, over model servers alone", 3),
    "slope_vs_floor": Target("cost a further candidate, times decode to write", 1.5, False),
    "context_fields_1_vs_1000": Target(
        "cost of 25 context fields at 1000 candidates, times that at 1", 1.5, False, 0.5
    ),
}

ASIDE: Final[dict[str, str]] = {
    "one_row_coalesced_vs_noop_asgi": (
        "1 row: share of the no-op's requests/s with `REACTION_COALESCE=true`, "
        "as `python -m service advise` may advise, not as shipped"
    ),
    "slope_straightness": "largest distance of the service's costs from their line",
}
"""Figures without a target."""
