"""Limits on the wire: how large a head may be, how long a client may take to send it and its body, and to take answers.

A test waits for what the server does, and judges what it was, never when.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from processes import count_all, wait_for
from serving import ROW_CANDIDATES, ROW_CONTEXT, Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = json.dumps({"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}).encode()
SCORE = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HASTY = {"head_seconds": 0.5, "body_seconds": 0.5, "answer_seconds": 0.5, "keep_alive_seconds": 2}


@pytest.fixture(scope="module")
def hasty(bundle: Path) -> Iterator[Server]:
    with serving(bundle, **HASTY) as running:
        yield running


@pytest.fixture(scope="module")
def strict(bundle: Path) -> Iterator[Server]:
    with serving(bundle, max_head_bytes=2048, max_headers=20, inline_body_bytes=100_000) as running:
        yield running


def whole(body: bytes = BODY, *more: bytes) -> bytes:
    return SCORE + b"".join(line + b"\r\n" for line in more) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes; it has to."""
    connection.settimeout(20)
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            received += part
    return received


def converse(server: Server, *pieces: bytes) -> bytes:
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.002)
        return read_all(connection)


def trickle(server: Server, start: bytes, drop: bytes) -> bytes:
    """Send a beginning, then drop by drop until the server has enough; what it says."""
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(start)
        received = b""
        connection.settimeout(0.1)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(200):
                with contextlib.suppress(TimeoutError):
                    part = connection.recv(1 << 16)
                    if not part:
                        return received
                    received += part
                connection.sendall(drop)
        return received


