"""Sockets, readiness and the clock: everything of the engine that touches the machine, behind one small interface.

Timers of asyncio and uvloop have a grain of one millisecond, and so has epoll's timeout, which is all the lag that an
objective of ten milliseconds allows. So the engine polls: with two CPUs to use it spins while anything is due or on
its way, and what it spins is counted as idle, not as work.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import time
from typing import TYPE_CHECKING, Final, Protocol

from service.workers.machine import Machine as Host

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.bench.http import Target

__all__ = ["READ", "WRITE", "Machine", "Network", "Wire"]

READ: Final = 1
WRITE: Final = 4
_TWO: Final = 2
_SEND_BUFFER_BYTES: Final = 1 << 20


class Wire(Protocol):
    """What the engine asks of a connection: a socket that does not block."""

    def fileno(self) -> int:
        """Its number in what `poll` answers."""

    def send(self, data: bytes | memoryview, /) -> int:
        """Send what fits now."""

    def recv(self, size: int, /) -> bytes:
        """Read what is there; nothing if the server closed."""

    def close(self) -> None:
        """Close at once."""


class Network(Protocol):
    """What the engine asks of the machine.

    Attributes:
        now: The clock, ns.
        cpu: Processor time of this process, ns.
        spins: Whether to poll without waiting while anything is due soon or on its way.
    """

    now: Callable[[], int]
    cpu: Callable[[], int]
    spins: bool

    def dial(self) -> Wire:
        """A new connection, watched for WRITE, which says that it is there."""

    def watch(self, wire: Wire, events: int) -> None:
        """Change what a connection is watched for."""

    def forget(self, wire: Wire) -> None:
        """Stop watching and close."""

    def poll(self, nanoseconds: int) -> list[tuple[int, int]]:
        """Numbers and events of connections that are ready; waits at most so long, not at all for 0."""


def _may_spin() -> bool:
    """Whether spinning leaves a server beside us a CPU: two or more of affinity mask and quota are ours.

    Bound to one CPU, nothing here can say whether a server on the same machine is bound to it too: then what is spun
    would be the server's, so spinning there is for the user to ask for.
    """
    return Host.read().cpus >= _TWO


class Machine:
    """The real network.

    Args:
        target: Where connections lead; its name is looked up once.
        spins: See `Network`; None spins where this process may use two CPUs or more.

    Raises:
        OSError: The name is not known.
    """

    def __init__(self, target: Target, *, spins: bool | None = None) -> None:
        self.now = time.perf_counter_ns
        self.cpu = time.process_time_ns
        self.spins = _may_spin() if spins is None else spins
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        self._family = found[0][0]
        self._address = found[0][4]
        self._poller: _Epoll | _Selector = _Epoll() if hasattr(select, "epoll") else _Selector()
        self.poll = self._poller.poll
        self.watch = self._poller.watch

    def dial(self) -> Wire:
        """A new connection; what goes wrong with it shows when it is used."""
        wire = socket.socket(self._family, socket.SOCK_STREAM)
        wire.setblocking(False)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        wire.connect_ex(self._address)
        self._poller.add(wire)
        return wire

    def forget(self, wire: Wire) -> None:
        """Stop watching and close."""
        self._poller.remove(wire)
        wire.close()

    def close(self) -> None:
        """Give the poller back."""
        self._poller.close()


class _Epoll:
    """Linux. Waits go through `select` on the epoll itself, whose timeout is in microseconds."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ready = self._epoll.poll
        self._handle = [self._epoll.fileno()]

    def add(self, wire: Wire) -> None:
        self._epoll.register(wire.fileno(), WRITE)

    def watch(self, wire: Wire, events: int) -> None:
        self._epoll.modify(wire.fileno(), events)

    def remove(self, wire: Wire) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(wire.fileno())

    def poll(self, nanoseconds: int) -> list[tuple[int, int]]:
        if nanoseconds > 0:
            select.select(self._handle, (), (), nanoseconds * 1e-9)
        return self._ready(0)

    def close(self) -> None:
        self._epoll.close()


class _Selector:
    """Any other system, by the standard library's best selector."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, wire: Wire) -> None:
        self._selector.register(wire.fileno(), selectors.EVENT_WRITE)

    def watch(self, wire: Wire, events: int) -> None:
        masks = (selectors.EVENT_READ if events & READ else 0) | (selectors.EVENT_WRITE if events & WRITE else 0)
        self._selector.modify(wire.fileno(), masks)

    def remove(self, wire: Wire) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(wire.fileno())

    def poll(self, nanoseconds: int) -> list[tuple[int, int]]:
        ready = self._selector.select(max(nanoseconds, 0) * 1e-9)
        return [
            (key.fd, (READ if mask & selectors.EVENT_READ else 0) | (WRITE if mask & selectors.EVENT_WRITE else 0))
            for key, mask in ready
        ]

    def close(self) -> None:
        self._selector.close()
