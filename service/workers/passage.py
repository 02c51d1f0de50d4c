"""Connections pass from a process to the one that takes its place, and their clients notice nothing.

Each of the workers' places has a queue of connections, which the kernel keeps: the process that goes puts in those on
which nothing is on its way, and the one that serves takes them out. What a client sends meanwhile waits in the
connection itself. Nothing else has to be told: between two requests, all that a connection is lies in the kernel.

Not so under TLS, whose state is the process's own; and not where the system has no such queues. There, clients are told
with their next answer that their connection ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    class Passing(Protocol):
        """A connection."""

        def pass_on(self, give: Callable[[int], bool]) -> bool:
            """Let another process have it, if it is idle."""


__all__ = ["NO_PASSAGE", "Giver", "Passage", "Taker", "open_passage"]

_MESSAGE: Final = b"c"
# At a time: the process that takes them serves already, and each costs it as much as a request or two.
_MOST_AT_ONCE: Final = 4


class Passage(NamedTuple):
    """Descriptors of a queue's two ends; -1 where there is none."""

    giver: int
    taker: int


NO_PASSAGE: Final = Passage(-1, -1)


def open_passage() -> Passage:
    """A queue, neither of whose ends ever waits; `NO_PASSAGE` where the system has none."""
    if sys.platform != "linux":
        return NO_PASSAGE
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return Passage(*(end.detach() for end in ends))


class Giver:
    """The end at which a process puts its connections in.

    Args:
        descriptor: Of that end.
    """

    def __init__(self, descriptor: int) -> None:
        self._end = socket.socket(fileno=os.dup(descriptor))

    def step(self, connections: Iterable[Passing]) -> bool:
        """Put in a few of those that are idle; returns whether any was, and more may be."""
        given = 0
        for connection in connections:
            given += connection.pass_on(self._give)
            if given == _MOST_AT_ONCE:
                break
        return given > 0

    def close(self) -> None:
        """Put in no more."""
        self._end.close()

    def _give(self, descriptor: int) -> bool:
        try:
            socket.send_fds(self._end, [_MESSAGE], [descriptor])
        except OSError:  # it is full: later
            return False
        return True


class Taker:
    """The end at which a process takes connections out, on the running event loop.

    Has the methods by which the web server ends what listens.

    Args:
        descriptor: Of that end.
        adopt: Told of each connection.
    """

    def __init__(self, descriptor: int, adopt: Callable[[socket.socket], None]) -> None:
        self._end = socket.socket(fileno=os.dup(descriptor))
        self._adopt = adopt
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._end, self._take)

    def close(self) -> None:
        """Take no more; what is in the queue stays there for whoever comes next."""
        if self._end.fileno() >= 0:
            self._loop.remove_reader(self._end)
            self._end.close()

    async def wait_closed(self) -> None:
        """Return at once: who adopts a connection knows when it is served."""

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):  # a process that was here before was faster
            _, descriptors, _, _ = socket.recv_fds(self._end, len(_MESSAGE), 1)
            for descriptor in descriptors:
                self._adopt(socket.socket(fileno=descriptor))
