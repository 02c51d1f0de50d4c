"""One run at one rate, and what can honestly be said of it.

>>> target = parse_target("http://127.0.0.1:8080")  # doctest: +SKIP
>>> bodies = [Body(b'{"candidates": [{}]}', candidates=1)]
>>> result = run_load(target, bodies, rate=500, seconds=5)  # doctest: +SKIP
>>> result.latency.p99, result.lag.p99, result.busy_share, result.errors  # doctest: +SKIP
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from service.bench.arrivals import NANOSECONDS, poisson_arrivals
from service.bench.engine import Engine
from service.bench.errors import BenchError, TargetError
from service.bench.histogram import Histogram, Quantiles
from service.bench.http import OK, Target
from service.bench.network import Machine, Network
from service.bench.records import ABANDONED, MALFORMED, RESET, TIMEOUT, Limits, Records
from service.bench.stalls import Stall, find_stalls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "LARGEST_BUSY_SHARE",
    "LARGEST_LAG_SHARE",
    "MOST_REQUESTS",
    "Body",
    "LoadResult",
    "due_requests",
    "run_load",
    "summarise",
]

LARGEST_BUSY_SHARE: Final = 0.8
LARGEST_LAG_SHARE: Final = 0.1
MOST_REQUESTS: Final = 20_000_000  # a run: ten minutes at what the generator can send at most
_OTHER_FILES: Final = 64
_NAMES: Final = {RESET: "reset", TIMEOUT: "timeout", MALFORMED: "malformed", ABANDONED: "abandoned"}


@dataclass(frozen=True, slots=True)
class Body:
    """One body to send.

    Attributes:
        content: Its bytes.
        content_type: Its media type.
        candidates: Candidates in it, and so scores in its answer; None if unknown.
        headers: Header lines that belong to it.
    """

    content: bytes
    content_type: str = "application/json"
    candidates: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one run measured, after its warm-up. Times are in seconds.

    Attributes:
        rate: Requests a second that were due.
        seconds: Length of the measured part.
        requests: Requests that were due in it.
        answered: Those answered with 200; only they are in `latency`.
        latency: From when a request was due until its answer was complete.
        service: From when its first byte was sent: what a closed-loop tool would have seen.
        lag: From when a request was due until the generator came to it: its own lateness.
        connection_waits: Requests that then found no free connection, and waited for one (which `latency` counts).
        longest_connection_wait: The longest such wait.
        connections: Connections opened.
        errors: Requests with no 200, by kind: `http_503`, `reset`, `timeout`, `malformed`, `abandoned`.
        busy_share: Share of the time in which the generator was neither waiting nor spinning.
        cpu_share: Processor time of its process, spinning included, as a share of one processor.
        stalls: Spells in which the server had requests and answered nothing.
        longest_pause: Longest time the generator itself stood still.
        overloaded: The run was ended early: the oldest request had no answer for too long.
        candidates: Candidates scored a second; None if unknown.
        histogram: All latencies.
        lags: All lags.
        seed: Of the arrivals.
        records: Every arrival, warm-up included.
    """

    rate: float
    seconds: float
    requests: int
    answered: int
    latency: Quantiles
    service: Quantiles
    lag: Quantiles
    connection_waits: int
    longest_connection_wait: float
    connections: int
    errors: dict[str, int]
    busy_share: float
    cpu_share: float
    stalls: tuple[Stall, ...]
    longest_pause: float
    overloaded: bool
    candidates: float | None
    histogram: Histogram = field(repr=False)
    lags: Histogram = field(repr=False)
    seed: int
    records: Records = field(repr=False)

    @property
    def error_share(self) -> float:
        """Share of requests without a 200."""
        return sum(self.errors.values()) / self.requests if self.requests else 0.0

    def generator_bound(self, objective_seconds: float) -> str | None:
        """Why this run says more of the generator than of the server, None if it does not.

        Args:
            objective_seconds: The latency that matters; a lag is judged against it.
        """
        if self.lag.p99 > LARGEST_LAG_SHARE * objective_seconds:
            return (
                f"send lag p99 {self.lag.p99 * 1e3:.3f} ms is over {LARGEST_LAG_SHARE:.0%} "
                f"of the objective of {objective_seconds * 1e3:g} ms"
            )
        if self.busy_share > LARGEST_BUSY_SHARE:
            return f"the generator was busy {self.busy_share:.0%} of the time, over {LARGEST_BUSY_SHARE:.0%}"
        return None


