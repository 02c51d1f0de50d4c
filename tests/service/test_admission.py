"""Admission of long requests, against real servers: one whose only worker thread never gets free, one that learns."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import httpx
import numpy as np
import pytest
from processes import count_all, wait_for
from serving import ROW_CANDIDATES, ROW_CONTEXT, HandModel, Server, build_bundle, serving, start

from service.admission import Gate
from service.metrics import ServiceMetrics
from service.pipeline import Stages, Work

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHORT = json.dumps({"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}).encode()
# 70,000 bytes: taken for 1,094 candidates as long as none was scored; a hundred are in it, one more keeps a thread.
LONG = json.dumps({"candidates": [{"ad": "a1"}] * 100}).encode().ljust(70_000)
ENDLESS = json.dumps({"candidates": [{"ad": "a1"}] * 101}).encode().ljust(70_000)
JSON = {"content-type": "application/json"}
PROBES = ("/livez", "/readyz", "/startupz", "/v2/health/live", "/metrics")


def shed(server: Server) -> dict[str, int]:
    counts = count_all(server)
    start_ = 'reaction_requests_shed_total{reason="'
    return {name[len(start_) : -2]: int(count) for name, count in counts.items() if name.startswith(start_)}


def head(path: str, *more: bytes, length: int = len(LONG)) -> bytes:
    lines = [b"POST %b HTTP/1.1" % path.encode(), b"Host: x", b"Content-Type: application/json", *more]
    return b"\r\n".join([*lines, b"Content-Length: %d" % length, b"", b""])


def send(server: Server, wire: bytes) -> socket.socket:
    connection = socket.create_connection(server.address, timeout=30)
    connection.sendall(wire)
    return connection


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Server]:
    """Its thread is busy for ever."""
    build_bundle(tmp_path / "bundle", endless_above=100)
    server = start(
        tmp_path / "bundle", work_threads=1, queue_candidates=3000, deadline_seconds=500, request_log_ratio=0
    )
    with send(server, head("/score") + ENDLESS):
        # Taken once another one waits behind it: then it is not the one that waits.
        with send(server, head("/score", b"X-Request-Deadline-Ms: 100") + LONG) as second:
            assert second.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
        yield server
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.communicate(timeout=30)


def test_what_waits_is_bounded_in_candidates_ends_by_its_deadline_and_holds_nobody_else_up(stuck: Server) -> None:
    assert shed(stuck) == {"hopeless": 0, "queue_full": 0, "expired": 1, "gone": 0}
    waiting = [send(stuck, head("/score") + LONG)]

    def ask(**headers: str) -> httpx.Response:
        named = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(f"{stuck.url}/score", content=LONG, headers=named, timeout=30)

    # Half the queue is for what is urgent.
    wait_for(lambda: ask(x_request_priority="low", x_request_deadline_ms="5").status_code == 429, "one waits")
    waiting.append(send(stuck, head("/score", b"X-Request-Priority: normal") + LONG))
    wait_for(lambda: ask(x_request_deadline_ms="5").status_code == 429, "two wait")
    refused = ask()
    assert refused.json()["type"] == "urn:problem-type:reaction:queue-full"
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) >= 1
    # By its head alone.
    with send(stuck, head("/v2/models/tiny-1/infer")) as connection:
        said = connection.recv(1 << 16)
        assert said.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: 1\r\n" in said
    # Nobody else waits for any of it.
    for path in PROBES:
        assert httpx.get(f"{stuck.url}{path}").status_code == 200
    assert httpx.post(f"{stuck.url}/score", content=SHORT, headers=JSON).status_code == 200
    # Who hangs up leaves the queue, and makes room.
    waiting.pop().close()
    wait_for(lambda: shed(stuck)["gone"] == 1, "the one that hung up has left")
    late = ask(x_request_deadline_ms="50")
    assert (late.status_code, late.json()["type"]) == (503, "urn:problem-type:reaction:overloaded")
    assert int(late.headers["retry-after"]) >= 1
    waiting.pop().close()
    wait_for(lambda: shed(stuck)["gone"] == 2, "so has the other one")
    counts = count_all(stuck)
    assert counts['reaction_requests_total{route="/score",status="499"}'] == 2
    assert counts['reaction_requests_total{route="/score",status="429"}'] == shed(stuck)["queue_full"] - 1


def test_what_cannot_be_scored_in_time_is_refused_before_its_body_comes(bundle: Path) -> None:
    server = start(bundle, work_threads=1, request_log_ratio=0)
    try:
        many = json.dumps({"candidates": [{"ad": "a1", "price": 3}] * 9000}).encode()
        for _ in range(3):
            assert httpx.post(f"{server.url}/score", content=many, headers=JSON).status_code == 200
        for path, form in (
            ("/score", b"urn:problem-type:reaction:overloaded"),
            ("/v2/models/tiny-1/infer", b'{"error":'),
        ):
            with send(server, head(path, b"X-Request-Deadline-Ms: 1", length=len(many))) as connection:
                said = connection.recv(1 << 16)
                assert said.startswith(b"HTTP/1.1 503 ")
                assert form in said
                assert b"retry-after: 1\r\n" in said
                # The connection goes on behind the body that nobody read.
                connection.sendall(many + head("/score", length=len(SHORT)) + SHORT)
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        assert shed(server) == {"hopeless": 2, "queue_full": 0, "expired": 0, "gone": 0}
        # Alone, without a word on its deadline, it takes what it takes.
        assert httpx.post(f"{server.url}/score", content=many, headers=JSON).status_code == 200
    finally:
        assert server.stop() == 0
    # That would be a traceback a refusal, and cost more than the scoring.
    assert "request_failed" not in [line["event"] for line in server.log]


def dense(path: str, candidates: int) -> bytes:
    """A short body of many candidates."""
    if path == "/score":
        return json.dumps({"candidates": {"ad": ["a1"] * candidates}}).encode()
    tensor = {"name": "ad", "datatype": "BYTES", "shape": [candidates], "data": ["a1"] * candidates}
    return json.dumps({"inputs": [tensor]}).encode()


def test_many_candidates_in_a_short_body_wait_for_a_thread_and_hold_nobody_up(tmp_path: Path) -> None:
    build_bundle(tmp_path / "bundle", endless_above=600)
    server = start(tmp_path / "bundle", work_threads=1, deadline_seconds=500, request_log_ratio=0)
    infer = "/v2/models/tiny-1/infer"
    try:
        with ExitStack() as stack:
            for path in ("/score", "/score", infer, infer):  # the second of each has a head that is known
                body = dense(path, 601)
                stack.enter_context(send(server, head(path, length=len(body)) + body))
                for probe in PROBES:
                    assert httpx.get(f"{server.url}{probe}").status_code == 200
                assert httpx.post(f"{server.url}/score", content=SHORT, headers=JSON).status_code == 200
            late = httpx.post(
                f"{server.url}/score", content=dense("/score", 601), headers=JSON | {"x-request-deadline-ms": "50"}
            )
            assert (late.status_code, late.json()["type"]) == (503, "urn:problem-type:reaction:overloaded")
            assert shed(server) == {"hopeless": 0, "queue_full": 0, "expired": 1, "gone": 0}
        wait_for(lambda: shed(server)["gone"] == 3, "those that waited have left")
    finally:
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.communicate(timeout=30)


@pytest.mark.parametrize("settings", [{}, {"coalesce": True}], ids=["alone", "coalesced"])
def test_many_candidates_in_a_short_body_get_their_scores_and_their_turn(
    bundle: Path, hand_model: HandModel, settings: dict[str, Any]
) -> None:
    with serving(bundle, **settings) as server:
        wire = b"".join(
            head(path, length=len(body)) + body
            for path in ("/score", "/v2/models/tiny-1/infer", "/score")
            for body in (dense(path, 501), dense(path, 2))
        )
        with send(server, wire) as connection:
            heard = b""
            while heard.count(b"HTTP/1.1 200 ") < 6 or not heard.endswith(b"}"):
                heard += connection.recv(1 << 16)
        answers = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in heard.split(b"HTTP/1.1 200 OK\r\n")[1:]]
        scores = [answer["scores"] if "scores" in answer else answer["outputs"][0]["data"] for answer in answers]
        assert [len(of_one) for of_one in scores] == [501, 2] * 3
        assert np.concatenate(scores) == pytest.approx(hand_model.score({}, {"ad": "a1"}), abs=1e-6)


def test_an_idle_service_that_was_slow_once_is_not_thought_slow_for_ever(bundle: Path) -> None:
    server = start(bundle, work_threads=1, request_log_ratio=0)
    try:
        # One candidate that takes a while is all that is known of what candidates take.
        slow = json.dumps({"candidates": [{"ad": "a1", "tags": [""] * 1_000_000}]}).encode()
        answer = httpx.post(f"{server.url}/score", content=slow, headers=JSON, timeout=60)
        assert answer.status_code == 200
        deadline_ms = max(1, int(500 * answer.elapsed.total_seconds()))
        asked = JSON | {"x-request-deadline-ms": str(deadline_ms)}
        usual = json.dumps({"candidates": [{"ad": "a1"}] * 100}).encode().ljust(70_000)

        def ask() -> int:
            return httpx.post(f"{server.url}/score", content=usual, headers=asked).status_code

        assert ask() == 503
        wait_for(lambda: ask() == 200, "what it takes was tried again")
        assert [ask() for _ in range(20)] == [200] * 20
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Request-Deadline-Ms", "0"),
        ("X-Request-Deadline-Ms", "-1"),
        ("X-Request-Deadline-Ms", "1.5"),
        ("X-Request-Deadline-Ms", "600001"),
        ("X-Request-Deadline-Ms", "9" * 5000),
        ("X-Request-Deadline-Ms", "\u00b2"),
        ("X-Request-Priority", "high"),
    ],
)
def test_terms_that_are_none_are_refused_whoever_would_be_asked(client: httpx.Client, name: str, value: str) -> None:
    for content in (SHORT, LONG):
        answer = client.post("/score", content=content, headers=JSON | {name: value.encode("latin-1")})  # type: ignore[dict-item]
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:problem-type:reaction:malformed-header")
        assert answer.json()["where"] == name
    answer = client.post(
        "/score", content=SHORT, headers=JSON | {"X-Request-Priority": "LOW", "X-Request-Deadline-Ms": "600000"}
    )
    assert answer.status_code == 200


def test_the_urgent_go_first_and_each_in_order() -> None:
    order: list[str] = []
    go = threading.Event()

    class Noting(Stages[Work]):
        def __init__(self) -> None: ...

        def run(self, work: Work) -> None:
            assert go.wait(20)
            order.append(work.request_id)
            work.scores = np.zeros(1, np.float32)

        def read(self, work: Work) -> None: ...

        def write(self, work: Work) -> None: ...

    async def ask(gate: Gate, name: str) -> None:
        asked: Any = SimpleNamespace(length=64, compressed=False, deadline_seconds=None, low=name.startswith("low"))
        work = Work(b" " * 64, request_id=name, packed=False, answer_packed=False)
        await gate.run(Noting(), work, gate.look(asked, long=True), cast("Any", lambda _tell: None))

    async def run(threads: ThreadPoolExecutor) -> None:
        gate = Gate(threads, 1, 100, 60.0, ServiceMetrics())
        names = ("first", "low 1", "normal 1", "low 2", "normal 2")
        tasks = [asyncio.create_task(ask(gate, name)) for name in names]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*tasks)

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(asyncio.wait_for(run(threads), 30))
    assert order == ["first", "normal 1", "normal 2", "low 1", "low 2"]


def test_a_short_request_whose_body_comes_after_its_deadline_is_not_scored(bundle: Path) -> None:
    server = start(bundle, request_log_ratio=0)
    ways = [(expects, late) for expects in (False, True) for late in (False, True)]  # in the lane, and the ordinary way
    try:
        for expects, late in ways:
            more = [b"Expect: 100-continue"] if expects else []
            limit = b"X-Request-Deadline-Ms: " + (b"50" if late else b"60000")
            with send(server, head("/score", limit, *more, length=len(SHORT))) as connection:
                if expects:
                    assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100 ")
                time.sleep(0.1)
                connection.sendall(SHORT)
                assert int(connection.recv(1 << 16).split()[1]) == (503 if late else 200)
        assert shed(server)["expired"] == 2
        assert count_all(server)['reaction_requests_total{route="/score",status="200"}'] == 2
    finally:
        assert server.stop() == 0
