"""The open loop on a network with a clock of its own: what it measures can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from virtual_network import MS, VirtualNetwork, answer

from service.bench import Body, LoadResult, Target, run_load
from service.bench.arrivals import poisson_arrivals
from service.bench.stalls import find_stalls

TARGET = Target("virtual", 80)
SECOND = 1000 * MS


def run(network: VirtualNetwork, rate: float, seconds: float, **options: Any) -> LoadResult:
    body = Body(b"{}", candidates=2)
    return run_load(TARGET, [body], rate, seconds, **{"warm_up": 0.0, "network": network, **options})


def latencies(result: LoadResult) -> np.ndarray[Any, np.dtype[np.int64]]:
    return result.records.ended - result.records.due


def test_arrivals_are_those_of_a_poisson_process_and_the_same_for_the_same_seed() -> None:
    times = poisson_arrivals(200.0, 500.0, seed=3)
    gaps = np.diff(times) / SECOND
    assert len(times) == pytest.approx(100_000, abs=5 * 100_000**0.5)
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.02)
    # exponential: the deviation equals the mean, and a share of exp(-2) is longer than twice the mean
    assert gaps.std() == pytest.approx(1 / 200, rel=0.02)
    assert (gaps > 2 / 200).mean() == pytest.approx(np.exp(-2), rel=0.04)
    # counts of disjoint spells: variance equals mean
    counts = np.bincount(times // SECOND, minlength=500)
    assert counts.var() == pytest.approx(counts.mean(), rel=0.3)
    assert np.corrcoef(counts[:-1], counts[1:])[0, 1] == pytest.approx(0.0, abs=0.15)
    assert np.array_equal(times, poisson_arrivals(200.0, 500.0, seed=3))
    assert not np.array_equal(times, poisson_arrivals(200.0, 500.0, seed=4))


def test_every_latency_is_that_of_a_queue_worked_out_by_hand_whatever_the_number_of_connections() -> None:
    service = [1 * MS, 7 * MS, 2 * MS, 11 * MS]
    for connections in (1, 3, 256):
        result = run(VirtualNetwork(lambda n: service[n % 4]), 150, 20, connections=connections, seed=5)
        free, expected = 0, []
        for place, due in enumerate(result.records.due.tolist()):
            free = max(free, due) + service[place % 4]
            expected.append(free - due)
        assert latencies(result).tolist() == expected
        assert result.latency.max == max(expected) / SECOND
        assert result.connections <= connections
        assert result.answered == result.requests == len(expected)


def test_the_mean_wait_is_that_of_the_pollaczek_khinchine_formula() -> None:
    # M/D/1: constant service time D at load r waits r D / (2 (1 - r)) on average
    load, service = 0.6, 0.001
    result = run(VirtualNetwork(lambda _: round(service * SECOND)), load / service, 100)
    assert result.requests > 50_000
    assert result.latency.mean - service == pytest.approx(load * service / (2 * (1 - load)), rel=0.06)


def test_a_wait_for_a_connection_is_counted_in_the_latency_and_told_apart_from_the_generators_own_lag() -> None:
    result = run(VirtualNetwork(lambda _: 5 * MS), 150, 10, connections=1, warm_connections=1)
    assert result.connection_waits > 0.5 * result.requests
    assert result.longest_connection_wait > 0.005
    assert result.lag.max == 0.0
    assert result.latency.max == pytest.approx(result.longest_connection_wait + 0.005, rel=0.01)
    # what a tool would say that starts its watch when it sends
    assert result.service.max == 0.005


def test_a_generator_that_is_late_says_so_and_its_run_is_not_the_servers() -> None:
    slow = run(VirtualNetwork(lambda _: MS // 10, poll_cost=3 * MS), 100, 10)
    assert slow.lag.p50 > 0.001
    assert slow.lag.max <= 0.0061
    assert "send lag" in (slow.generator_bound(0.010) or "")
    assert slow.generator_bound(1.0) is None
    quick = run(VirtualNetwork(lambda _: MS // 10), 100, 10)
    assert quick.generator_bound(0.000_001) is None


def test_a_stall_is_flagged_with_its_time_and_length_and_shows_in_the_largest_latencies() -> None:
    stalls = [(2 * SECOND, 2 * SECOND + 300 * MS), (7 * SECOND, 7 * SECOND + 250 * MS)]
    result = run(VirtualNetwork(lambda _: MS, stalls), 200, 10)
    assert [round(stall.start, 2) for stall in result.stalls] == pytest.approx([2.0, 7.0], abs=0.02)
    assert [stall.seconds for stall in result.stalls] == pytest.approx([0.3, 0.25], abs=0.02)
    # about as many requests waited as were due meanwhile
    assert [stall.waiting for stall in result.stalls] == pytest.approx([60, 50], rel=0.4)
    assert result.latency.max == pytest.approx(0.3, abs=0.02)
    assert result.latency.p999 > 0.28
    assert result.latency.p50 < 0.002


def test_no_stall_is_flagged_for_a_queue_one_slow_request_an_idle_spell_or_the_generators_own_pause() -> None:
    queue = run(VirtualNetwork(lambda _: 4 * MS), 240, 30)
    assert queue.latency.p99 > 0.02
    assert queue.stalls == ()
    rare = run(VirtualNetwork(lambda n: 100 * MS if n == 20 else MS), 2, 30)
    assert rare.latency.max >= 0.1
    assert rare.stalls == ()
    assert run(VirtualNetwork(lambda _: MS), 1, 30).stalls == ()
    paused = run(VirtualNetwork(lambda _: MS, pause=(4 * SECOND, 300 * MS)), 200, 10)
    assert paused.latency.max > 0.28
    assert paused.longest_pause == pytest.approx(0.3, abs=0.02)
    assert paused.stalls == ()


def test_a_pause_of_the_generator_that_an_answer_was_read_right_after_is_taken_off_a_stall() -> None:
    taken = np.arange(5) * MS
    ended = np.array([4, 304, 305, 306, 307]) * MS
    none = np.empty((0, 2), dtype=np.int64)
    (stall,) = find_stalls(taken, ended, none)
    assert (stall.start, stall.seconds, stall.waiting) == (0.004, 0.3, 4)
    assert find_stalls(taken, ended, np.array([[5 * MS, 299 * MS]])) == ()
    (shorter,) = find_stalls(taken, ended, np.array([[204 * MS, 100 * MS]]))
    assert shorter.seconds == 0.2
    # nothing had come when a pause in the middle ended: the server stood still all the same
    assert find_stalls(taken, ended, np.array([[50 * MS, 200 * MS]])) == (stall,)


def test_failures_are_counted_apart_and_never_as_latencies() -> None:
    def reply(number: int) -> bytes:
        return {0: answer(503), 1: b"", 2: b"nonsense\r\n\r\n" + b"x", 3: answer() + b"more"}.get(number % 10, answer())

    result = run(VirtualNetwork(lambda _: MS, reply=reply), 100, 10)
    tenth = result.requests / 10
    assert result.errors["http_503"] == pytest.approx(tenth, abs=1)
    assert result.errors["reset"] == pytest.approx(tenth, abs=1)
    assert result.errors["malformed"] == pytest.approx(tenth, abs=1)
    assert result.answered + sum(result.errors.values()) == result.requests
    assert result.histogram.count == result.answered


def test_a_server_that_never_answers_gives_timeouts_and_an_end() -> None:
    network = VirtualNetwork(lambda _: 3600 * SECOND)
    result = run(network, 50, 5, timeout=1.0, connections=8)
    assert result.errors == {"timeout": result.requests}
    assert network.clock < 7 * SECOND
    assert result.latency.max == 0.0


def test_a_run_far_over_capacity_is_given_up_early_when_asked() -> None:
    network = VirtualNetwork(lambda _: 100 * MS)
    result = run(network, 1000, 60, give_up=0.5)
    assert result.overloaded
    assert network.clock < SECOND
    assert result.errors["abandoned"] > 0
    assert result.seconds < 1


def test_a_warm_up_is_sent_and_not_counted() -> None:
    result = run(VirtualNetwork(lambda n: 200 * MS if n < 3 else MS), 50, 10, warm_up=5.0)
    assert latencies(result).max() > 0.2 * SECOND
    assert result.latency.max < 0.1
    assert result.requests == pytest.approx(500, abs=100)
    assert result.candidates == pytest.approx(2 * result.answered / 10)