def answers(received: bytes) -> list[tuple[int, dict[str, Any]]]:
    """Statuses and JSON bodies of all answers, which must be all there is."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        kind = head.lower().partition(b"content-type: ")[2].partition(b"\r\n")[0]
        status = int(head[9:12])
        assert kind == (b"application/json" if b'"error"' in rest or status == 200 else b"application/problem+json")
        found.append((status, json.loads(rest[:length])))
        received = rest[length:]
    return found


def cut(server: Server, reason: str) -> float:
    return count_all(server)[f'reaction_connections_cut_total{{reason="{reason}"}}']


INFER = SCORE.replace(b"/score", b"/v2/models/tiny-1/infer")
LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
# What a client begins with, and what it then sends again and again: which reason it is cut for, what it is answered.
TRICKLES: list[tuple[bytes, bytes, str, list[int]]] = [
    (b"P", b"", "head_late", [408]),
    (SCORE, b"x-a: b\r\n", "head_late", [408]),
    (SCORE + b"x-a: ", b"b", "head_late", [408]),
    (whole() + SCORE, b"x-a: b\r\n", "head_late", [200, 408]),
    (SCORE + b"Content-Length: 2000\r\n\r\n{", b" ", "body_late", [408]),
    (SCORE + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", "body_late", [408]),
    (SCORE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"x-a: b\r\n", "body_late", [408]),
    (SCORE + b"Content-Encoding: gzip\r\nContent-Length: 2000\r\n\r\n{", b" ", "body_late", [408]),
    (INFER + b"Content-Length: 2000\r\n\r\n{", b" ", "body_late", [408]),
    (LIVE + b"Content-Length: 2000\r\n\r\n", b" ", "body_late", [200]),  # nobody waits for this body
    (b"", b"\r\n", "", []),  # an idle connection, closed as such
    (b"", b"", "", []),
]


def test_who_trickles_is_told_so_and_counted(hasty: Server) -> None:
    before = count_all(hasty)
    with ThreadPoolExecutor(len(TRICKLES)) as pool:
        received = list(pool.map(lambda case: trickle(hasty, case[0], case[1]), TRICKLES))
    after = count_all(hasty)
    for said, (start, _, reason, statuses) in zip(received, TRICKLES, strict=True):
        found = answers(said)
        assert [status for status, _ in found] == statuses, start
        if statuses[-1:] != [408]:
            continue
        place = reason.removesuffix("_late")
        if start.startswith(INFER):
            assert found[-1][1] == {"error": "The body of the request: expected within 0.5 s, got a part of it."}
        else:
            assert (found[-1][1]["type"], found[-1][1]["where"]) == ("urn:problem-type:reaction:late-request", place)
    counts = {name: value - before.get(name, 0.0) for name, value in after.items()}
    for reason in ("head_late", "body_late"):
        assert counts[f'reaction_connections_cut_total{{reason="{reason}"}}'] == sum(t[2] == reason for t in TRICKLES)
    # Heads have no route yet; bodies are counted where their requests belong.
    answered = {"other": 4, "/score": 4, "/v2/models/{name}/infer": 1}
    for route, times in answered.items():
        assert counts[f'reaction_requests_total{{route="{route}",status="408"}}'] == times
    assert not any('status="499"' in name for name in after)


def test_in_pieces_is_no_fault_and_neither_is_to_be_idle(strict: Server) -> None:
    wire = whole(BODY, b"X-Long: " + b"x" * 500)
    with socket.create_connection(strict.address, timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(3):
            for at in range(0, len(wire), 40):
                connection.sendall(wire[at : at + 40])
                time.sleep(0.001)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_the_time_of_one_request_is_not_the_next_ones(hasty: Server) -> None:
    # Two deadlines long, each of its requests begun in the read that ended the one before.
    wire = whole()
    with socket.create_connection(hasty.address, timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(wire[:20])
        for _ in range(20):
            time.sleep(0.05)
            connection.sendall(wire[20:] + wire[:20])
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "pieces",
    [
        [whole(BODY, *(b"X-%d: y" % k for k in range(18)))],
        [whole(BODY, b"X: " + b"x" * 2048)],
        [SCORE + b"X: " + b"x" * 1500, b"x" * 1000],
        [b"POST /" + b"x" * 2100 + b" HTTP/1.1\r\n\r\n"],
        [SCORE + b"X: ", b"x" * 4_000_000],
        [SCORE, *[b"x-a: %b\r\n" % (b"b" * 90)] * 300],
        [SCORE + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"x" * 1500, b"x" * 1500],
        [SCORE + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 1500, b"x" * 1500, b"x" * 1500],
        [whole() + SCORE + b"X: " + b"x" * 2000, b"x" * 1_000_000],
    ],
    ids=["headers", "one read", "two reads", "target", "endless", "many", "trailer", "extension", "second head"],
)
def test_a_head_over_a_limit_is_refused_and_counted(strict: Server, pieces: list[bytes]) -> None:
    before = cut(strict, "head_too_large")
    *earlier, (status, problem) = answers(converse(strict, *pieces))
    assert [status for status, _ in earlier] == [200] * pieces[0].startswith(whole())
    assert (status, problem["type"]) == (431, "urn:problem-type:reaction:head-too-large")
    assert cut(strict, "head_too_large") == before + 1


def test_a_head_at_the_limits_is_taken_however_much_comes_with_it(strict: Server) -> None:
    headers = [b"X-%d: y" % k for k in range(16)]
    assert [status for status, _ in answers(converse(strict, whole(BODY, *headers, b"Connection: close")))] == [200]
    long = whole(BODY, b"X: " + b"x" * (2040 - len(whole()) + len(BODY)))
    assert len(long) - len(BODY) > 2000
    last = whole(BODY, b"Connection: close")
    # One read that is longer than any head may be, and a head that begins in it.
    statuses = [status for status, _ in answers(converse(strict, long * 20 + last[:70], last[70:]))]
    assert statuses == [200] * 21


def test_a_refusal_waits_for_the_answers_to_what_came_before(strict: Server) -> None:
    found = answers(converse(strict, whole() * 5 + b"no request\r\n\r\n" + whole()))
    assert [status for status, _ in found] == [200] * 5 + [400]
    assert found[-1][1]["type"] == "urn:problem-type:reaction:malformed-http"


def test_who_does_not_take_an_answer_is_cut_off(hasty: Server) -> None:
    many = json.dumps({"candidates": [{}] * 9000}).encode()
    before = cut(hasty, "answer_late")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(hasty.address)
        connection.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            connection.sendall(whole(many) * 60)
        wait_for(lambda: cut(hasty, "answer_late") > before, "the connection is cut")


def test_a_server_that_stood_still_blames_nobody(hasty: Server) -> None:
    with socket.create_connection(hasty.address, timeout=20) as connection:
        wire = whole(BODY, b"Connection: close")
        connection.sendall(wire[:100])
        time.sleep(0.2)
        os.kill(hasty.process.pid, signal.SIGSTOP)
        try:
            connection.sendall(wire[100:])
            time.sleep(0.8)
        finally:
            os.kill(hasty.process.pid, signal.SIGCONT)
        assert [status for status, _ in answers(read_all(connection))] == [200]


def test_what_follows_an_offer_to_upgrade_is_never_read_as_a_request(strict: Server) -> None:
    offer = LIVE + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    before = count_all(strict)
    assert [status for status, _ in answers(converse(strict, offer + whole()))] == [200]
    after = count_all(strict)
    name = 'reaction_requests_total{route="/score",status="200"}'
    assert after.get(name, 0.0) == before.get(name, 0.0)
