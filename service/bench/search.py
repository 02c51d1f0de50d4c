"""The highest rate at which an objective holds: up in steps until it does not, then halving what lies between.

A rate at which the generator itself was the bottleneck says nothing of the server: it is tried once more, and if it
stays so it is a bound of the search, never its answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from service.bench.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.bench.load import LoadResult

__all__ = ["Limit", "Objective", "Point", "SearchResult", "Verdict", "agreed", "highest_rate", "judge"]

LOWEST_RATE: Final = 0.5
_TRIES: Final = 6  # of a rate that did not hold when it was repeated


class Verdict(StrEnum):
    """What a run says of an objective."""

    HELD = "held"
    MISSED = "missed"
    GENERATOR_BOUND = "generator-bound"


class Limit(StrEnum):
    """What the highest rate was limited by."""

    OBJECTIVE = "objective"
    GENERATOR = "generator"
    CEILING = "ceiling"


@dataclass(frozen=True, slots=True)
class Objective:
    """What has to hold.

    Attributes:
        seconds: The 99th percentile of the latency is at most this.
        error_share: Share of requests that may fail.
    """

    seconds: float
    error_share: float = 0.001


@dataclass(frozen=True, slots=True)
class Point:
    """One run with its verdict; `why` says what broke the objective, or made the run worthless."""

    result: LoadResult
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes:
        objective: What had to hold.
        points: Every run, in the order of time.
        rate: The highest rate that held, also when repeated; None if none did.
        limited_by: What kept it from being higher. Only `objective` makes `rate` the server's limit.
        resolution: The lowest rate that did not hold is at most this share above `rate`, if the objective limits it.
        repeats: The runs at `rate` that confirmed it.
        pooled_p99: 99th percentile of all their latencies together, seconds.
    """

    objective: Objective
    points: tuple[Point, ...]
    rate: float | None
    limited_by: Limit
    resolution: float
    repeats: tuple[Point, ...]
    pooled_p99: float | None

    @property
    def generator_bound(self) -> bool:
        """The answer is a lower bound: the generator, not the server, could do no more."""
        return self.limited_by is Limit.GENERATOR


def judge(result: LoadResult, objective: Objective) -> Point:
    """Whether a run held an objective; a run that was the generator's own limit says nothing about that."""
    # A run that was given up in its warm-up has no request to judge the generator by.
    bound = result.generator_bound(objective.seconds) if result.requests else None
    if bound is not None:
        return Point(result, Verdict.GENERATOR_BOUND, bound)
    if result.overloaded:
        return Point(result, Verdict.MISSED, "overloaded: the run was ended early")
    if result.error_share > objective.error_share:
        return Point(result, Verdict.MISSED, f"{result.error_share:.2%} of the requests failed")
    if not result.answered:
        return Point(result, Verdict.MISSED, "no request was answered")
    if result.latency.p99 > objective.seconds:
        return Point(result, Verdict.MISSED, f"p99 is {result.latency.p99 * 1e3:.3f} ms")
    return Point(result, Verdict.HELD)


