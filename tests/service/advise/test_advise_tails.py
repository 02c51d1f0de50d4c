"""Coalescing is judged by the 99th percentile of latency too, on rounds recorded with real servers."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from service.advise.compare import gain_of
from service.advise.decisions import TAIL_DOUBT, decide_coalescing, decide_workers, slower_tails
from service.advise.measured import LoadTimes

# (candidates x connections, way) to p99 in ms, microseconds of the server's processor time a request, and requests a
# second, by round: a model of Criteo's fields on two processors that others used as well.
RECORDED: Final = {
    ("1 x 32", "off"): (
        (12.56, 11.84, 6.46, 6.17, 6.17, 6.58, 15.39, 18.41),
        (108, 115, 103, 100, 98, 104, 90, 86),
        (5413, 5099, 9743, 10096, 10083, 9647, 6522, 6448),
    ),
    ("1 x 32", "on"): (
        (7.64, 5.07, 2.56, 2.51, 2.57, 2.99, 4.75, 12.47),
        (69, 57, 59, 56, 59, 56, 53, 53),
        (7584, 13335, 16864, 17564, 16821, 17466, 14123, 10092),
    ),
    ("10 x 32", "off"): (
        (15.91, 15.47, 8.99, 8.96, 9.0, 10.91, 20.05, 21.46),
        (152, 146, 140, 142, 141, 131, 131, 123),
        (4712, 4986, 7008, 7060, 6964, 6651, 4308, 4079),
    ),
    ("10 x 32", "on"): (
        (11.16, 8.82, 4.79, 4.7, 4.73, 6.72, 12.12, 14.11),
        (123, 97, 97, 98, 97, 93, 100, 104),
        (4471, 8060, 10200, 10286, 10281, 8851, 7686, 5414),
    ),
    ("100 x 32", "off"): (
        (23.77, 44.5, 19.29, 20.69, 19.29, 15.43, 31.71, 35.6),
        (318, 407, 312, 321, 308, 282, 307, 325),
        (2973, 2029, 3231, 3099, 3234, 3111, 2513, 2014),
    ),
    ("100 x 32", "on"): (
        (27.7, 16.26, 12.78, 16.47, 12.75, 14.89, 40.83, 29.16),
        (334, 284, 274, 271, 264, 260, 276, 270),
        (2284, 3271, 3647, 3517, 3795, 3533, 2848, 2909),
    ),
    ("1 x 1", "off"): (
        (0.8, 0.52, 0.42, 0.45, 0.42, 0.4, 4.0, 0.43),
        (143, 111, 166, 175, 172, 106, 109, 105),
        (4358, 6567, 4694, 4595, 4537, 7162, 4526, 6824),
    ),
    ("1 x 1", "on"): (
        (0.62, 0.48, 0.51, 0.41, 0.45, 0.43, 0.79, 2.65),
        (108, 117, 164, 171, 186, 109, 111, 111),
        (6667, 6561, 4455, 4704, 4312, 6960, 5940, 5099),
    ),
}
STEADY: Final = (1.0, 1.01, 0.99, 1.0, 1.005, 0.995, 1.0, 1.0)


def recorded(p99: dict[tuple[str, str], tuple[float, ...]] | None = None) -> LoadTimes:
    """The recorded rounds; some with another p99, in ms."""
    tails = {key: rounds[0] for key, rounds in RECORDED.items()} | (p99 or {})
    seconds = {key: tuple(value * 1e-3 for value in rounds) for key, rounds in tails.items()}
    return LoadTimes(
        ways=("off", "on"),
        cases=tuple(dict.fromkeys(case for case, _ in RECORDED)),
        rates={key: rounds[2] for key, rounds in RECORDED.items()},
        p50=seconds,
        p99=seconds,
        generator=dict.fromkeys(RECORDED, (0.2,) * 8),
        cpu={key: tuple(value * 1e-6 for value in rounds[1]) for key, rounds in RECORDED.items()},
    )


def test_coalescing_is_advised_on_rounds_recorded_where_it_is_cheaper_and_answers_no_later() -> None:
    decision = decide_coalescing(recorded(), "off")
    assert decision.value is True
    assert decision.why.endswith("none costs more, and no p99 gets worse")


@pytest.mark.parametrize("case", ["1 x 32", "10 x 32", "100 x 32", "1 x 1"])
def test_it_is_not_where_the_p99_of_any_request_gets_worse_however_much_cheaper_it_is(case: str) -> None:
    worse = {
        (case, "off"): tuple(9.78 * mood for mood in STEADY),
        (case, "on"): tuple(30.22 * mood for mood in STEADY),
    }
    decision = decide_coalescing(recorded(worse), "off")
    assert decision.value is None
    assert f"cheaper, but its p99 gets worse ({case}: 9.78 to 30.22 ms, 0.32x (0.32 to 0.32) as good)" in decision.why


def test_a_small_loss_that_every_round_shows_counts_and_so_does_a_large_one_that_not_every_round_shows() -> None:
    base = tuple(10.0 * mood for mood in STEADY)
    for on, worse in (
        (tuple(11.0 * mood for mood in STEADY), True),  # a tenth, beyond noise
        ((30.0, 30.0, 9.0, 30.0, 30.0, 9.0, 30.0, 30.0), True),  # threefold, in most rounds
        ((11.0, 12.0, 9.0, 11.0, 12.0, 9.0, 11.0, 12.0), False),  # a tenth, in most rounds: noise
        (tuple(5.0 * mood for mood in STEADY), False),
    ):
        times = recorded({("10 x 32", "off"): base, ("10 x 32", "on"): on})
        assert ("10 x 32" in slower_tails(times, "off").get("on", {})) is worse
        assert decide_coalescing(times, "off").value is (None if worse else True)
    assert gain_of(base, (11.0, 12.0, 9.0, 11.0, 12.0, 9.0, 11.0, 12.0)).median > 1 / TAIL_DOUBT


def test_workers_that_answer_more_requests_but_the_last_ones_later_are_not_advised() -> None:
    key = "100 x 32"
    rates = {(key, "1"): (3000.0,) * 8, (key, "2"): (5000.0,) * 8}
    tails = {(key, "1"): (0.02,) * 8, (key, "2"): (0.015,) * 8}
    times = LoadTimes(("1", "2"), (key,), rates, tails, tails, tails, {})
    assert decide_workers(times, 1, cpus=2.0).value == 2
    decision = decide_workers(replace(times, p99={**tails, (key, "2"): (0.05,) * 8}), 1, cpus=2.0)
    assert decision.value is None
    assert "2: more requests a second, but its p99 gets worse (100 x 32: 20.00 to 50.00 ms" in decision.why
