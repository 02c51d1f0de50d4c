"""One bench from its plan to its report: probe, search or given rates, then the curve below the answer."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.bench.bodies import distinct_rows
from service.bench.load import MOST_REQUESTS, due_requests, run_load
from service.bench.probe import probe
from service.bench.report import Report, make_report
from service.bench.search import Point, SearchResult, Verdict, highest_rate, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.bench.http import Target
    from service.bench.load import Body, LoadResult
    from service.bench.rows import Row
    from service.bench.search import Objective

__all__ = ["Plan", "run_bench"]

_CURVE: Final = (0.25, 0.5, 0.75, 0.9)  # of the highest rate
_NEAR: Final = 0.08  # of the highest rate: a point this near is there already
_FIRST_SHARE: Final = 0.2  # of what one request after the other comes to: where the search begins
_IDLE_SHARE: Final = 0.02  # of the same: where it ends, for hardly any request then waits for another
_ENOUGH_REQUESTS: Final = 2000  # a run: twenty of them lie above the 99th percentile
_LEAST_REQUESTS: Final = 100  # with fewer there is no 99th percentile
_LONGEST_STRETCH: Final = 4.0  # times the plan's seconds that a run may last to have so many
_NEVER_EMPTY: Final = 50  # of a run with so many requests on average, one in 10^21 has none
_GIVE_UP_OBJECTIVES: Final = 20.0
_GIVE_UP_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        target: Where to.
        bodies: Sent in turn; a run goes on where the last one ended.
        objective: What has to hold.
        form: What the form of the bodies is called in the report.
        rows: What `make_bodies` made them of; None if something else did.
        rates: Measure these alone; empty searches for the highest rate that holds the objective.
        start: Where the search begins; None: from the time of one request.
        ceiling: The search tries no higher rate.
        resolution: How near the search comes.
        seconds: Measured length of a run; a run of the search lasts longer where the rate is low.
        warm_up: Seconds before, not counted.
        repeats: Runs of each given rate, and of the search's answer.
        seed: Of the arrivals.
        connections: Most connections at once.
        timeout: Seconds until a request has failed.
        spins: Whether the generator may spin; None: where it may use two CPUs or more.
    """

    target: Target
    bodies: Sequence[Body]
    objective: Objective
    form: str = "rows"
    rows: Sequence[Row] | None = None
    rates: tuple[float, ...] = ()
    start: float | None = None
    ceiling: float = math.inf
    resolution: float = 0.05
    seconds: float = 5.0
    warm_up: float = 1.0
    repeats: int = 3
    seed: int = 1
    connections: int = 256
    timeout: float = 10.0
    spins: bool | None = None


def run_bench(plan: Plan, on_point: Callable[[Point], None] | None = None) -> Report:
    """Carry a plan out.

    Args:
        plan: What to measure.
        on_point: Told of every run as it ends.

    Raises:
        TargetError: The target cannot be reached, refuses a body, or answers it wrongly.
        BenchError: A run that cannot be made; told before the first one is.
    """
    _check(plan)
    took = probe(plan.target, plan.bodies, plan.timeout)
    runs = _Runs(plan, on_point)
    search: SearchResult | None = None
    why = ""
    if plan.rates:
        points = runs.judged([rate for rate in plan.rates for _ in range(plan.repeats)], 0)
    else:
        alone = statistics.median(took)
        start = plan.start or max(1.0, _FIRST_SHARE / alone)
        # What one request after the other does not hold, no rate does: one run shows it, and no lower one is tried.
        hopeless = alone > plan.objective.seconds
        lowest = start if hopeless else _IDLE_SHARE / alone
        search = highest_rate(
            runs.run,
            plan.objective,
            start=start,
            lowest=lowest,
            ceiling=plan.ceiling,
            resolution=plan.resolution,
            repeats=plan.repeats,
            on_point=on_point,
        )
        points = list(search.points)
        points += runs.judged(_curve(search), len(points))
        if search.rate is None:
            why = _why_none(points, alone, plan.objective)
    return make_report(
        plan.target,
        plan.bodies,
        points,
        form=plan.form,
        objective=plan.objective,
        search=search,
        rows=runs.distinct_rows(),
        why=why,
    )


def _why_none(points: list[Point], alone: float, objective: Objective) -> str:
    """Why a search that found no rate went no lower."""
    least = min(point.result.rate for point in points)
    if any(point.verdict is Verdict.HELD for point in points):
        return "what held it once did not when it was repeated"
    if alone > objective.seconds:
        return f"one request after the other takes {alone * 1e3:,.2f} ms (median), so no lower rate was tried"
    return (
        f"not even {least:,.1f} requests/s held it, at which requests hardly ever meet (one alone takes "
        f"{alone * 1e3:,.2f} ms, median), so no lower rate was tried"
    )


def _curve(search: SearchResult) -> list[float]:
    """Rates below the answer that the search passed over."""
    if search.rate is None:
        return []
    known = [point.result.rate for point in search.points]
    wanted = [share * search.rate for share in _CURVE]
    return [rate for rate in wanted if all(abs(rate - other) > _NEAR * search.rate for other in known)]


def _check(plan: Plan) -> None:
    """Whether the runs that are known beforehand can be made: the last one must not fail after minutes of others."""
    rates = plan.rates or ((plan.start,) if plan.start is not None else ())
    for number, rate in enumerate((rate for rate in rates for _ in range(plan.repeats)), 1):
        mean = rate * plan.seconds
        if (plan.rates and mean < _NEVER_EMPTY) or mean > MOST_REQUESTS / 2:
            due_requests(rate, plan.seconds, warm_up=plan.warm_up, seed=_seed(plan, number))


def _seed(plan: Plan, number: int) -> int:
    return plan.seed * 1_000_003 + number


class _Runs:
    """Runs of a plan, and how many requests they have sent."""

    def __init__(self, plan: Plan, on_point: Callable[[Point], None] | None) -> None:
        self._plan = plan
        self._on_point = on_point
        self._sent = 0

    def judged(self, rates: list[float], before: int) -> list[Point]:
        """One run of each rate; `before` so many have been made."""
        points = []
        for number, rate in enumerate(rates, before + 1):
            points.append(judge(self.run(rate, number), self._plan.objective))
            if self._on_point is not None:
                self._on_point(points[-1])
        return points

    def run(self, rate: float, number: int) -> LoadResult:
        """One run, which is the `number`-th."""
        plan = self._plan
        length, give_up = plan.seconds, None
        if not plan.rates:
            length = min(max(length, _ENOUGH_REQUESTS / rate), length * _LONGEST_STRETCH)
            length = max(length, _LEAST_REQUESTS / rate)
            give_up = min(plan.timeout, max(_GIVE_UP_SECONDS, _GIVE_UP_OBJECTIVES * plan.objective.seconds))
        turn = self._sent % len(plan.bodies)
        result = run_load(
            plan.target,
            [*plan.bodies[turn:], *plan.bodies[:turn]],
            rate,
            length,
            warm_up=plan.warm_up,
            seed=_seed(plan, number),
            connections=plan.connections,
            timeout=plan.timeout,
            give_up=give_up,
            spins=plan.spins,
        )
        self._sent += int((result.records.taken >= 0).sum())
        return result

    def distinct_rows(self) -> int | None:
        """Rows of different content in all that was sent."""
        plan = self._plan
        candidates = plan.bodies[0].candidates
        if plan.rows is None or candidates is None:
            return None
        return distinct_rows(plan.rows, candidates=candidates, bodies=len(plan.bodies), sent=self._sent)
