"""Trace context, spans in a real collector, log lines and `Server-Timing` of a real server."""

from __future__ import annotations

import itertools
import re
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from otlp import attributes, collecting
from processes import count_all, wait_for
from serving import MODEL_ID, ROW_CANDIDATES, ROW_CONTEXT, Server, serving

from service import VERSION
from service.tracing.context import read_traceparent

if TYPE_CHECKING:
    from pathlib import Path

GOOD = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES, "request_id": "r-1"}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = ["queue", "decode", "encode", "infer", "respond"]


def test_a_traceparent_is_read_as_the_standard_says() -> None:
    assert read_traceparent(f"00-{TRACE}-{SPAN}-01".encode()) == (TRACE, SPAN, True)
    assert read_traceparent(f" 00-{TRACE}-{SPAN}-00 ".encode()) == (TRACE, SPAN, False)
    assert read_traceparent(f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like".encode()) == (TRACE, SPAN, True)
    for bad in (
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}{SPAN}-01",
        "",
    ):
        assert read_traceparent(bad.encode()) is None, bad


@given(st.binary(max_size=80))
def test_whatever_a_client_sends_as_traceparent_is_read_or_left(value: bytes) -> None:
    assert read_traceparent(value) is None or len(value) >= 55


def ask(server: Server, traceparent: str | None = None, body: Any = GOOD) -> httpx.Response:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    return httpx.post(f"{server.url}/score", json=body, headers=headers)


def outcomes(server: Server) -> dict[str, float]:
    counts = count_all(server)
    return {
        name: counts[f'reaction_traced_requests_total{{outcome="{name}"}}']
        for name in ("exported", "failed", "lagging")
    }


def test_a_request_whose_caller_records_it_becomes_spans_under_the_caller_s(bundle: Path) -> None:
    before = time.time_ns()
    with collecting() as collector, serving(bundle, trace_url=collector.url, trace_ratio=0) as server:
        ask(server)
        ask(server, f"00-{TRACE}-{SPAN}-00")
        ask(server, "00-nonsense")
        assert ask(server, f"00-{TRACE}-{SPAN}-01").status_code == 200
        ask(server, f"00-{TRACE}-{SPAN}-03", {**GOOD, "candidates": [{"ad": 1.5}], "request_id": "r-2"})
        long = {**GOOD, "candidates": ROW_CANDIDATES * 1000, "request_id": "r-3"}
        assert ask(server, f"00-{TRACE}-{SPAN}-01", long).status_code == 200  # in a worker thread, not in the lane
        wait_for(lambda: outcomes(server)["exported"] == 3, "three are sent")
    assert {span.trace_id for span in collector.spans} == {TRACE}
    roots = {attributes(span)["reaction.request_id"]: span for span in collector.spans if span.parent_span_id == SPAN}
    assert set(roots) == {"r-1", "r-2", "r-3"}
    for name, candidates in (("r-1", 3), ("r-3", 3000)):
        root = roots[name]
        assert (root.name, root.kind, root.status.code) == ("POST /score", 2, 0)
        assert attributes(root) == {
            "http.request.method": "POST",
            "http.route": "/score",
            "http.response.status_code": 200,
            "reaction.request_id": name,
            "reaction.model": MODEL_ID,
            "reaction.candidates": candidates,
        }
        assert before <= root.start_time_unix_nano <= root.end_time_unix_nano <= time.time_ns()
        stages = [span for span in collector.spans if span.parent_span_id == root.span_id]
        assert [span.name for span in stages] == STAGES
        assert stages[0].start_time_unix_nano == root.start_time_unix_nano
        assert stages[-1].end_time_unix_nano == root.end_time_unix_nano
        for one, other in itertools.pairwise(stages):
            assert one.start_time_unix_nano <= one.end_time_unix_nano == other.start_time_unix_nano
    assert attributes(roots["r-2"])["http.response.status_code"] == 422
    ids = [span.span_id for span in collector.spans]
    assert len(set(ids)) == len(ids)
    assert collector.resources[0]["service.name"] == "reaction"
    assert collector.resources[0]["service.version"] == VERSION


def test_requests_that_leave_it_open_are_drawn_and_a_collector_that_is_away_loses_spans_and_no_request(
    bundle: Path,
) -> None:
    with collecting() as collector, serving(bundle, trace_url=collector.url, trace_ratio=1) as server:
        collector.status = 503
        for _ in range(20):
            assert ask(server).status_code == 200
        wait_for(lambda: sum(outcomes(server).values()) == 20, "each is counted")
        assert outcomes(server) == {"exported": 0, "failed": 20, "lagging": 0}
        collector.status = 200
        assert ask(server).status_code == 200
        wait_for(lambda: outcomes(server)["exported"] == 1, "it goes on")
    (root,) = [span for span in collector.spans if not span.parent_span_id]
    assert re.fullmatch(r"[0-9a-f]{32}", root.trace_id)
    assert [line["event"] for line in server.log if line["event"].startswith("tracing")] == [
        "tracing_failed",
        "tracing_goes_on",
    ]


def test_log_lines_name_the_trace_and_answers_their_timing_where_that_is_asked_for(bundle: Path) -> None:
    with serving(bundle, request_log_ratio=1, server_timing=True) as server:
        answer = ask(server, f"00-{TRACE}-{SPAN}-00")
        timing = answer.headers["server-timing"]
        long = ask(server, None, {**GOOD, "candidates": ROW_CANDIDATES * 1000}).headers["server-timing"]
        tensors = {"inputs": [{"name": "ad", "datatype": "BYTES", "shape": [1], "data": ["a1"]}]}
        assert "server-timing" in httpx.post(f"{server.url}/v2/models/{MODEL_ID}/infer", json=tensors).headers
    traced, untraced, _ = [line for line in server.log if line["event"] == "request"]
    assert (traced["trace_id"], traced["request_id"]) == (TRACE, "r-1")
    assert "trace_id" not in untraced
    for text in (timing, long):
        stages = re.findall(r"(\w+);dur=(\d+\.\d{3})", text)
        assert [name for name, _ in stages] == STAGES[:-1]
    assert float(re.findall(r"infer;dur=([\d.]+)", long)[0]) > 0
    with serving(bundle) as server:
        assert "server-timing" not in ask(server).headers


@pytest.mark.parametrize("url", ["otel:4318", "ftp://otel", "http://", "http://user:password@otel"])
def test_a_collector_s_address_that_is_none_is_refused_at_the_start(url: str, bundle: Path) -> None:
    from service.settings import SettingsError, load_settings

    with pytest.raises(SettingsError, match="REACTION_TRACE_URL"):
        load_settings(bundle=bundle, trace_url=url)
