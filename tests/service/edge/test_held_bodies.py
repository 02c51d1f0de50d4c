"""Bodies of many clients at a time, against a real server that has room for four."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx
import pytest
from processes import count_all, wait_for
from serving import ROW_CANDIDATES, ROW_CONTEXT, Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOM = 1 << 20
LONG = 250_000
SHORT = 60_000
JSON = {"content-type": "application/json"}
HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%b\r\n\r\n"
DOCUMENT = json.dumps({"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}).encode()


@pytest.fixture(scope="module")
def narrow(bundle: Path) -> Iterator[Server]:
    with serving(bundle, bodies_bytes=ROOM, max_body_bytes=300_000, request_log_ratio=0) as running:
        yield running


def begin(server: Server, length: int, *, chunked: bool = False) -> socket.socket:
    """Send all of a body but its last byte."""
    connection = socket.create_connection(server.address, timeout=20)
    size = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % length
    connection.sendall(HEAD % size)
    connection.sendall((b"%x\r\n" % length if chunked else b"") + DOCUMENT.ljust(length - 1))
    return connection


def cut(server: Server) -> float:
    return count_all(server).get('reaction_connections_cut_total{reason="full"}', 0.0)


@pytest.mark.parametrize(("length", "chunked"), [(LONG, False), (LONG, True), (SHORT, False)])
def test_who_sends_for_longest_makes_room_and_whoever_sends_it_all_is_answered(
    narrow: Server, length: int, chunked: bool
) -> None:
    before, fit = cut(narrow), ROOM // length
    with ExitStack() as stack:
        senders = []
        for number in range(2 * fit):
            senders.append(stack.enter_context(begin(narrow, length, chunked=chunked)))
            if number >= fit:
                refused = senders[number - fit].recv(1 << 16)
                assert refused.startswith(b"HTTP/1.1 503 ")
                assert b"application/problem+json" in refused
                assert b"retry-after: 1\r\n" in refused
        assert cut(narrow) == before + fit
        answer = httpx.post(f"{narrow.url}/score", content=DOCUMENT.ljust(length), headers=JSON)
        assert answer.status_code == 200
        assert len(answer.json()["scores"]) == len(ROW_CANDIDATES)
        # The others may still come to their end, all but the one that made room for that.
        for sender in senders[fit + 1 :]:
            sender.sendall(b"\x20\r\n0\r\n\r\n" if chunked else b"\x20")
            assert sender.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    wait_for(lambda: len(held_by_none(narrow, length)) == ROOM // length, "room for all again")


def held_by_none(server: Server, length: int) -> list[int]:
    """Statuses of as many bodies as there is room for, all of them on their way at the same time."""
    with ExitStack() as stack:
        senders = [stack.enter_context(begin(server, length)) for _ in range(ROOM // length)]
        for sender in senders:
            sender.sendall(b"\x20")
        heard = [sender.recv(1 << 16) for sender in senders]
    return [200 for answer in heard if answer.startswith(b"HTTP/1.1 200 ")]


def test_a_body_that_is_refused_and_thrown_away_takes_no_room(narrow: Server) -> None:
    before = cut(narrow)
    with ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(socket.create_connection(narrow.address, timeout=20))
            connection.sendall(HEAD % b"Transfer-Encoding: chunked")
            connection.sendall(b"%x\r\n" % (8 * ROOM) + b" " * (2 * ROOM))
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
        assert httpx.post(f"{narrow.url}/score", content=DOCUMENT.ljust(LONG), headers=JSON).status_code == 200
    assert cut(narrow) == before
