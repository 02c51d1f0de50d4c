"""The search for the highest rate, on queues whose answer has a closed form."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from virtual_network import VirtualNetwork

from service.bench import Body, LoadResult, Objective, Target, Verdict, highest_rate, judge, run_load
from service.bench.search import Limit

if TYPE_CHECKING:
    from collections.abc import Callable

SERVER = 2000.0  # requests a second
OBJECTIVE = Objective(0.010)
# M/M/1: the time in the system is exponential, its 99th percentile ln(100) / (mu - lambda)
ANSWER = SERVER - math.log(100) / OBJECTIVE.seconds


@pytest.fixture(scope="module")
def blank() -> LoadResult:
    network = VirtualNetwork(lambda _: 1)
    return run_load(Target("virtual", 80), [Body(b"{}")], 100, 2, warm_up=0.0, network=network)


def closed_form(blank: LoadResult, *, busy_from: float = math.inf) -> Callable[[float, int], LoadResult]:
    """A server whose 99th percentile is exactly that of M/M/1; the generator is busy from some rate on."""

    def measure(rate: float, seed: int) -> LoadResult:
        p99 = math.log(100) / (SERVER - rate) if rate < SERVER else 60.0
        latency = dataclasses.replace(blank.latency, p99=p99)
        histogram = type(blank.histogram).of(np.full(1000, round(p99 * 1e9)))
        busy = 0.9 if rate >= busy_from else 0.2
        return dataclasses.replace(
            blank, rate=rate, seed=seed, latency=latency, histogram=histogram, busy_share=busy, overloaded=rate > SERVER
        )

    return measure


@pytest.mark.parametrize("start", [1.0, 100.0, 1500.0, 5000.0, 1e6])
@pytest.mark.parametrize("resolution", [0.2, 0.05, 0.01])
def test_the_answer_is_the_closed_forms_to_the_resolution_wherever_it_starts(
    blank: LoadResult, start: float, resolution: float
) -> None:
    found = highest_rate(closed_form(blank), OBJECTIVE, start=start, resolution=resolution)
    assert found.rate is not None
    assert found.rate <= ANSWER <= found.rate * (1 + resolution)
    assert found.limited_by is Limit.OBJECTIVE
    assert len(found.repeats) == 3
    assert found.pooled_p99 == pytest.approx(math.log(100) / (SERVER - found.rate), rel=0.002)
    seeds = [point.result.seed for point in found.points]
    assert len(set(seeds)) == len(seeds)


def test_a_rate_at_which_the_generator_was_the_bottleneck_is_never_the_answer(blank: LoadResult) -> None:
    found = highest_rate(closed_form(blank, busy_from=700.0), OBJECTIVE, start=100.0)
    assert found.rate is not None
    assert 700 / 1.05 <= found.rate < 700
    assert found.limited_by is Limit.GENERATOR
    assert found.generator_bound
    bound = [point for point in found.points if point.verdict is Verdict.GENERATOR_BOUND]
    assert bound
    assert all(point.result.rate >= 700 and "busy 90%" in point.why for point in bound)
    assert highest_rate(closed_form(blank, busy_from=0.1), OBJECTIVE, start=100.0).rate is None


def test_a_ceiling_ends_the_search_and_says_so(blank: LoadResult) -> None:
    found = highest_rate(closed_form(blank), OBJECTIVE, start=100.0, ceiling=900.0)
    assert (found.rate, found.limited_by) == (900.0, Limit.CEILING)


def test_an_objective_that_no_rate_holds_has_no_answer(blank: LoadResult) -> None:
    found = highest_rate(closed_form(blank), Objective(0.001), start=100.0)
    assert found.rate is None
    assert found.limited_by is Limit.OBJECTIVE
    assert found.pooled_p99 is None


def test_no_rate_below_the_lowest_is_tried_but_for_the_first(blank: LoadResult) -> None:
    none = highest_rate(closed_form(blank), Objective(0.001), start=100.0, lowest=30.0)
    assert none.rate is None
    assert min(point.result.rate for point in none.points) >= 30.0
    assert len(none.points) == 3  # 100, 62.5, 39
    first = highest_rate(closed_form(blank), Objective(0.001), start=100.0, lowest=100.0)
    assert [point.result.rate for point in first.points] == [100.0]
    found = highest_rate(closed_form(blank), OBJECTIVE, start=5000.0, lowest=1000.0)
    assert found.rate is not None
    assert found.rate <= ANSWER <= found.rate * 1.05


def test_a_lucky_run_is_not_confirmed_and_the_search_goes_lower(blank: LoadResult) -> None:
    honest = closed_form(blank)
    lucky: set[float] = set()

    def measure(rate: float, seed: int) -> LoadResult:
        if ANSWER < rate < 1.1 * ANSWER and rate not in lucky:  # the first time it looks well
            lucky.add(rate)
            return honest(1.0, seed) if rate > SERVER else dataclasses.replace(honest(100.0, seed), rate=rate)
        return honest(rate, seed)

    found = highest_rate(measure, OBJECTIVE, start=1650.0, growth=1.05)
    assert lucky
    assert found.rate is not None
    assert found.rate <= ANSWER <= found.rate * 1.06


def test_errors_and_lag_decide_the_verdict_as_stated(blank: LoadResult) -> None:
    good = dataclasses.replace(blank, requests=1000)
    assert judge(good, OBJECTIVE).verdict is Verdict.HELD
    assert judge(dataclasses.replace(good, errors={"reset": 1}), OBJECTIVE).verdict is Verdict.HELD
    assert judge(dataclasses.replace(good, errors={"reset": 1, "http_503": 1}), OBJECTIVE).verdict is Verdict.MISSED
    late = dataclasses.replace(good, lag=dataclasses.replace(good.lag, p99=0.0011), errors={"timeout": 500})
    assert judge(late, OBJECTIVE).verdict is Verdict.GENERATOR_BOUND
    assert judge(dataclasses.replace(good, answered=0), OBJECTIVE).verdict is Verdict.MISSED
    # given up before anything was measured: the span of the measured part is empty, and "busy" in all of it
    none = dataclasses.replace(good, requests=0, answered=0, overloaded=True, busy_share=1.0)
    assert judge(none, OBJECTIVE).verdict is Verdict.MISSED


def test_the_search_on_a_simulated_server_finds_what_a_long_simulation_of_the_queue_finds() -> None:
    service, objective = 0.002, Objective(0.008)

    def measure(rate: float, seed: int) -> LoadResult:
        network = VirtualNetwork(lambda _: round(service * 1e9))
        return run_load(Target("virtual", 80), [Body(b"{}")], rate, 20, seed=seed, network=network, give_up=1.0)

    found = highest_rate(measure, objective, start=100.0)

    def p99(rate: float) -> float:  # Lindley's recursion, as running minima of a random walk
        walk = np.cumsum(service - np.random.default_rng(9).exponential(1 / rate, 1_000_000))
        waits = walk - np.minimum.accumulate(np.minimum(walk, 0))
        return float(np.quantile(waits + service, 0.99))

    assert found.rate is not None
    assert p99(found.rate * 0.93) <= objective.seconds <= p99(found.rate * 1.10)