def run_load(
    target: Target,
    bodies: Sequence[Body],
    rate: float,
    seconds: float,
    *,
    warm_up: float = 1.0,
    seed: int = 1,
    connections: int = 256,
    warm_connections: int = 16,
    timeout: float = 10.0,
    give_up: float | None = None,
    spins: bool | None = None,
    network: Network | None = None,
) -> LoadResult:
    """Send requests at Poisson arrivals of one rate, and measure.

    Args:
        target: Where to.
        bodies: Sent in turn; serialised before the run.
        rate: Mean requests a second.
        seconds: Length of the measured part.
        warm_up: Seconds before it, at the same rate, of which nothing is said.
        seed: Of the arrivals.
        connections: Most connections at once.
        warm_connections: Opened before the first request.
        timeout: Seconds from when a request was due until it is given up.
        give_up: Age of the oldest unanswered request, in seconds, at which the run ends as overloaded; None never.
        spins: Whether the generator may spin; None: where it may use two CPUs or more.
        network: Stands in for the machine (tests).

    Raises:
        TargetError: The host's name is not known, or no body was given.
        BenchError: More connections than this process may open, more requests than it can hold, or none that would be
            measured.
        ValueError: A rate or a length that is not positive.
    """
    _allow_files(connections)
    if not bodies:
        raise TargetError(f"{target.url}: expected one body or more to send, got none")
    due, first = due_requests(rate, seconds, warm_up=warm_up, seed=seed)
    limits = Limits(
        connections=connections,
        warm=warm_connections,
        timeout_ns=round(timeout * NANOSECONDS),
        **({} if give_up is None else {"give_up_ns": round(give_up * NANOSECONDS)}),
    )
    requests = [target.request(body.content, body.content_type, body.headers) for body in bodies]
    machine: Machine | None = None
    if network is None:
        try:
            network = machine = Machine(target, spins=spins)
        except OSError as error:
            raise TargetError(f"{target.url}: expected a host that is known, got {error}") from error
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection in the middle would be read as lag
    try:
        records = Engine(network, requests, due, limits, first).run()
    finally:
        if collecting:
            gc.enable()
        if machine is not None:
            machine.close()
    return summarise(
        records, rate, seconds, warm_up=warm_up, seed=seed, candidates=[body.candidates for body in bodies]
    )


def due_requests(rate: float, seconds: float, *, warm_up: float, seed: int) -> tuple[NDArray[np.int64], int]:
    """When requests of a run are due, and which of them is the first that is measured; arguments as in `run_load`.

    Raises:
        BenchError: More than memory should be asked for, or none that is measured.
        ValueError: A rate or a length that is not positive.
    """
    length = warm_up + seconds
    if rate * length > MOST_REQUESTS:
        raise BenchError(
            f"rate {rate:g} for {length:g} s: expected at most {MOST_REQUESTS:,} requests a run, "
            f"got {rate * length:.3g}"
        )
    due = poisson_arrivals(rate, length, seed)
    first = int(np.searchsorted(due, round(warm_up * NANOSECONDS)))
    if first == len(due):
        raise BenchError(
            f"rate {rate:g} for {seconds:g} s: expected one measured request or more, got none: "
            f"{rate * seconds:g} are due on average; a longer run or a higher rate has some"
        )
    return due, first


def _allow_files(connections: int) -> None:
    """Let this process open so many connections, as far as it is its own to decide."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise BenchError(f"connections: expected at most {hard - _OTHER_FILES} (ulimit -Hn), got {connections}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def summarise(
    records: Records,
    rate: float,
    seconds: float,
    *,
    warm_up: float = 0.0,
    seed: int = 0,
    candidates: Sequence[int | None] = (None,),
) -> LoadResult:
    """What records say; arguments as in `run_load`.

    Args:
        records: Of the whole run.
        rate: Mean requests a second.
        seconds: Length of the measured part.
        warm_up: Seconds before it.
        seed: Of the arrivals.
        candidates: Candidates of each body, in the order in which they take turns.
    """
    place = np.arange(len(records.due))
    # What a run that was given up never came to says nothing.
    measured = (records.due >= round(warm_up * NANOSECONDS)) & (records.taken >= 0)
    if records.overloaded and measured.any():
        seconds = max((int(records.due[measured][-1]) - warm_up * NANOSECONDS) / NANOSECONDS, 1e-3)
    right = measured & (records.outcome == OK)
    latency = Histogram.of(records.ended[right] - records.due[right])
    lags = Histogram.of(records.taken[measured] - records.due[measured])
    sent = measured & (records.sent >= 0)
    waits = records.sent[sent] - records.taken[sent]
    waited = waits > _CONNECTION_WAIT_NS
    outcomes, counts = np.unique(records.outcome[measured & ~right], return_counts=True)
    answered = records.outcome > ABANDONED
    known = [count for count in candidates if count is not None]
    return LoadResult(
        rate=rate,
        seconds=seconds,
        requests=int(measured.sum()),
        answered=int(right.sum()),
        latency=latency.quantiles(),
        service=Histogram.of(records.ended[right] - records.sent[right]).quantiles(),
        lag=lags.quantiles(),
        connection_waits=int(waited.sum()),
        longest_connection_wait=float(waits.max(initial=0)) / NANOSECONDS,
        connections=records.connections,
        errors={_NAMES.get(int(o), f"http_{o}"): int(count) for o, count in zip(outcomes, counts, strict=True)},
        busy_share=records.busy_ns / records.span_ns if records.span_ns else 0.0,
        cpu_share=records.cpu_ns / records.span_ns if records.span_ns else 0.0,
        stalls=tuple(
            stall
            for stall in find_stalls(records.taken[answered], records.ended[answered], records.pauses)
            if stall.start + stall.seconds >= warm_up
        ),
        longest_pause=float(records.pauses[:, 1].max(initial=0)) / NANOSECONDS,
        overloaded=records.overloaded,
        candidates=float(np.array(known)[place[right] % len(known)].sum()) / seconds
        if len(known) == len(candidates)
        else None,
        histogram=latency,
        lags=lags,
        seed=seed,
        records=records,
    )


_CONNECTION_WAIT_NS: Final = 20_000  # a wait shorter than this is the generator taking the next step
