"""The page is a function of the stored document, and says what was and what was not reached."""

import json
from dataclasses import replace

from benchmarks.serving.ratios import TARGETS
from benchmarks.serving.report import markdown, number
from benchmarks.serving.run import QUICK, Result
from benchmarks.serving.summary import summarise
from benchmarks.serving.workloads import SLOPE, WORKLOADS

MACHINE = {
    "date": "2026-01-02T03:04:05+00:00",
    "processor": "a processor",
    "cores": 2,
    "kernel": "6",
    "python": "3.11",
    "versions": {"uvicorn": "1"},
}


def cell(workload: str, entry: str, per_request_us: float, **facts: object) -> dict[str, object]:
    rows = WORKLOADS[workload].rows
    return {
        "block": "main",
        "round": 0,
        "workload": workload,
        "entry": entry,
        "mode": "closed",
        "noise": 0.0,
        "errors": 0,
        "requests": 1000,
        "busy": 1.0,
        "requests_per_second": 1e6 / per_request_us,
        "rows_per_second": rows * 1e6 / per_request_us,
        "rows_per_cpu_second": rows * 1e6 / per_request_us,
        "cpu_us": per_request_us,
        "kernel_us": 5.0,
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "max_ms": 3.0,
        "lag_p99_ms": 0.01,
        **facts,
    }


def result() -> Result:
    stages = {"queue": 1.0, "decode": 2.0, "encode": 3.0, "infer": 4.0, "respond": 5.0}
    records = [cell("one_row", "service.rows", 50, stages_us=stages), cell("one_row", "service_log_off.rows", 39)]
    records += [cell("one_row", "noop_one_row.rows", 20), cell("one_row", "tutorial.rows", 150)]
    for name in SLOPE:
        records.append(cell(name, "service.columns", 40 + 1.2 * WORKLOADS[name].rows))
        records.append(cell(name, "floor.columns", 20 + 1.0 * WORKLOADS[name].rows))
    records += [
        cell("rank1000", "service.columns", 1240, mode="open", purpose="load", load=0.25, rate=200, p999_ms=3.0),
        cell("one_row", "floor.context", 10, mode="context", many_us=10.0, few_us=6.0, difference_us=4.0),
    ]
    kinds = {"service": "service", "service_log_off": "service", "tutorial": "tutorial", "noop_one_row": "floor"}
    failed = {"broken": "it ended\nwith 1"}
    return Result(
        records, kinds, "tutorial.rows", "listwise.listwise", failed, profiles={"one_row rows": {"perf": {"libc": 0.5}}}
    )


def test_a_document_survives_being_stored_and_gives_the_same_page() -> None:
    document = summarise(result(), machine=MACHINE, command="make bench-serving")
    stored = json.loads(json.dumps(document, allow_nan=False))
    assert markdown(stored) == markdown(document)


def test_every_target_stands_beside_what_was_measured_met_or_not() -> None:
    document = summarise(result(), machine=MACHINE, command="make bench-serving")
    assert set(document["targets"]) == set(TARGETS)
    assert document["ratios"]["one_row_vs_noop_asgi"] == 0.4
    assert document["targets"]["one_row_vs_noop_asgi"]["met"] is True
    assert document["targets"]["one_row_vs_tutorial"]["met"] is False  # 3 of 4
    assert document["targets"]["best_peer_p99"]["met"] is None
    assert round(document["ratios"]["slope_vs_floor"], 6) == 1.2
    page = markdown(document)
    lines = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert set(lines) == set(TARGETS)
    assert lines["one_row_vs_tutorial"].endswith("**not met** |")
    assert lines["best_peer_p99"].endswith("not measured |")
    assert "make bench-serving PEERS=DIR" in page
    assert "`broken` could not take part: it ended with 1" in page


def test_what_others_disturbed_in_every_round_is_said_to_be() -> None:
    measured = result()
    for record in measured.records:
        record["noise"] = 0.5
    page = markdown(summarise(measured, machine=MACHINE, command=""))
    lines = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert lines["one_row_vs_noop_asgi"].endswith("| met; disturbed |")
    assert "0.4 *" in lines["one_row_vs_noop_asgi"]
    assert lines["best_peer_p99"].endswith("| not measured |")


def test_stages_and_what_is_left_for_http_add_up_to_all() -> None:
    document = summarise(result(), machine=MACHINE, command="make bench-serving")
    (row,) = document["stages"]
    assert row["decode"] + row["encode"] + row["infer"] + row["respond"] + row["rest_us"] == row["cpu_us"] == 50
    assert row["noop_us"] == 20
    assert {name: line["slope"] for name, line in document["lines"].items()} == {"service": 1.2, "floor": 1.0}


def test_what_is_left_for_http_is_told_only_of_undisturbed_rounds_and_never_negative() -> None:
    stages = {"queue": 1.0, "decode": 2.0, "encode": 3.0, "infer": 4.0, "respond": 5.0}
    for facts in ({"noise": 0.5}, {"stages_us": {**stages, "infer": 400.0}}):
        measured = result()
        measured.records[0].update(facts)
        (row,) = summarise(measured, machine=MACHINE, command="")["stages"]
        assert row["rest_us"] is None
        assert row["cpu_us"] == 50


