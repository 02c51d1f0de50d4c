"""The fast lane against the plain path: the service as it is, and the same application under stock uvicorn."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from serving import MODEL_ID, ROOT, ROW_CANDIDATES, ROW_CONTEXT, Server, environment, samples, serving, start, talk
from tensors_on_the_wire import tensor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITS: dict[str, Any] = {"max_body_bytes": 6000, "inline_body_bytes": 2000, "gzip_bytes": 120, "request_log_ratio": 0}
GOOD = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES, "request_id": "r-1"}
COLUMNS = {name: [row.get(name) for row in ROW_CANDIDATES] for name in ROW_CANDIDATES[0]}
INFER = f"/v2/models/{MODEL_ID}/infer"
TENSORS = {"inputs": [tensor("user", "BYTES", ["u1"]), tensor("ad", "BYTES", ["a1", "a2"])]}
LAST = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


class Pair(NamedTuple):
    """The same bundle and settings twice."""

    lane: Server
    plain: Server


@contextlib.contextmanager
def stock(bundle: Path, **settings_: Any) -> Iterator[Server]:
    """The application under uvicorn as it is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = [
            "--fd",
            str(listener.fileno()),
            "--no-server-header",
            "--no-proxy-headers",
            "--no-access-log",
            "--http",
            "httptools",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", *options],
            cwd=ROOT,
            env=environment(bundle=bundle, **settings_),
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        server = Server(process, listener.getsockname()[:2])  # type: ignore[arg-type]
        try:
            deadline = time.monotonic() + 30
            while httpx.get(f"{server.url}/readyz", timeout=30).status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield server
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def pair(bundle: Path) -> Iterator[Pair]:
    with serving(bundle, **LIMITS) as lane, stock(bundle, **LIMITS) as plain:
        yield Pair(lane, plain)


def same_for_all(answer: bytes) -> bytes:
    """An answer without what no two answers share: the date, and ids that the service made."""
    answer = re.sub(rb"\r\ndate: [^\r]*", b"\r\ndate: D", answer)
    return re.sub(rb"[0-9a-f]{16}-[0-9a-f]+", b"ID", answer)


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def request(
    body: bytes,
    *headers: bytes,
    line: bytes = b"POST /score HTTP/1.1",
    media_type: bytes = b"application/json",
    chunk: int = 0,
) -> bytes:
    framing = b"transfer-encoding: chunked" if chunk else b"Content-Length: %d" % len(body)
    lines = [line, b"Host: x", b"Content-Type: " + media_type, *headers, framing]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (chunked(body, chunk) if chunk else body)


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


BODIES = st.one_of(
    st.integers(1, 4).map(lambda rows: encoded({**GOOD, "candidates": ROW_CANDIDATES[:rows]})),
    st.sampled_from(
        [
            encoded({"context": ROW_CONTEXT, "candidates": COLUMNS, "top_k": 2, "request_id": "r"}),
            encoded({"candidates": [{**ROW_CONTEXT, **ROW_CANDIDATES[0]}] * 2, "request_id": "r"}),
            encoded({"candidates": [{}] * 600, "request_id": "r"}),  # longer than what is scored on the event loop
            encoded({"candidates": [{}] * 100, "request_id": "r"}),  # an answer that is compressed
            encoded({**GOOD, "candidates": [{"ad": "a1", "nope": 1}]}),
            encoded({**GOOD, "candidates": []}),
            encoded({**GOOD, "top_k": 0}),
            encoded({**GOOD, "request_id": "two words"}),
            encoded({"candidates": [{"price": float("nan")}]}),
            b'{"candidates":[{"ad":"a1","ad":"a2"}]}',
            b"{",
            b"",
            b"\xff\xfe",
            b"[" * 1500,
        ]
    ),
)
HEADERS = st.lists(
    st.sampled_from(
        [
            b"Accept: application/msgpack",
            b"ACCEPT: text/html",
            b"Accept-Encoding: gzip",
            b"accept-encoding: gzip;q=0, br",
            b"Connection: keep-alive",
            b"Expect: 100-continue",
            b"X-Long: " + b"x" * 500,
            b"Content-Encoding: identity",
            b"Content-Encoding: br",
            b"Content-Encoding: gzip",
        ]
    ),
    max_size=2,
    unique=True,
)
LINES = st.sampled_from(
    [b"POST /score HTTP/1.1"] * 8
    + [b"POST /score?x=1 HTTP/1.1", b"POST http://x/score HTTP/1.1", b"PUT /score HTTP/1.1", b"POST /nope HTTP/1.1"]
    + [b"HEAD /score HTTP/1.1", b"POST /sc%6Fre HTTP/1.1"]
)
INFERENCE = st.builds(
    request,
    st.sampled_from([encoded(TENSORS), encoded({**TENSORS, "id": "a b"}), encoded({"inputs": []}), b"{"]),
    line=st.sampled_from([f"POST {INFER} HTTP/1.1".encode(), b"POST /v2/models/other/infer HTTP/1.1"]),
    chunk=st.sampled_from([0, 0, 50]),
)
SCORING = st.builds(
    lambda body, headers, line, media_type, chunk: request(
        gzip.compress(body, mtime=0) if b"Content-Encoding: gzip" in headers else body,
        *headers,
        line=line,
        media_type=media_type,
        chunk=chunk,
    ),
    BODIES,
    HEADERS,
    LINES,
    st.sampled_from([b"application/json"] * 6 + [b"application/json; charset=utf-8", b"text/csv", b"x/y"]),
    st.sampled_from([0, 0, 0, 7, 4000]),
)
PACKED = st.builds(
    lambda document, headers: request(msgspec.msgpack.encode(document), *headers, media_type=b"application/msgpack"),
    st.sampled_from([GOOD, {"candidates": COLUMNS, "request_id": "r"}, {"candidates": 5}, None]),
    HEADERS.filter(lambda headers: not any(b"Encoding: g" in header or b"br" in header for header in headers)),
)
# After these the server closes, and what is sent after them may or may not be read.
ENDS = st.one_of(
    st.just(LAST),
    st.builds(request, BODIES, st.just(b"Connection: close")),
    st.builds(request, BODIES, line=st.just(b"POST /score HTTP/1.0")),
    st.just(request(encoded({"candidates": [{}] * 4000}))),  # over the limit, and says so
)


def converse(server: Server, wire: bytes, cuts: list[int]) -> bytes:
    """Send bytes in these pieces; all that comes until the server closes."""
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            connection.sendall(wire[begin:end])
            if end < len(wire):
                time.sleep(0.002)
        received = b""
        while part := connection.recv(1 << 16):
            received += part
    return received


@example(asked=[request(encoded(GOOD), b"Expect: 100-continue")], end=LAST, places=[], pieces=False)
@example(asked=[request(encoded(GOOD))] * 3, end=LAST, places=[], pieces=True)
@example(asked=[request(encoded(GOOD))] * 3, end=LAST, places=[0.1, 0.5, 0.6], pieces=False)
@settings(max_examples=100, deadline=None)
@given(
    asked=st.lists(st.one_of(SCORING, SCORING, PACKED, INFERENCE), max_size=4),
    end=ENDS,
    places=st.lists(st.floats(0, 1), max_size=4),
    pieces=st.booleans(),
)
def test_answers_are_those_of_the_plain_path_byte_for_byte(
    pair: Pair, asked: list[bytes], end: bytes, places: list[float], pieces: bool
) -> None:
    wire = b"".join([*asked, end])
    cuts = sorted({int(place * len(wire)) for place in places} - {0, len(wire)})
    if pieces:  # each request by itself too: then most of them are alone on their connection
        edges = [sum(map(len, asked[: k + 1])) for k in range(len(asked))]
        cuts = sorted({*cuts, *edges} - {0, len(wire)})
    answers = [same_for_all(converse(server, wire, cuts)) for server in pair]
    assert answers[0] == answers[1]
    assert answers[0].count(b"HTTP/1.1 ") >= 1 + len(asked)


def counts(server: Server) -> dict[str, float]:
    """What both must have counted alike: all but times, probes and what a process is."""
    kept = ("reaction_requests_total", "reaction_candidates", "reaction_feature", "reaction_score", "reaction_stage")
    timed = ("seconds_bucket", "seconds_sum", "_created")
    scraped = samples(httpx.get(f"{server.url}/metrics").text)
    return {
        name: value
        for name, value in scraped.items()
        if name.startswith(kept) and not name.partition("{")[0].endswith(timed) and "/readyz" not in name
    }


def test_both_count_the_same(pair: Pair) -> None:
    assert counts(pair.lane) == counts(pair.plain)
    for server in pair:
        for body in (encoded(GOOD), b"{", encoded({"candidates": [{}] * 600}), b'{"candidates":[{"nope":1}]}'):
            wire = [request(body)] * 5 + [request(b"x", media_type=b"a/b"), LAST]
            assert talk(server.address, *wire, pause=0.001).count(b"HTTP/1.1 ") == 7
    found = counts(pair.lane)
    assert found == counts(pair.plain)
    assert found['reaction_requests_total{route="/score",status="200"}'] >= 10


def test_a_client_that_has_gone_before_its_body_was_complete_counts_as_gone(pair: Pair) -> None:
    name = 'reaction_requests_total{route="/score",status="499"}'
    before = counts(pair.lane).get(name, 0.0)
    for body in (encoded(GOOD), encoded({"candidates": [{}] * 600})):
        with socket.create_connection(pair.lane.address, timeout=10) as connection:
            connection.sendall(request(body)[:-1])
    deadline = time.monotonic() + 10
    while counts(pair.lane).get(name, 0.0) < before + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert counts(pair.lane)[name] == before + 2


def test_a_client_that_closes_its_side_gets_whole_answers_or_none(pair: Pair) -> None:
    for server in pair:
        for _ in range(10):
            with socket.create_connection(server.address, timeout=10) as connection:
                connection.sendall(request(encoded(GOOD)))
                connection.shutdown(socket.SHUT_WR)
                received = b""
                while part := connection.recv(1 << 16):
                    received += part
            assert not received or received.endswith(b"}")


def test_a_stop_leaves_no_request_without_its_answer(bundle: Path) -> None:
    running = start(bundle)
    wire = request(encoded(GOOD))
    whole, half = (socket.create_connection(running.address, timeout=10) for _ in range(2))
    with whole, half:
        whole.sendall(wire)
        assert whole.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        half.sendall(wire[:-5])
        time.sleep(0.2)  # the server has begun to read
        running.process.terminate()
        assert whole.recv(1) == b""  # idle, so closed at once
        half.sendall(wire[-5:])
        answer = half.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close\r\n" in answer
        assert half.recv(1) == b""
    running.process.communicate(timeout=20)
    assert running.process.returncode == 0


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(bundle: Path) -> None:
    wire = request(encoded(GOOD))
    with (
        serving(bundle, keep_alive_seconds=1) as server,
        socket.create_connection(server.address, timeout=10) as connection,
    ):
        connection.sendall(wire)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        connection.sendall(wire[:-1])
        time.sleep(1.2)  # a request that is on its way is not idle
        connection.sendall(wire[-1:])
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        assert connection.recv(1) == b""
