"""Bytes on the wire: what the server process does with pieces, with too many, and with what is no good HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
import uvloop
from serving import ROW_CANDIDATES, ROW_CONTEXT, Server, serving, talk

from service.workers.sockets import listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BODY = json.dumps({"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}).encode()


def head(length: int | None, *more: bytes) -> bytes:
    lines = [b"POST /score HTTP/1.1", b"Host: x", b"Content-Type: application/json", *more]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /score HTTP/9.9\r\n\r\n",
        head(None, b"Content-Length: -1"),
        head(None, b"Content-Length: abc"),
        head(None, b"Content-Length: 99999999999999999999999999"),
        head(5, b"Content-Length: 6"),
        head(5, b"Transfer-Encoding: chunked"),
        head(None, b"Transfer-Encoding: chunked") + b"zz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=lambda data: repr(data)[2:40],
)
def test_bytes_that_are_no_http_get_400_and_the_connection_is_closed(server: Server, request_bytes: bytes) -> None:
    answer = talk(server.address, request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_body_in_pieces_is_put_together(server: Server) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(BODY[i : i + 7]), BODY[i : i + 7]) for i in range(0, len(BODY), 7))
    whole = talk(server.address, head(len(BODY), b"Connection: close") + BODY)
    chunked = talk(
        server.address,
        head(None, b"Connection: close", b"Transfer-Encoding: chunked"),
        chunks,
        b"0\r\n\r\n",
        pause=0.05,
    )
    slow = talk(server.address, head(len(BODY), b"Connection: close"), BODY[:9], BODY[9:], pause=0.05)
    scores = [answer.partition(b'"scores":')[2] for answer in (whole, chunked, slow)]
    assert scores[0].startswith(b"[")
    assert scores[0] == scores[1].removesuffix(b"\r\n0\r\n\r\n") == scores[2]


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    bodies = [json.dumps({"candidates": [{}], "request_id": f"r{k}"}).encode() for k in range(5)]
    requests = b"".join(head(len(body), *([b"Connection: close"] * (k == 4))) + body for k, body in enumerate(bodies))
    answer = talk(server.address, requests)
    assert answer.count(b"HTTP/1.1 200 ") == 5
    places = [answer.index(b'"request_id":"r%d"' % k) for k in range(5)]
    assert places == sorted(places)


def test_expect_continue_is_honoured(server: Server) -> None:
    with socket.create_connection(server.address, timeout=5) as connection:
        connection.sendall(head(len(BODY), b"Expect: 100-continue"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(BODY)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


@pytest.fixture(scope="module")
def narrow(bundle: Path) -> Iterator[Server]:
    """A server that takes bodies up to 2000 bytes."""
    with serving(bundle, max_body_bytes=2000) as running:
        yield running


def test_a_body_declared_too_large_is_refused_before_it_is_sent(narrow: Server) -> None:
    answer = talk(narrow.address, head(2001))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert b'"expected":"at most 2000 bytes","got":"2001 bytes or more"' in answer


def test_a_body_of_exactly_the_limit_is_scored(narrow: Server) -> None:
    fits = b'{"candidates":[{}]' + b" " * (2000 - 19) + b"}"
    assert talk(narrow.address, head(2000, b"Connection: close") + fits).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_grows_too_large_is_refused_while_it_is_read(narrow: Server) -> None:
    start_of_it = head(None, b"Transfer-Encoding: chunked") + b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    answer = talk(narrow.address, start_of_it, b"3e9\r\n" + b"x" * 1001 + b"\r\n", pause=0.1)
    assert answer.startswith(b"HTTP/1.1 413 ")  # though the body never ended


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_large_refused_body_does_not_cost_its_sender_the_answer(server: Server, chunked: bool) -> None:
    part = b"x" * 100_000
    if chunked:
        pieces = [head(None, b"Transfer-Encoding: chunked"), *[b"%x\r\n%b\r\n" % (len(part), part)] * 160, b"0\r\n\r\n"]
    else:
        pieces = [head(160 * len(part)), *[part] * 160]
    # Sends all before it reads: a connection that was closed at once would be reset under it.
    assert talk(server.address, *pieces).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_accepted_connections_do_not_wait_for_acknowledgements(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    # Nagle's algorithm against delayed acknowledgements costs 40 ms a request on a connection that is kept.
    accepted: list[int] = []

    class Probe(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            connection = transport.get_extra_info("socket")
            accepted.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    async def accept_one() -> None:
        with listen("127.0.0.1", 0) as listener:
            server = await asyncio.get_running_loop().create_server(Probe, sock=listener)
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            await reader.read()  # until the server, which was there first, hangs up
            writer.close()
            await writer.wait_closed()
            server.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(accept_one())
    assert accepted == [1]


def test_bodies_scored_in_threads_get_the_same_answers(bundle: Path, server: Server) -> None:
    with serving(bundle, inline_body_bytes=len(BODY) - 1, work_threads=2) as threaded:
        threads = psutil.Process(threaded.process.pid).num_threads
        counts = []
        for _ in range(2):
            assert httpx.post(f"{threaded.url}/score", json={"candidates": [{}]}).status_code == 200
            counts.append(threads())
        assert counts[0] == counts[1]  # short bodies are scored on the event loop
        ask_side_by_side(threaded, server)
        assert counts[1] < threads() <= counts[1] + 2


def ask_side_by_side(threaded: Server, server: Server) -> None:
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.post(f"{threaded.url}/score", content=BODY, headers={"content-type": "application/json"}))

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    refused = httpx.post(f"{threaded.url}/score", content=b"{", headers={"content-type": "application/json"})
    inline = httpx.post(f"{server.url}/score", content=BODY, headers={"content-type": "application/json"}).json()
    assert [answer.json()["scores"] for answer in answers] == [inline["scores"]] * 8
    assert refused.status_code == 400


def test_clients_that_hang_up_leave_no_connection_behind(bundle: Path) -> None:
    with serving(bundle) as running:
        descriptors = Path(f"/proc/{running.process.pid}/fd")
        if not descriptors.is_dir():
            pytest.skip("needs /proc")
        before = len(list(descriptors.iterdir()))
        for _ in range(50):
            with socket.create_connection(running.address, timeout=5) as connection:
                connection.sendall(head(len(BODY)) + BODY[:20])
        deadline = time.monotonic() + 5
        while len(list(descriptors.iterdir())) > before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(list(descriptors.iterdir())) <= before