def test_stages_are_of_undisturbed_rounds_where_there_are_any() -> None:
    measured = result()
    measured.records.append(cell("one_row", "service.rows", 90, round=1, noise=0.5, stages_us={"infer": 400.0}))
    (row,) = summarise(measured, machine=MACHINE, command="")["stages"]
    assert (row["infer"], row["rest_us"]) == (4.0, 36.0)


def test_cells_that_were_not_used_are_listed_with_the_reason() -> None:
    measured = result()
    measured.kinds["peer"] = "model server"
    measured.records += [
        cell("one_row", "peer.rows", 60, errors=7, error_kinds={"status": 7}),
        cell("one_row", "peer.rows", 60, errors=7, error_kinds={"status": 7}, round=1),
        cell("rank1000", "service.columns", 9, mode="open", purpose="load", load=0.5, generator_bound="lag"),
        {"workload": "one_row", "entry": "tutorial.rows", "mode": "open", "errors": 0, "error": "/a/b/wrk hung"},
    ]
    document = summarise(measured, machine=MACHINE, command="")
    page = markdown(document)
    assert "| 1 row | `peer.rows` | closed | 7 errors among 1000 answers (status 7) | 2 |" in page
    assert "| 1 context + 1000 candidates | `service.columns` | open, 50% load | generator-bound: lag | 1 |" in page
    assert "| 1 row | `tutorial.rows` | open | .../wrk hung | 1 |" in page
    assert "rank1000_p99_vs_p50_at_50" not in document["ratios"]
    assert [row["requests_per_second"] for row in document["throughput"]["one_row"] if row["server"] == "peer"] == [
        None
    ]
    assert [row["errors"] for row in document["throughput"]["one_row"] if row["server"] == "peer"] == [14]


def test_a_lead_over_all_others_says_whom_it_leaves_out() -> None:
    measured = result()
    measured.kinds |= {"peer": "model server", "gone": "model server", "good": "model server"}
    measured.failed["gone"] = "it ended"
    measured.records += [cell("one_row", "peer.rows", 60, errors=7), cell("one_row", "good.rows", 200)]
    document = summarise(measured, machine=MACHINE, command="")
    assert document["ratios"]["best_peer_throughput"] == 3.0  # the tutorial's
    assert "without gone, peer.rows at one_row" in document["targets"]["best_peer_throughput"]["notes"]
    lines = [line for line in markdown(document).splitlines() if line.startswith("| `best_peer_throughput`")]
    assert lines[0].endswith("met; without gone, peer.rows at one_row |")


def test_a_lead_that_could_not_be_measured_says_for_want_of_whom() -> None:
    measured = result()
    measured.kinds |= {"peer": "model server"}
    measured.records.append(
        cell("one_row", "peer.rows", 60, mode="open", purpose="common rate", generator_bound="lag"),
    )
    target = summarise(measured, machine=MACHINE, command="")["targets"]["best_peer_p99"]
    assert target["met"] is None
    assert target["notes"] == ["without peer.rows at one_row, tutorial.rows at one_row"]


def test_a_ratio_to_a_no_op_that_the_generator_held_back_is_an_upper_bound() -> None:
    measured = result()
    for record in measured.records:
        if record["entry"] == "noop_one_row.rows":
            record |= {"generator_cpu": 0.95, "rows_per_cpu_second": 1e5}
    document = summarise(measured, machine=MACHINE, command="")
    (line,) = [one for one in markdown(document).splitlines() if one.startswith("| `one_row_vs_noop_asgi`")]
    assert line.endswith("| 0.2 | met; an upper bound: the generator was too busy |")


def test_the_method_tells_the_lengths_and_retries_that_were_used() -> None:
    measured = result()
    measured.lengths = replace(QUICK, rounds=7, retries=5, retry_seconds=77)
    page = " ".join(markdown(summarise(measured, machine=MACHINE, command="")).split())
    assert "Closed loop: 7 rounds" in page
    assert "Up to 5 time(s) more" in page
    assert "All repeats together take 77 s" in page


def test_figures_without_a_target_are_told_beside_the_others() -> None:
    measured = result()
    measured.records.append(cell("one_row", "service_coalesced.rows", 25))
    page = markdown(summarise(measured, machine=MACHINE, command=""))
    assert "- `one_row_coalesced_vs_noop_asgi`: 0.8 " in page
    assert "not as shipped" in page


def test_the_prediction_is_the_queue_of_the_measured_service_time() -> None:
    (row,) = summarise(result(), machine=MACHINE, command="")["loads"]
    assert row["service_ms"] == row["predicted_p50_ms"] == 1.24
    assert 2.6 < row["predicted_ratio"] < 2.7


def test_numbers_keep_three_digits_that_mean_something() -> None:
    assert [number(value) for value in (None, 0.12345, 12.345, 123.45, 12345.6)] == [
        "–",
        "0.123",
        "12.3",
        "123",
        "12,346",
    ]
