"""Tables of what was measured, with what it says beside it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from service.advise.compare import interval
from service.advise.decisions import felt_gains

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.advise.compare import Gain
    from service.advise.measured import CallTimes, CrossoverPoint, LoadTimes

__all__ = ["Table", "call_table", "crossover_table", "load_table"]


@dataclass(frozen=True, slots=True)
class Table:
    """What was measured, ready to be shown: a title, a head and rows."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def micro(seconds: float) -> str:
    """Microseconds, three digits."""
    return f"{seconds * 1e6:,.0f}" if seconds >= 1e-5 else f"{seconds * 1e6:.1f}"  # noqa: PLR2004


def call_table(title: str, label: str, times: CallTimes, present: str, notes: tuple[str, ...] = ()) -> Table:
    """Time a call and gain in the whole of a request, of every way and case."""
    gains = felt_gains(times, present)
    rows = []
    for case in times.cases:
        for way in times.ways:
            seconds = times.seconds[case, way]
            low, high = interval(seconds)
            gain = gains.get(way, {}).get(case)
            rows.append(
                (
                    case,
                    way,
                    micro(median(seconds)),
                    f"{micro(low)} to {micro(high)}",
                    micro(times.rest[case]),
                    "present" if gain is None else str(gain),
                    "" if gain is None else gain.verdict.value,
                )
            )
    head = ("request", label, "call us", "spread", "rest us", "gain in the whole", "says")
    return Table(title, head, tuple(rows), notes)


def load_table(
    title: str,
    times: LoadTimes,
    present: str,
    *,
    label: str,
    gains: Mapping[str, Mapping[str, Gain]],
    notes: Sequence[str] = (),
) -> Table:
    """Throughput, latency and processor time of every way and case.

    Args:
        title: Of the table.
        times: What was measured.
        present: The way in force.
        label: What the ways are.
        gains: Way to case to the gain that decides.
        notes: What has to be known to read it.
    """
    rows = []
    for case in times.cases:
        for way in times.ways:
            rates = times.rates[case, way]
            low, high = interval(rates)
            gain = None if way == present else gains[way][case]
            rows.append(
                (
                    case,
                    way,
                    f"{median(rates):,.0f}",
                    f"{low:,.0f} to {high:,.0f}",
                    f"{median(times.p50[case, way]) * 1e3:.2f}",
                    f"{median(times.p99[case, way]) * 1e3:.2f}",
                    f"{median(times.generator[case, way]):.0%}",
                    micro(median(times.cpu[case, way])) if times.cpu else "unknown",
                    "present" if gain is None else str(gain),
                    "" if gain is None else gain.verdict.value,
                )
            )
    head = ("load", label, "rate /s", "spread", "p50 ms", "p99 ms", "generator CPU", "server us", "gain", "says")
    return Table(title, head, tuple(rows), tuple(notes))


def crossover_table(points: Sequence[CrossoverPoint]) -> Table:
    """Bodies on the event loop and in a thread."""
    rows = []
    for point in points:
        low, high = point.low_benefit, point.high_benefit
        rows.append(
            (
                point.form,
                f"{point.candidates:,}",
                f"{point.body_bytes:,}",
                micro(median(point.inline)),
                micro(median(point.threaded)),
                micro(median(point.blocked)),
                f"{point.median_benefit * 1e6:+,.0f} ({low * 1e6:+,.0f} to {high * 1e6:+,.0f})",
                point.says,
            )
        )
    head = (
        "form",
        "candidates",
        "body bytes",
        "inline us",
        "thread us",
        "loop blocked us",
        "thread's benefit us",
        "says",
    )
    note = "Benefit: what the loop is spared (inline less blocked), less what the request loses (thread less inline)."
    return Table("On the event loop or in a thread", head, tuple(rows), (note,))