def highest_rate(
    measure: Callable[[float, int], LoadResult],
    objective: Objective,
    *,
    start: float,
    lowest: float = LOWEST_RATE,
    ceiling: float = math.inf,
    growth: float = 1.6,
    resolution: float = 0.05,
    repeats: int = 3,
    on_point: Callable[[Point], None] | None = None,
) -> SearchResult:
    """Find the highest rate at which an objective holds.

    Args:
        measure: Runs one rate with one seed.
        objective: What has to hold.
        start: The first rate tried, requests a second.
        lowest: No rate below it is tried, but for `start` itself: where requests hardly ever meet, a lower rate finds
            nothing else, and takes longer.
        ceiling: No rate above it is tried.
        growth: The step up; over 1.
        resolution: Where the search ends: between the last rate that held and the first that did not.
        repeats: Runs that must confirm the answer: most of them hold, and so do all their latencies pooled.
        on_point: Told of every run as it ends.
    """
    search = _Search(measure, objective, on_point, max(lowest, LOWEST_RATE))
    low, high, bound = search.bracket(min(start, ceiling), ceiling, growth)
    tries = 0
    confirmed: list[Point] = []
    while low is not None:
        while high is not None and high / low > 1 + resolution:
            middle = math.sqrt(low * high)
            verdict = search.run(middle)
            if verdict is Verdict.HELD:
                low = middle
            else:
                high, bound = middle, verdict
        confirmed = [search.point(low) for _ in range(repeats)]
        verdict = agreed(confirmed, objective)
        if verdict is Verdict.HELD:
            break
        tries += 1
        high, bound = low, verdict
        low = search.held_below(low, resolution) if tries < _TRIES else None
    limit = Limit.CEILING if high is None else Limit.OBJECTIVE
    if bound is Verdict.GENERATOR_BOUND:
        limit = Limit.GENERATOR
    return SearchResult(
        objective=objective,
        points=tuple(search.points),
        rate=low,
        limited_by=limit,
        resolution=resolution,
        repeats=tuple(confirmed) if low is not None else (),
        pooled_p99=_pooled_p99(confirmed) if low is not None and confirmed else None,
    )


class _Search:
    """Runs and keeps them."""

    def __init__(
        self,
        measure: Callable[[float, int], LoadResult],
        objective: Objective,
        on_point: Callable[[Point], None] | None,
        lowest: float,
    ) -> None:
        self._measure = measure
        self._objective = objective
        self._on_point = on_point
        self._lowest = lowest
        self.points: list[Point] = []

    def point(self, rate: float) -> Point:
        """One run; no two have the same arrivals."""
        found = judge(self._measure(rate, len(self.points) + 1), self._objective)
        self.points.append(found)
        if self._on_point is not None:
            self._on_point(found)
        return found

    def run(self, rate: float) -> Verdict:
        """The verdict on a rate; the generator gets a second chance, for its core may have been taken away."""
        verdict = self.point(rate).verdict
        return self.point(rate).verdict if verdict is Verdict.GENERATOR_BOUND else verdict

    def bracket(self, rate: float, ceiling: float, growth: float) -> tuple[float | None, float | None, Verdict]:
        """A rate that held and a higher one that did not (None: there is none), with the verdict on the latter."""
        verdict = self.run(rate)
        if verdict is not Verdict.HELD:
            while verdict is not Verdict.HELD:
                high, bound, rate = rate, verdict, rate / growth
                if rate < self._lowest:
                    return None, high, bound
                verdict = self.run(rate)
            return rate, high, bound
        while rate < ceiling:
            higher = min(rate * growth, ceiling)
            verdict = self.run(higher)
            if verdict is not Verdict.HELD:
                return rate, higher, verdict
            rate = higher
        return rate, None, Verdict.HELD

    def held_below(self, rate: float, resolution: float) -> float | None:
        """A lower rate to go on with: the best that held, or one step down."""
        lower = [p.result.rate for p in self.points if p.verdict is Verdict.HELD and p.result.rate < rate]
        found = max(lower, default=rate / (1 + resolution))
        return found if found >= self._lowest else None


def agreed(points: list[Point], objective: Objective) -> Verdict:
    """What runs at one rate say together; of less than half of them nothing is said."""
    if not points:
        return Verdict.HELD
    usable = [point for point in points if point.verdict is not Verdict.GENERATOR_BOUND]
    if 2 * len(usable) < len(points):
        return Verdict.GENERATOR_BOUND
    held = [point for point in usable if point.verdict is Verdict.HELD]
    if 2 * len(held) > len(usable) and (_pooled_p99(points) or 0.0) <= objective.seconds:
        return Verdict.HELD
    return Verdict.MISSED


def _pooled_p99(points: list[Point]) -> float | None:
    usable = [point.result.histogram for point in points if point.verdict is not Verdict.GENERATOR_BOUND]
    return Histogram.sum(usable).quantile(0.99) if usable else None
