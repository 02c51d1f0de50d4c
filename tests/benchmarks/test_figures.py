"""Ratios, lines and targets on records written by hand."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from benchmarks.serving.figures import Figure, fit_line, ratio, typical
from benchmarks.serving.ratios import ALL_RIVALS, COMMON_RATE, LOAD, RATIOS, TARGETS, Sheet, Target, ahead, missing
from benchmarks.serving.run import Result, common_rates

TOP, BOTTOM = ("one_row", "service.rows"), ("one_row", "tutorial.rows")


def record(cell: tuple[str, str], turn: int, value: float, *, noise: float = 0.0, **facts: object) -> dict[str, object]:
    measured = {"rows_per_second": value, "p99_ms": value, "cpu_us": value, "rows_per_cpu_second": value}
    where = {"block": "main", "round": turn, "workload": cell[0], "entry": cell[1], "mode": "closed", "noise": noise}
    return {**where, **measured, **facts}


def test_a_ratio_is_of_the_same_round_and_its_median_is_told() -> None:
    records = [record(TOP, turn, 10.0 * (turn + 1)) for turn in range(3)]
    records += [record(BOTTOM, turn, 5.0 * (turn + 1) ** 2) for turn in range(3)]
    # 10/5, 20/20, 30/45
    assert ratio(records, TOP, BOTTOM, "rows_per_second") == Figure(1.0, 30 / 45, 2.0, 3)


def test_a_disturbed_round_counts_only_where_there_is_no_other() -> None:
    records = [record(TOP, 0, 10), record(TOP, 1, 99, noise=0.5), record(BOTTOM, 0, 5), record(BOTTOM, 1, 5)]
    assert ratio(records, TOP, BOTTOM, "rows_per_second") == Figure(2.0, 2.0, 2.0, 1)
    assert typical(records, TOP, "rows_per_second") == 10
    for one in records:
        one["noise"] = 0.5
    noisy = ratio(records, TOP, BOTTOM, "rows_per_second")
    assert noisy is not None
    assert noisy.noisy
    assert noisy.rounds == 2


@pytest.mark.parametrize("fault", [{"errors": 1}, {"generator_bound": "send lag"}, {"error": "it hung"}])
def test_a_cell_that_failed_or_that_the_generator_held_back_is_in_no_figure(fault: Mapping[str, object]) -> None:
    records = [record(TOP, 0, 10), record(BOTTOM, 0, 5), record(TOP, 1, 90, **fault), record(BOTTOM, 1, 5)]
    assert ratio(records, TOP, BOTTOM, "rows_per_second") == Figure(2.0, 2.0, 2.0, 1)
    assert typical(records, TOP, "rows_per_second") == 10
    assert ratio(records[2:], TOP, BOTTOM, "rows_per_second") is None
    tails = sheet()
    for one in tails.records:
        if one.get("purpose") == LOAD:
            one.update(fault)
    assert RATIOS["rank1000_p99_vs_p50_at_25"](tails) is None


@pytest.mark.parametrize(
    ("top", "bottom", "bound"), [(0.7, 0.8, ""), (0.7, 0.9, "upper"), (0.9, 0.7, "lower"), (0.9, 0.9, "unknown")]
)
def test_a_busy_generator_makes_a_ratio_a_bound(top: float, bottom: float, bound: str) -> None:
    records = [record(TOP, 0, 10, generator_cpu=top), record(BOTTOM, 0, 5, generator_cpu=bottom)]
    by_clock, by_time = (ratio(records, TOP, BOTTOM, name) for name in ("rows_per_second", "rows_per_cpu_second"))
    assert by_clock is not None
    assert by_time is not None
    assert (by_clock.bound, by_time.bound) == (bound, "")


def test_the_common_rate_is_half_of_what_the_slowest_server_takes() -> None:
    rates = {"service.rows": 40.0, "fast.rows": 10.0, "slow.rows": 2.0, "noop_one_row.rows": 1.0}
    records = [record(("one_row", entry), 0, 1, requests_per_second=rate) for entry, rate in rates.items()]
    kinds = {"service": "service", "fast": "model server", "slow": "model server", "noop_one_row": "floor"}
    assert common_rates(Result(records, kinds, "", "")) == {"one_row": 1.0}


def test_rounds_of_different_blocks_are_never_paired() -> None:
    records = [record(TOP, 0, 10), record(BOTTOM, 0, 5, block="ray_serve")]
    assert ratio(records, TOP, BOTTOM, "rows_per_second") is None


def test_the_line_through_points_on_a_line_is_that_line() -> None:
    line = fit_line([(n, 30.0 + 1.5 * n) for n in (1, 10, 100, 1000)])
    assert (line.fixed, line.slope) == (pytest.approx(30), pytest.approx(1.5))
    assert line.worst == pytest.approx(0, abs=1e-9)
    assert fit_line([(1, 10), (10, 10), (100, 130)]).worst > 0.1
    with pytest.raises(ValueError, match="two or more"):
        fit_line([(1, 10)])


def sheet() -> Sheet:
    """The service, its tutorial, one model server twice as fast as the tutorial, and one slower."""
    records = []
    for workload, form in (("one_row", "rows"), ("rank100", "columns")):
        values = {f"service.{form}": 40, "tutorial.rows": 5, "fast.rows": 10, "slow.rows": 2}
        records += [record((workload, entry), 0, value) for entry, value in values.items()]
        latencies = {f"service.{form}": 1, "tutorial.rows": 4, "fast.rows": 7, "slow.rows": 3}
        records += [
            record((workload, entry), 0, value, mode="open", purpose=COMMON_RATE) for entry, value in latencies.items()
        ]
    records += [
        record(("rank1000", "service.columns"), turn, 3.0, mode="open", purpose=LOAD, load=0.25, p50_ms=1.5)
        for turn in range(2)
    ]
    return Sheet(
        records, {"service": "service", "tutorial": "tutorial", "fast": "model server", "slow": "model server"}
    )


def test_the_lead_over_the_best_is_the_smallest_lead() -> None:
    found = sheet()
    throughput = RATIOS["best_peer_throughput"](found)
    latency = RATIOS["best_peer_p99"](found)
    assert throughput is not None
    assert latency is not None
    assert throughput.value == 4.0  # over "fast"
    assert latency.value == 3.0  # over "slow", which answers soonest
    leads = ahead(found, ["model server"], latency=False)
    assert {entry: figure.value for entry, figure in leads["one_row"].items()} == {"fast.rows": 4.0, "slow.rows": 20.0}


def test_rivals_that_could_not_be_compared_are_named() -> None:
    found = sheet()
    assert missing(found, ALL_RIVALS, latency=False) == missing(found, ALL_RIVALS, latency=True) == []
    for one in found.records:
        if one["entry"] == "fast.rows" and one["workload"] == "one_row" and one["mode"] == "closed":
            one["errors"] = 7
        if one["entry"] == "slow.rows" and one["workload"] == "rank100" and one["mode"] == "open":
            one["error"] = "it hung"
    found = replace(found, kinds={**found.kinds, "gone": "model server"}, failed={"gone": "it ended"})
    assert missing(found, ALL_RIVALS, latency=False) == ["gone", "fast.rows at one_row"]
    assert missing(found, ALL_RIVALS, latency=True) == ["gone", "slow.rows at rank100"]


def test_without_other_model_servers_nothing_is_claimed_of_them() -> None:
    alone = Sheet([one for one in sheet().records if "ast" not in str(one["entry"])], {"tutorial": "tutorial"})
    assert RATIOS["best_peer_throughput"](alone) is None


def test_a_tail_is_told_at_the_load_it_was_measured_at() -> None:
    found = RATIOS["rank1000_p99_vs_p50_at_25"](sheet())
    assert found is not None
    assert found.value == 2.0
    assert RATIOS["rank1000_p99_vs_p50_at_50"](sheet()) is None


def test_every_target_is_of_a_figure_and_says_when_it_is_met() -> None:
    assert set(TARGETS) <= set(RATIOS)
    assert Target("", 4).met(4)
    assert not Target("", 4).met(3.9)
    assert Target("", 2, at_least=False).met(1.9)
    between = Target("", 1.5, at_least=False, lowest=0.5)
    assert [between.met(value) for value in (0.4, 0.5, 1.5, 1.6)] == [False, True, True, False]
    assert between.expected == "0.5 to 1.5"
