"""One worker's part in sharing a socket: when it takes connections, and when it lets others."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from service.counts.cells import CONNECTIONS, READY, Cells, shared_file
from service.workers import acceptor as module
from service.workers.acceptor import Acceptor
from service.workers.sockets import listen

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="one worker only")

WAITING = 20


class Held(asyncio.Protocol):
    """Serves nothing, but is counted."""

    connections: set[Held]
    told_to_end = False

    def __init__(self, connections: set[Held]) -> None:
        self.connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.connections.add(self)

    def shutdown(self) -> None:
        self.told_to_end = True


@contextlib.contextmanager
def queue(length: int) -> Iterator[socket.socket]:
    """A listening socket with connections that wait."""
    with listen("127.0.0.1", 0) as listener, contextlib.ExitStack() as clients:
        for _ in range(length):
            clients.enter_context(socket.create_connection(listener.getsockname(), timeout=10))
        yield listener


async def settle() -> None:
    """Let everything happen that needs no timer."""
    for _ in range(20 * WAITING):
        await asyncio.sleep(0)


def taken_beside(others: int | None) -> list[int]:
    """Connections taken at once, and after each end of a pause, while another worker holds so many and takes none."""
    file = shared_file(2)
    own, other, _ = (Cells(2, block, descriptor=file) for block in range(3))
    if others is not None:
        other.own[CONNECTIONS], other.own[READY] = others, 1.0
    held: set[Held] = set()

    async def run(listener: socket.socket) -> list[int]:
        taking = Acceptor(listener, lambda: Held(held), held.__len__, own)
        counts = []
        for _ in range(4):
            await settle()
            counts.append(len(held))
            assert own.own[CONNECTIONS] == len(held)
            if taking._pause is not None:
                taking._go_on()
        taking.close()
        await taking.wait_closed()
        for one in held:
            one.transport.close()
        await settle()
        return counts

    with queue(WAITING) as listener:
        return asyncio.run(run(listener))


@pytest.mark.parametrize(
    ("others", "taken"),
    [
        (None, [WAITING] * 4),  # nobody else takes requests yet
        (WAITING, [WAITING] * 4),
        (0, [2, 3, 5, 9]),  # it gives way, then takes one, two, four: the other may be busy for long
    ],
)
def test_a_worker_gives_way_to_one_that_holds_fewer_but_never_for_long(
    monkeypatch: pytest.MonkeyPatch, others: int | None, taken: list[int]
) -> None:
    monkeypatch.setattr(module, "_GIVE_WAY_SECONDS", 3600.0)  # the test ends each pause itself
    assert taken_beside(others) == taken


def test_a_small_difference_is_no_reason_to_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GIVE_WAY_SECONDS", 3600.0)
    first, *_, last = taken_beside(8)
    assert 9 <= first <= 11  # one that has just arrived may count twice for a moment
    assert last > first


def test_a_pause_ends_by_itself() -> None:
    file = shared_file(2)
    own, other, _ = (Cells(2, block, descriptor=file) for block in range(3))
    other.own[READY] = 1.0
    held: set[Held] = set()

    async def run(listener: socket.socket) -> None:
        taking = Acceptor(listener, lambda: Held(held), held.__len__, own)
        async with asyncio.timeout(20):
            while len(held) < WAITING:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        taking.close()
        for one in held:
            one.transport.close()
        await settle()

    with queue(WAITING) as listener:
        asyncio.run(run(listener))


def test_a_connection_that_arrives_while_another_takes_the_workers_place_is_served() -> None:
    cells = Cells(2, 0, descriptor=shared_file(2))
    held: set[Held] = set()

    async def run(listener: socket.socket) -> None:
        taking = Acceptor(listener, lambda: Held(held), held.__len__, cells)
        taking._accept()  # accepted, and not served yet
        taking.retire()
        assert (len(held), taking.arriving) == (0, 1)
        await settle()
        assert (len(held), taking.arriving) == (1, 0)
        (one,) = held
        assert not one.told_to_end
        one.transport.close()
        await settle()

    with queue(2) as listener:
        asyncio.run(run(listener))
    assert len(held) == 1  # the other one waits for whoever comes


def test_a_connection_that_arrives_while_the_worker_ends_is_told_to_end_and_nobody_gives_way_any_more() -> None:
    file = shared_file(2)
    own, other, _ = (Cells(2, block, descriptor=file) for block in range(3))
    own.own[READY] = 1.0
    held: set[Held] = set()

    async def run(listener: socket.socket) -> list[bool]:
        taking = Acceptor(listener, lambda: Held(held), held.__len__, own)
        taking._accept()  # accepted, and not served yet
        assert not held
        taking.close()
        await taking.wait_closed()
        await settle()
        ends = [one.told_to_end for one in held]
        for one in held:
            one.transport.close()
        await settle()
        return ends

    with queue(2) as listener:
        assert asyncio.run(run(listener)) == [True]
    assert other.least_of_others(CONNECTIONS, among=READY) == math.inf
