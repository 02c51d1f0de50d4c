"""What is advised on measurements: those that show a gain, those that do not, and those that only seem to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from service.advise.compare import CONFIDENCE, FEWEST_ROUNDS, MARGIN, Verdict, gain_of, interval
from service.advise.decisions import (
    decide_coalescing,
    decide_inline_bytes,
    decide_model_threads,
    decide_precision,
    decide_workers,
    load_gains,
)
from service.advise.measured import CallTimes, CrossoverPoint, LoadTimes
from service.advise.tables import call_table, crossover_table, load_table

STEADY = (1.0, 1.01, 0.99, 1.0, 1.005, 0.995, 1.0, 1.0)
NOISY = (1.0, 1.6, 0.7, 1.2, 0.9, 1.4, 0.8, 1.1)


def calls(rest: float = 10e-6, **ways: dict[str, tuple[float, tuple[float, ...]]]) -> CallTimes:
    """Times from seconds and a pattern of noise, by way and case."""
    cases = tuple(next(iter(ways.values())))
    seconds = {
        (case, way): tuple(base * factor for factor in noise)
        for way, found in ways.items()
        for case, (base, noise) in found.items()
    }
    return CallTimes(tuple(ways), cases, seconds, dict.fromkeys(cases, rest))


def loads(**ways: dict[str, tuple[float, tuple[float, ...]]]) -> LoadTimes:
    times = calls(**ways)
    some = {key: (1e-3,) * len(rounds) for key, rounds in times.seconds.items()}
    return LoadTimes(times.ways, times.cases, times.seconds, some, some, some, {})


# ---- comparing


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_the_interval_is_the_narrowest_pair_of_order_statistics_that_hold_the_median_often_enough(
    values: list[float],
) -> None:
    ordered, count = sorted(values), len(values)
    kept = [k for k in range((count + 1) // 2) if 1 - 2 * binom.cdf(k, count, 0.5) >= CONFIDENCE]
    left_out = max(kept, default=0)
    assert interval(values) == (ordered[left_out], ordered[count - 1 - left_out])


def test_two_ways_that_are_the_same_are_seldom_told_apart_and_a_quarter_faster_nearly_always() -> None:
    rng = np.random.default_rng(3)
    verdicts: dict[float, list[Verdict]] = {1.0: [], 1.25: []}
    for speed, found in verdicts.items():
        for _ in range(1000):
            # The machine's mood lasts for a round, and is worse than what is to be found.
            mood = rng.lognormal(0.0, 0.5, 8)
            present, other = mood * rng.lognormal(0, 0.03, 8), mood * rng.lognormal(0, 0.03, 8) / speed
            found.append(gain_of(present.tolist(), other.tolist()).verdict)
    assert np.mean([verdict is not Verdict.NOISE for verdict in verdicts[1.0]]) < 0.01
    assert np.mean([verdict is Verdict.GAINS for verdict in verdicts[1.25]]) > 0.98


def test_few_rounds_say_nothing_however_clear_they_look() -> None:
    few = FEWEST_ROUNDS - 1
    assert gain_of([2.0] * few, [1.0] * few).verdict is Verdict.NOISE
    assert gain_of([2.0] * FEWEST_ROUNDS, [1.0] * FEWEST_ROUNDS).verdict is Verdict.GAINS
    with pytest.raises(ValueError, match="as many of both ways, got 1 and 2"):
        gain_of([1.0], [1.0, 2.0])


def test_of_seconds_less_is_better_and_of_rates_more() -> None:
    assert gain_of([2.0] * 8, [1.0] * 8).median == 2.0
    assert gain_of([2.0] * 8, [1.0] * 8, of_rates=True).median == 0.5
    assert gain_of([2.0] * 8, [1.0] * 8, of_rates=True).verdict is Verdict.LOSES


# ---- precision


def test_a_precision_that_is_faster_somewhere_and_slower_nowhere_is_advised() -> None:
    times = calls(
        float32={"1": (10e-6, STEADY), "1000": (900e-6, STEADY)},
        float16={"1": (10e-6, STEADY), "1000": (700e-6, STEADY)},
        int8={"1": (10.1e-6, STEADY), "1000": (500e-6, STEADY)},
    )
    decision = decide_precision(times, "float32", {"float16": 0.5, "int8": 0.3})
    assert (decision.setting, decision.value) == ("precision", "int8")
    assert "a request of 1000 is 1.78x" in decision.why


@pytest.mark.parametrize(
    ("int8", "why"),
    [
        (
            {"1": (13e-6, STEADY), "1000": (500e-6, STEADY)},
            "a gain in some requests, and in others it looks dearer (int8)",
        ),
        ({"1": (10e-6, STEADY), "1000": (850e-6, NOISY)}, "nothing gains more than 3% beyond noise; where memory"),
        ({"1": (10e-6, STEADY), "1000": (890e-6, STEADY)}, "int8 takes 30% of float32's memory"),
        ({"1": (10e-6, STEADY), "1000": (990e-6, STEADY)}, "and there is a loss with int8; where memory"),
    ],
    ids=["costs elsewhere", "noise", "within the margin", "slower"],
)
def test_a_precision_that_does_not_clearly_gain_is_not(
    int8: dict[str, tuple[float, tuple[float, ...]]], why: str
) -> None:
    times = calls(float32={"1": (10e-6, STEADY), "1000": (900e-6, STEADY)}, int8=int8)
    decision = decide_precision(times, "float32", {"int8": 0.3})
    assert decision.value is None
    assert why in decision.why


def test_a_call_twice_as_fast_is_nothing_where_the_rest_of_a_request_takes_a_hundred_times_as_long() -> None:
    ways = {"float32": {"1": (10e-6, STEADY)}, "int8": {"1": (5e-6, STEADY)}}
    assert decide_precision(calls(rest=0.0, **ways), "float32", {}).value == "int8"
    assert decide_precision(calls(rest=1e-3, **ways), "float32", {}).value is None


def test_of_one_precision_there_is_nothing_to_choose() -> None:
    decision = decide_precision(calls(float32={"1": (1e-5, STEADY)}), "float32", {})
    assert (decision.value, decision.why) == (None, "the bundle holds no other precision")


# ---- threads and workers


def test_threads_are_advised_only_where_no_worker_wants_their_cpus() -> None:
    times = calls(**{"1": {"1000": (900e-6, STEADY)}, "2": {"1000": (500e-6, STEADY)}})
    assert decide_model_threads(times, 1, cpus=4.0, workers=2).value == 2
    taken = decide_model_threads(times, 1, cpus=4.0, workers=4)
    assert taken.value is None
    assert "2 threads make a request of 1000 1.78x" in taken.why
    assert "with 4 workers on 4 CPUs they take another worker's" in taken.why


def test_what_one_cpu_does_not_show_is_said_to_be_not_measured() -> None:
    for decision in (decide_model_threads(None, 1, cpus=1.0, workers=1), decide_workers(None, 1, cpus=1.5)):
        assert decision.value is None
        assert decision.why.startswith("not measured: 1")


def test_other_workers_are_advised_only_beyond_noise() -> None:
    def ways(two: float, noise: tuple[float, ...]) -> LoadTimes:
        return loads(**{"1": {"load": (5000.0, STEADY)}, "2": {"load": (two, noise)}})

    assert decide_workers(ways(9000.0, STEADY), 1, cpus=2.0).value == 2
    assert decide_workers(ways(5600.0, NOISY), 1, cpus=2.0).value is None
    assert decide_workers(ways(9000.0, STEADY), 2, cpus=2.0).value is None  # it is the present one


# ---- coalescing


def coalescing(small: float, large: float, idle: float, noise: tuple[float, ...] = STEADY) -> LoadTimes:
    """Rates with coalescing, over those without."""
    return loads(
        off={"small": (10_000.0, STEADY), "large": (3000.0, STEADY), "idle": (7000.0, STEADY)},
        on={"small": (10_000 * small, noise), "large": (3000 * large, noise), "idle": (7000 * idle, noise)},
    )


def test_coalescing_is_advised_where_it_gains_and_costs_nobody() -> None:
    decision = decide_coalescing(coalescing(1.3, 1.0, 0.99), "off")
    assert (decision.present, decision.value) == (False, True)
    assert "1.30x (1.30 to 1.30) the requests a second (small)" in decision.why


@pytest.mark.parametrize(
    ("times", "why"),
    [
        (coalescing(1.3, 0.9, 1.0), "at worst 0.90x (0.90 to 0.90) the requests a second (large)"),
        (coalescing(1.3, 1.0, 0.9), "at worst 0.90x (0.90 to 0.90) the requests a second (idle)"),
        (coalescing(1.02, 1.0, 1.0), "nothing gains more than 3%"),
        (coalescing(1.2, 1.0, 1.0, NOISY), "nothing gains more than 3% beyond noise"),
    ],
    ids=["large requests lose", "idle loses", "within the margin", "noise"],
)
def test_coalescing_is_not_advised_where_it_costs_somebody_or_does_not_clearly_gain(times: LoadTimes, why: str) -> None:
    decision = decide_coalescing(times, "off")
    assert decision.value is None
    assert why in decision.why


def test_processor_time_decides_where_it_is_known_unless_the_rate_falls() -> None:
    noisy = coalescing(1.3, 1.0, 1.0, NOISY)
    cheaper = {key: tuple(1 / rate for rate in STEADY) for key in noisy.rates}
    cheaper |= {("small", "on"): tuple(0.7 / rate for rate in STEADY)}
    decision = decide_coalescing(replace(noisy, cpu=cheaper), "off")
    assert decision.value is True
    assert "1.43x (1.43 to 1.43) the requests for the same processor time (small)" in decision.why
    falling = decide_coalescing(replace(coalescing(1.3, 0.9, 1.0), cpu=cheaper), "off")
    assert falling.value is None
    assert "cheaper, but fewer requests a second (large)" in falling.why


def test_coalescing_that_is_on_and_costs_is_advised_off() -> None:
    decision = decide_coalescing(coalescing(0.8, 0.8, 0.99), "on")
    assert (decision.present, decision.value) == (True, False)


# ---- the event loop or a thread


def point(body_bytes: int, benefit: float, spread: float = 0.0, form: str = "rows") -> CrossoverPoint:
    """A body that blocks for a millisecond, and a thread that is worth a benefit in microseconds."""
    rounds = [benefit + spread * step for step in (-1, -0.5, 0, 0, 0, 0, 0.5, 1)]
    return CrossoverPoint(form, 1, body_bytes, (1e-3,) * 8, (1.1e-3,) * 8, tuple(0.9e-3 - b * 1e-6 for b in rounds))


def test_the_benefit_is_what_the_loop_is_spared_less_what_the_request_loses() -> None:
    measured = CrossoverPoint("rows", 1, 1, (10.0,) * 8, (12.0,) * 8, (3.0,) * 8)
    assert measured.median_benefit == (10 - 3) - (12 - 10)
    assert point(1, 25).median_benefit == pytest.approx(25e-6)


@pytest.mark.parametrize(
    ("benefits", "present", "advised"),
    [
        ({1_000: -100, 10_000: -50, 100_000: 200}, 65_536, None),  # it lies where the sign changes
        ({1_000: -100, 10_000: 50, 100_000: 200}, 200_000, 3162),  # between the two, on a scale of ratios
        ({1_000: -100, 10_000: -50, 100_000: -20}, 5_000, 100_000),  # nothing measured gains
        ({1_000: -100, 10_000: -50, 100_000: -20}, 200_000, None),
        ({1_000: 100, 10_000: 50, 100_000: 20}, 65_536, 31),  # everything gains: below the smallest
        ({1_000: -100, 10_000: 50, 100_000: -20}, 65_536, None),  # that is no limit
    ],
)
def test_the_limit_moves_to_where_threads_begin_to_gain(
    benefits: dict[int, float], present: int, advised: int | None
) -> None:
    points = [point(size, benefit) for size, benefit in benefits.items()]
    decision = decide_inline_bytes(points, present, 4_000_000)
    assert (decision.value is None) == (advised is None)
    assert decision.value is None or decision.value == advised


def test_the_limit_moves_over_lengths_that_say_so_beyond_noise_and_stops_at_the_first_that_does_not() -> None:
    up = [point(1_000, -100), point(10_000, -50), point(20_000, -50), point(30_000, -5, 50), point(40_000, -50)]
    assert decide_inline_bytes(up, 5_000, 4_000_000).value == 20_000
    assert decide_inline_bytes(up, 25_000, 4_000_000).value is None
    assert decide_inline_bytes(up, 5_000, 15_000).value == 15_000  # no longer body is taken
    down = [point(1_000, 50), point(10_000, 5, 50), point(20_000, 50), point(40_000, 50)]
    decision = decide_inline_bytes(down, 65_536, 4_000_000)
    assert (decision.value, decision.why) == (14_142, "rows: a thread gains from 20,000 bytes on")
    unmoved = decide_inline_bytes(down, 15_000, 4_000_000)
    assert unmoved.value is None
    assert "10,000 bytes (no difference beyond noise) and 20,000 bytes (thread gains)" in unmoved.why


def test_forms_that_do_not_agree_move_nothing_and_of_those_that_do_the_smaller_counts() -> None:
    rows = [point(1_000, -100), point(10_000, 50)]
    agreeing = [point(100, -100, form="columns"), point(1_000, 50, form="columns")]
    disagreeing = [point(100_000, -100, form="columns"), point(1_000_000, 50, form="columns")]
    assert decide_inline_bytes(rows + agreeing, 65_536, 4_000_000).value == 316
    assert decide_inline_bytes(rows + disagreeing, 65_536, 4_000_000).value is None


# ---- shown


def test_tables_say_of_every_comparison_what_the_decision_saw() -> None:
    slower = calls(float32={"1": (10e-6, STEADY)}, int8={"1": (20e-6, STEADY)})
    assert [row[-1] for row in call_table("", "", slower, "float32").rows] == ["", "loses"]
    times = coalescing(1.3, 1.0, 1.0)
    rates = load_table("", times, "off", label="", gains=load_gains(times, "off")).rows
    assert [row[-1] for row in rates] == ["", "gains", "", *["no difference beyond noise", ""] * 2][:-1]
    shown = crossover_table([point(1, -9), point(2, 0, 5), point(3, 9)]).rows
    assert [row[-1] for row in shown] == ["thread loses", "no difference beyond noise", "thread gains"]
    assert MARGIN < 0.05
