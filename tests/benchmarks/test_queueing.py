"""The M/D/1 formula against a simulation of the queue, and against what is known of it in closed form."""

import numpy as np
import pytest

from benchmarks.serving.queueing import response_quantile, wait_within


def simulated_waits(load: float, arrivals: int) -> np.ndarray:
    """Lindley's recursion: the wait of each arrival from that of the one before."""
    gaps = np.random.default_rng(1).exponential(1 / load, arrivals).tolist()
    waits, wait = [], 0.0
    for gap in gaps:
        waits.append(wait)
        wait = max(0.0, wait + 1.0 - gap)
    return np.array(waits[arrivals // 20 :])


@pytest.mark.parametrize("load", [0.25, 0.5, 0.8])
def test_quantiles_are_those_of_a_simulated_queue(load: float) -> None:
    responses = 1.0 + simulated_waits(load, 400_000)
    for share in (0.5, 0.9, 0.99):
        assert response_quantile(load, share) == pytest.approx(np.quantile(responses, share), rel=0.04)


@pytest.mark.parametrize("load", [0.1, 0.5, 0.8])
def test_the_mean_wait_is_that_of_pollaczek_and_khinchine(load: float) -> None:
    times = np.concatenate([np.linspace(0, 2, 101), np.linspace(2, 30, 141)[1:]])
    beyond = np.array([1 - wait_within(load, time) for time in times])
    assert np.trapezoid(beyond, times) == pytest.approx(load / (2 * (1 - load)), rel=5e-3)


def test_who_finds_the_server_idle_does_not_wait() -> None:
    assert wait_within(0.3, 0.0) == pytest.approx(0.7)
    assert response_quantile(0.3, 0.5) == 1.0


def test_the_alternating_sum_keeps_its_digits_far_out() -> None:
    shares = [wait_within(0.9, time) for time in range(0, 120, 5)]
    assert shares == sorted(shares)
    assert 1 - 1e-6 < shares[-1] <= 1


@pytest.mark.parametrize(("load", "time"), [(1.0, 1.0), (-0.1, 1.0), (0.5, -1.0)])
def test_a_queue_that_never_settles_is_refused(load: float, time: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        wait_within(load, time)
