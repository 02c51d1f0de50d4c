"""What a bench says, as JSON: format `reaction-bench`, version 1.

Every member is described where it is declared, below. Times are seconds, rates are requests a second, quantiles are at
most 0.1% too high. A reader refuses a format or a version that it does not know.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from service.bench.errors import BenchError
from service.bench.histogram import Histogram, Quantiles
from service.bench.search import Point, SearchResult, Verdict, agreed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from service.bench.http import Target
    from service.bench.load import Body, LoadResult
    from service.bench.search import Objective

__all__ = [
    "FORMAT",
    "VERSION",
    "Answer",
    "Rate",
    "Report",
    "Run",
    "check_place",
    "make_report",
    "read_report",
    "write_report",
    "write_whole",
]

FORMAT: Final = "reaction-bench"
VERSION: Final = 1


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Percentiles(_Document, frozen=True):
    """Of a distribution, in seconds."""

    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class StallEntry(_Document, frozen=True):
    """A spell in which requests waited and nothing was answered: when, for how long, and how many waited."""

    start: float
    seconds: float
    waiting: int


class Run(_Document, frozen=True):
    """One run at one rate; attributes as in `service.bench.load.LoadResult`.

    `latency` counts from when a request was due, `service` from when it was sent, `lag` is the generator's own
    lateness. `histogram_ns` lists [largest latency of a bucket in nanoseconds, requests in it].
    """

    rate: float
    seed: int
    seconds: float
    requests: int
    answered: int
    candidates_a_second: float | None
    latency: Percentiles
    service: Percentiles
    lag: Percentiles
    connections: int
    connection_waits: int
    longest_connection_wait: float
    errors: dict[str, int]
    overloaded: bool
    generator_busy_share: float
    generator_cpu_share: float
    generator_longest_pause: float
    stalls: list[StallEntry]
    verdict: Verdict
    why: str
    histogram_ns: list[tuple[int, int]]


class Rate(_Document, frozen=True):
    """All runs at one rate: latencies pooled, but for runs at which the generator was the bottleneck.

    Where a run was `overloaded`, it was ended with requests unanswered: percentiles are then lower bounds.
    `requests` are those whose latency is known. `p99_range` is the least and the greatest 99th percentile of single
    runs.
    """

    rate: float
    runs: int
    usable_runs: int
    requests: int
    overloaded: bool
    latency: Percentiles
    p99_range: tuple[float, float]
    verdict: Verdict


class Answer(_Document, frozen=True):
    """The highest rate that holds the objective; `rate` is null if none does.

    `limited_by` says what kept it from being higher: only `objective` makes it the server's limit, with `generator` and
    `ceiling` (the highest rate that was tried) it is a lower bound. `why` says why there is none, else it is empty.
    """

    rate: float | None
    limited_by: Literal["objective", "generator", "ceiling"]
    resolution: float
    pooled_p99: float | None
    candidates_a_second: float | None
    why: str


class Load(_Document, frozen=True):
    """What was sent: distinct bodies, their mean length, and the candidates in each if they are all alike.

    `distinct_rows` counts the rows of different content in all requests that were sent; null where bodies came ready.
    """

    url: str
    bodies: int
    distinct_rows: int | None
    mean_body_bytes: float
    candidates: int | None
    form: str


class Report(_Document, frozen=True, kw_only=True):
    """The whole document. `answer` is null unless the highest rate was searched for."""

    format: Literal["reaction-bench"] = "reaction-bench"
    version: Literal[1] = 1
    load: Load
    objective_p99: float
    allowed_error_share: float
    processors: int
    answer: Answer | None
    rates: list[Rate]
    runs: list[Run]

    @property
    def stalls(self) -> list[tuple[Run, StallEntry]]:
        """Every stall with its run, but for runs in which the generator itself may have been held up."""
        return [(run, stall) for run in self.runs if run.verdict is not Verdict.GENERATOR_BOUND for stall in run.stalls]


def make_report(
    target: Target,
    bodies: Sequence[Body],
    points: Sequence[Point],
    *,
    form: str,
    objective: Objective,
    search: SearchResult | None = None,
    rows: int | None = None,
    why: str = "",
) -> Report:
    """The document of a bench.

    Args:
        target: Where requests went.
        bodies: What was sent.
        points: Every run.
        form: What the form of the bodies is called.
        objective: What had to hold.
        search: What was found, where it was searched for.
        rows: Distinct rows that were sent, where that is known.
        why: Why the search found none.
    """
    counts = {body.candidates for body in bodies}
    each = counts.pop() if len(counts) == 1 else None
    answer = None
    if search is not None:
        answer = Answer(
            rate=search.rate,
            limited_by=search.limited_by.value,
            resolution=search.resolution,
            pooled_p99=search.pooled_p99,
            candidates_a_second=search.rate * each if search.rate is not None and each is not None else None,
            why=why,
        )
    rates = sorted({point.result.rate for point in points})
    return Report(
        load=Load(
            url=target.url,
            bodies=len(bodies),
            distinct_rows=rows,
            mean_body_bytes=sum(len(body.content) for body in bodies) / len(bodies),
            candidates=each,
            form=form,
        ),
        objective_p99=objective.seconds,
        allowed_error_share=objective.error_share,
        processors=os.cpu_count() or 1,
        answer=answer,
        rates=[_rate(rate, [p for p in points if p.result.rate == rate], objective) for rate in rates],
        runs=[_run(point) for point in points],
    )


def _percentiles(quantiles: Quantiles) -> Percentiles:
    return msgspec.convert(quantiles, Percentiles, from_attributes=True)


def _rate(rate: float, points: list[Point], objective: Objective) -> Rate:
    usable = [p.result for p in points if p.verdict is not Verdict.GENERATOR_BOUND]
    shown: list[LoadResult] = usable or [point.result for point in points]
    tails = [result.latency.p99 for result in shown]
    return Rate(
        rate=rate,
        runs=len(points),
        usable_runs=len(usable),
        requests=sum(result.answered for result in shown),
        overloaded=any(result.overloaded for result in shown),
        latency=_percentiles(Histogram.sum([result.histogram for result in shown]).quantiles()),
        p99_range=(min(tails), max(tails)),
        verdict=agreed(points, objective),
    )


def _run(point: Point) -> Run:
    result = point.result
    return Run(
        rate=result.rate,
        seed=result.seed,
        seconds=result.seconds,
        requests=result.requests,
        answered=result.answered,
        candidates_a_second=result.candidates,
        latency=_percentiles(result.latency),
        service=_percentiles(result.service),
        lag=_percentiles(result.lag),
        connections=result.connections,
        connection_waits=result.connection_waits,
        longest_connection_wait=result.longest_connection_wait,
        errors=result.errors,
        overloaded=result.overloaded,
        generator_busy_share=result.busy_share,
        generator_cpu_share=result.cpu_share,
        generator_longest_pause=result.longest_pause,
        stalls=[StallEntry(start=s.start, seconds=s.seconds, waiting=s.waiting) for s in result.stalls],
        verdict=point.verdict,
        why=point.why,
        histogram_ns=list(zip(result.histogram.upper_edges().tolist(), result.histogram.counts.tolist(), strict=True)),
    )


def write_report(path: Path, report: Report) -> None:
    """Write the document.

    Raises:
        OSError: It cannot be written; what was there before is there still.
    """
    write_whole(path, msgspec.json.encode(report) + b"\n")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, then rename: a reader sees all of it or what was there before.

    Raises:
        OSError: It cannot be written; what was there before is there still.
    """
    staged = path.with_name(f".{path.name}.partial")
    try:
        staged.write_bytes(content)
        staged.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise


def check_place(path: Path) -> None:
    """Whether `write_whole` could write there now; nothing is left of the trial.

    Raises:
        BenchError: It could not.
    """
    staged = path.with_name(f".{path.name}.partial")
    try:
        if path.exists() and not path.is_file():
            raise BenchError(f"{path}: expected a regular file or none, got something else")
        staged.open("ab").close()
        staged.unlink()
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or error
        raise BenchError(f"{path}: expected a place that can be written, got {found}") from error


def read_report(path: Path) -> Report:
    """Read the document.

    Raises:
        BenchError: Another format or version, or a member that is not as declared.
    """
    try:
        content = path.read_bytes()
        header: Any = msgspec.json.decode(content)
        found = (header.get("format"), header.get("version")) if isinstance(header, dict) else (None, None)
        if found != (FORMAT, VERSION):
            raise BenchError(f"{path}: expected {FORMAT} {VERSION}, got {found[0]} {found[1]}")
        return msgspec.json.decode(content, type=Report)
    except (OSError, msgspec.DecodeError) as error:
        raise BenchError(f"{path}: expected a {FORMAT} document, got {error}") from error
