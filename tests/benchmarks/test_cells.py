"""What a cell cost is arithmetic on clock ticks; which attempt is kept, and which cell is used at all, are rules."""

import math
from pathlib import Path

import pytest

from benchmarks.serving.cells import NOISE, Closed, Measured, Open, Spent, account, least_disturbed, unusable
from benchmarks.serving.processes import TICK_SECONDS, Ticks

ANSWERED = {"requests": 1000, "seconds": 4.0, "errors": 0}
CLOSED = Closed("http://127.0.0.1:1/", Path("none"), 10, 2, 4)
OPEN = Open("http://127.0.0.1:1/", Path("none"), 10, 250.0, 4.0)


def spent(seconds: float, server: Ticks, server_core: int, generator: float, load_core: int) -> Spent:
    return Spent(server, server_core, generator, load_core, seconds / TICK_SECONDS)


@pytest.mark.parametrize(("server_core", "load_core"), [(300, 100), (200, 200)])
def test_what_others_used_of_either_core_is_noise(server_core: int, load_core: int) -> None:
    found = account(ANSWERED, CLOSED, spent(4, Ticks(150, 50), server_core, 100, load_core))
    assert found["noise"] == pytest.approx(100 * TICK_SECONDS / 4, abs=1e-3)
    assert account(ANSWERED, CLOSED, spent(4, Ticks(150, 50), 200, 100, 100))["noise"] == 0


def test_time_and_requests_of_an_open_loops_warm_up_are_both_counted_or_neither() -> None:
    # At one rate throughout, 5 s of which 1 s is warm-up: 1250 requests cost 250 ticks, 1000 of them are told.
    found = account(ANSWERED, OPEN, spent(5, Ticks(200, 50), 250, 0, 0))
    assert OPEN.accounted == 0.8
    assert found["cpu_us"] == pytest.approx(250 * TICK_SECONDS / 1250 * 1e6)
    assert found["requests_per_second"] == 250
    assert account(ANSWERED, CLOSED, spent(4, Ticks(200, 0), 200, 0, 0))["cpu_us"] == pytest.approx(
        200 * TICK_SECONDS / 1000 * 1e6
    )


def test_the_generators_own_share_of_its_core_is_kept() -> None:
    assert account(ANSWERED, CLOSED, spent(4, Ticks(1, 1), 2, 3.4 / TICK_SECONDS, 0))["generator_cpu"] == 0.85


def attempts(*found: Measured) -> tuple[Measured, int]:
    waiting = [{"errors": 0, "requests": 9, "noise": 0.0, "name": place} | one for place, one in enumerate(found)]
    kept = least_disturbed(lambda: waiting.pop(0), len(found) - 1)
    return kept["name"], len(found) - len(waiting)


def test_the_least_disturbed_attempt_is_kept_and_a_quiet_one_is_the_last() -> None:
    noisy, noisier, quiet = {"noise": 0.2}, {"noise": 0.4}, {"noise": NOISE}
    assert attempts(noisier, noisy, noisier) == (1, 3)
    assert attempts(noisier, quiet, {"noise": 0.0}) == (1, 2)


def test_an_attempt_the_generator_held_back_is_made_again_and_kept_only_where_all_were() -> None:
    bound = {"generator_bound": "send lag"}
    assert attempts(bound, {"noise": 0.3}, bound) == (1, 3)
    assert attempts(bound, bound) == (0, 2)


def test_an_attempt_with_errors_is_not_made_again_until_it_has_none() -> None:
    assert attempts({"noise": 0.3}, {"errors": 1}, {}) == (1, 2)


def test_why_a_cell_is_not_used_is_told() -> None:
    assert unusable(ANSWERED) is None
    assert unusable(ANSWERED | {"errors": 3, "error_kinds": {"status": 3, "timeout": 0}}) == (
        "3 errors among 1000 answers (status 3)"
    )
    assert unusable(ANSWERED | {"generator_bound": "lag"}) == "generator-bound: lag"
    assert unusable({"error": "it hung", "errors": 0}) == "it hung"
    assert unusable(ANSWERED | {"requests": 0}) is not None


def test_the_load_tool_is_told_the_objective() -> None:
    command = Open("http://127.0.0.1:1/", Path("none"), 10, 250.0, 4.0, 0.001).command()
    assert [float(word) for word in command[-3:]] == [250.0, 4.0, 0.001]
    assert math.isinf(float(OPEN.command()[-1]))
