"""Takes connections from a socket that several workers share, so that each comes to hold about as many.

The kernel wakes every idle worker for a connection, and the first one awake takes all that wait: a client's pool,
opened in one go and kept, would end up in one process. So a worker takes one connection at a time, and gives way for a
millisecond where another one holds fewer. It never waits longer, and then takes one, two, four ...: the other may be
busy for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import socket
from typing import TYPE_CHECKING, Final

from service.counts.cells import CONNECTIONS, READY
from service.logging import get_logger

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from service.counts.cells import Cells

    class Connection(asyncio.Protocol):
        """What the web server makes of a connection."""

        def shutdown(self) -> None:
            """End it once it is idle."""


__all__ = ["Acceptor"]

_GIVE_WAY_SECONDS: Final = 0.001
# More than another worker by this much, and by this share of what it holds, is no reason to give way.
_SLACK: Final = 1
_SLACK_SHARE: Final = 8
# A client that is quick gets through among so many that say nothing.
_FEWEST_HANDSHAKES: Final = 16
# In one turn of the event loop: only after it are those made room for that are too many.
_MOST_AT_ONCE: Final = 16
# Without a descriptor or memory for a connection there is nothing to do but wait; as asyncio does.
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EXHAUSTED_SECONDS: Final = 1.0

_log: Final = get_logger("service")


class Acceptor:
    """Accepts on one event loop. Has the methods by which the web server ends what listens.

    Args:
        listener: The shared socket; not closed here.
        make_protocol: Makes what serves a connection.
        served: Connections that are served now.
        cells: Where workers tell each other how many they hold.
        tls: What connections are encrypted by; None for plain ones.
        handshake_seconds: How long a client may take until it is, for which a server that ends waits.
        most: Most connections, handshakes that go on included, of which a few may go on even where that is reached.
        on_full: Told of each handshake that is ended for one that came later.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], Connection],
        served: Callable[[], int],
        cells: Cells,
        *,
        tls: ssl.SSLContext | None = None,
        handshake_seconds: float | None = None,
        most: float = math.inf,
        on_full: Callable[[], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._make_protocol = make_protocol
        self._served = served
        self._cells = cells
        self._tls = tls
        self._handshake_seconds = None if tls is None else handshake_seconds
        self._closed = False  # for connections that are not accepted yet
        self._ending = False  # and for those that are
        self._patience = 1  # connections taken after giving way, whoever holds fewer
        self._pause: asyncio.TimerHandle | None = None
        self._arriving: set[asyncio.Task[object]] = set()
        self._handshakes: dict[asyncio.Task[object], socket.socket] = {}  # that go on, the longest first
        self._most = most
        self._on_full = on_full
        listener.setblocking(False)
        self._held()
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept no more, and end those that are not served yet."""
        self._ending = True
        self.retire()

    def retire(self) -> None:
        """Accept no more; those that were accepted are served."""
        self._closed = True
        self._held()
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Return when what was accepted is being served."""
        if self._arriving:
            await asyncio.wait(self._arriving)

    @property
    def arriving(self) -> int:
        """Connections that were accepted and are not served yet."""
        return len(self._arriving)

    def _held(self) -> int:
        """Connections of this worker, told to the others. One that has just arrived may count twice for a moment."""
        held = self._served() + len(self._arriving)
        self._cells.own[CONNECTIONS] = math.inf if self._closed else held  # no other gives way to one that ends
        return held

    def _accept(self) -> None:
        """Take the next connection, or give way."""
        least = self._cells.least_of_others(CONNECTIONS, among=READY)
        if least is not None and self._held() > least + _SLACK + least // _SLACK_SHARE:
            self._wait(_GIVE_WAY_SECONDS)
            return
        self._patience = 1
        self._take()

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)
        for _ in range(self._patience):
            if not self._take():
                self._patience = 1
                return
        self._patience = min(2 * self._patience, _MOST_AT_ONCE)

    def _take(self) -> bool:
        """Take one connection; false where none waits."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another worker was faster, or the client has gone
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            _log.error("accept_failed", error=str(error), wait_seconds=_EXHAUSTED_SECONDS)
            self._wait(_EXHAUSTED_SECONDS)
            return False
        self.adopt(connection)
        return True

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection, whoever accepted it."""
        connection.setblocking(False)
        # Nagle's algorithm is turned off by the event loop, as the listener states its protocol.
        task = self._loop.create_task(self._serve(connection))
        self._arriving.add(task)
        task.add_done_callback(self._arrived)
        if self._tls is not None:
            self._handshakes[task] = connection
            self._bound_handshakes()
        self._held()

    def _bound_handshakes(self) -> None:
        """End the longest where there are too many: the protocol, which makes room, does not know of these yet."""
        if len(self._handshakes) <= max(_FEWEST_HANDSHAKES, self._most - self._served()):
            return
        connection = self._handshakes.pop(next(iter(self._handshakes)))
        with contextlib.suppress(OSError):  # its client was faster
            connection.shutdown(socket.SHUT_RDWR)  # the event loop sees its end, and closes it
        if self._on_full is not None:
            self._on_full()

    def _arrived(self, task: asyncio.Task[object]) -> None:
        self._arriving.discard(task)
        self._handshakes.pop(task, None)
        self._held()

    async def _serve(self, connection: socket.socket) -> None:
        try:
            _, protocol = await self._loop.connect_accepted_socket(
                self._make_protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake_seconds,
            )
        except OSError:  # the client has gone meanwhile
            return
        if self._ending:  # after the web server told its connections to end; this one it did not know
            protocol.shutdown()
