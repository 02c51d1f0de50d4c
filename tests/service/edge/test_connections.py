"""How many connections may be open: whoever comes anew, a probe for one, is let in before those that are idle."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from processes import count_all, wait_for
from serving import Server, serving, start

if TYPE_CHECKING:
    from pathlib import Path

LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
DESCRIPTORS = 120
ROOM = DESCRIPTORS - 64
MANY = 250


def cut(server: Server, reason: str) -> float:
    return count_all(server)[f'reaction_connections_cut_total{{reason="{reason}"}}']


def connect(server: Server) -> socket.socket:
    return socket.create_connection(server.address, timeout=20)


def used(server: Server) -> socket.socket:
    """A connection that has been served, and so has whatever the server knew of before it."""
    connection = connect(server)
    assert is_served(connection)
    return connection


def is_served(connection: socket.socket) -> bool:
    time.sleep(0.005)  # the server's clock tells milliseconds apart
    connection.sendall(LIVE)
    return is_answered(connection)


def is_answered(connection: socket.socket) -> bool:
    """Whether one whole answer comes, and is good."""
    received = b""
    while not received.endswith(b"}"):
        part = connection.recv(1 << 16)
        if not part:
            return False
        received += part
    return received.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_probe_is_let_in_however_many_connections_are_idle(bundle: Path, workers: int) -> None:
    server = start(bundle, wait=False, descriptors=DESCRIPTORS, workers=workers)
    try:
        wait_for(lambda: httpx.get(f"{server.url}/readyz").status_code == 200, "the service is ready")
        with contextlib.ExitStack() as opened:
            idle = [opened.enter_context(connect(server)) for _ in range(MANY)]
            for _ in range(20):
                assert httpx.get(f"{server.url}/readyz").status_code == 200
            assert cut(server, "idle") >= MANY - workers * ROOM
            assert cut(server, "full") == 0
            assert is_served(idle[-1])
        assert not [line for line in server.log if line["event"] == "accept_failed"]
    finally:
        assert server.stop() == 0
    assert not [line for line in server.log if line["event"] == "accept_failed"]


def test_the_one_that_was_idle_for_longest_goes_and_one_that_was_used_meanwhile_stays(bundle: Path) -> None:
    with serving(bundle, max_connections=4) as server, contextlib.ExitStack() as opened:
        first, second, third, fourth = (opened.enter_context(used(server)) for _ in range(4))
        assert is_served(first)
        fifth = opened.enter_context(used(server))
        assert second.recv(1) == b""
        assert is_served(third)  # it was looked at, and is the next in order: used since
        sixth = opened.enter_context(used(server))
        assert fourth.recv(1) == b""
        for one in (first, third, fifth, sixth):
            assert is_served(one)
        first.close()
        wait_for(lambda: cut(server, "idle") >= 2, "both are counted")


def test_where_none_is_idle_the_new_one_is_told_so_and_the_others_go_on(bundle: Path) -> None:
    with serving(bundle, max_connections=2) as server, contextlib.ExitStack() as opened:
        busy = [opened.enter_context(used(server)) for _ in range(2)]
        for one in busy:
            one.sendall(LIVE[:20])
        for _ in range(3):
            with pytest.raises(httpx.HTTPStatusError) as refused:
                httpx.get(f"{server.url}/readyz").raise_for_status()
            assert refused.value.response.status_code == 503
            assert refused.value.response.json()["type"] == "urn:problem-type:reaction:overloaded"
            assert refused.value.response.headers["retry-after"] == "1"
        for one in busy:
            one.sendall(LIVE[20:])
            assert is_answered(one)
        assert cut(server, "full") == 3
