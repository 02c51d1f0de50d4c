"""What a bench says, as a table for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.bench.search import Limit, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from service.bench.report import Report
    from service.bench.search import Point

__all__ = ["answer_lines", "print_report", "progress_line"]

_STYLES: Final = {Verdict.HELD: "green", Verdict.MISSED: "red", Verdict.GENERATOR_BOUND: "yellow"}
_MOST_STALLS: Final = 10
# Requests without which a percentile is nothing but the largest value.
_FOR_P99: Final = 100
_FOR_P999: Final = 1000
_NO_TAIL: Final = "few"
_FEW_ROWS: Final = 1000  # values of fewer rows stay in a processor's caches
_MS: Final = 1e3


def print_report(report: Report, console: Console) -> None:
    """Print every rate, then what it comes to."""
    from rich.table import Table  # noqa: PLC0415 - of the extra: a serving process has no rich

    load = report.load
    shape = f"{load.candidates} candidates each" if load.candidates is not None else "of several sizes"
    rows = "" if load.distinct_rows is None else f" of {_counted(load.distinct_rows, 'distinct row', 'distinct rows')}"
    console.print(
        f"{load.url}: Poisson arrivals, {_counted(load.bodies, 'body', 'bodies')}{rows} "
        f"({load.form}, {shape}, {load.mean_body_bytes:,.0f} bytes), latency from the intended send time, in ms",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    for name in ("requests/s", "runs", "p50", "p90", "p99", "p99 of runs", "p99.9", "max", "lag p99", "busy", "errors"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"p99 <= {report.objective_p99 * _MS:g} ms", no_wrap=True)
    for rate in report.rates:
        every = [run for run in report.runs if run.rate == rate.rate]
        runs = [run for run in every if run.verdict is not Verdict.GENERATOR_BOUND] or every
        latency = rate.latency
        errors = sum(sum(run.errors.values()) for run in runs)
        stalls = sum(len(run.stalls) for run in runs if run.verdict is not Verdict.GENERATOR_BOUND)
        low, high = rate.p99_range
        least = ">" if rate.overloaded else ""  # what was not answered by the end would have come later still
        table.add_row(
            f"{rate.rate:,.1f}",
            str(rate.runs),
            *(_ms(value) if rate.requests else _NO_TAIL for value in (latency.p50, latency.p90)),
            least + _ms(latency.p99) if rate.requests >= _FOR_P99 else _NO_TAIL,
            f"{_ms(low)}-{_ms(high)}" if rate.runs > 1 else "",
            least + _ms(latency.p999) if rate.requests >= _FOR_P999 else _NO_TAIL,
            least + _ms(latency.max) if rate.requests else _NO_TAIL,
            _ms(max(run.lag.p99 for run in runs)),
            f"{max(run.generator_busy_share for run in runs):.0%}",
            f"{errors:,}" if errors else "",
            f"[{_STYLES[rate.verdict]}]{rate.verdict}[/]"
            + (", overloaded" if rate.overloaded else "")
            + (f", {stalls} stalls" if stalls else ""),
        )
    console.print(table)
    for line in answer_lines(report):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def answer_lines(report: Report) -> Iterator[str]:
    """What the runs come to, in sentences."""
    answer = report.answer
    wanted = f"p99 <= {report.objective_p99 * _MS:g} ms"
    if answer is not None:
        bounds = {
            Limit.OBJECTIVE: f"the next rate tried, at most {answer.resolution:.0%} above, did not hold it",
            Limit.GENERATOR: "a lower bound, not the server's limit: above it the generator was the bottleneck",
            Limit.CEILING: "a lower bound: no higher rate was asked for",
        }
        limit = Limit(answer.limited_by)
        if answer.rate is None:
            why = (
                "no rate held it" if limit is not Limit.GENERATOR else "the generator was the bottleneck at every rate"
            )
            yield f"Highest rate at {wanted}: none; {why}{': ' if answer.why else ''}{answer.why}."
        else:
            tail = f", p99 {_ms(answer.pooled_p99)} ms" if answer.pooled_p99 is not None else ""
            scored = answer.candidates_a_second
            also = f" = {scored:,.0f} candidates/s" if scored is not None else ""
            least = "" if limit is Limit.OBJECTIVE else "at least "
            yield f"Highest rate at {wanted}: {least}{answer.rate:,.1f} requests/s{also}{tail}; {bounds[limit]}."
    rows = report.load.distinct_rows
    if rows is not None and rows < _FEW_ROWS:
        yield (
            f"Caveat: {_counted(rows, 'distinct row', 'distinct rows')} went round and round, which flatters every "
            "cache of the server and its processor; --table sends up to 20,000 rows of your own."
        )
    for rate in report.rates:
        lost = [run for run in report.runs if run.rate == rate.rate and run.verdict is Verdict.GENERATOR_BOUND]
        if lost:
            runs = f"{len(lost)} of {rate.runs} runs"
            yield f"Generator-bound at {rate.rate:,.1f} requests/s, {runs} not counted: {lost[0].why}."
    stalls = report.stalls
    for run, stall in sorted(stalls, key=lambda found: -found[1].seconds)[:_MOST_STALLS]:
        yield (
            f"Stall at {run.rate:,.1f} requests/s (seed {run.seed}): from {stall.start:.3f} s nothing was answered for "
            f"{stall.seconds * _MS:,.0f} ms while {stall.waiting} requests waited."
        )
    if len(stalls) > _MOST_STALLS:
        yield f"... and {len(stalls) - _MOST_STALLS} shorter stalls."
    kinds = {kind: sum(run.errors.get(kind, 0) for run in report.runs) for run in report.runs for kind in run.errors}
    if kinds:
        yield "Requests without a 200, in no latency: " + ", ".join(f"{n:,} {kind}" for kind, n in kinds.items()) + "."


def progress_line(point: Point) -> str:
    """One run, as it ends."""
    result = point.result
    text = (
        f"{result.rate:,.1f} requests/s for {result.seconds:.1f} s: p99 {_ms(result.latency.p99)} ms, {point.verdict}"
    )
    return f"{text} ({point.why})" if point.why else text


def _counted(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"


def _ms(seconds: float) -> str:
    value = seconds * _MS
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < _MS / 10 else f"{value:,.0f}"
