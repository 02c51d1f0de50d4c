"""uvicorn's protocol, with a lane beside it for requests that need nothing of ASGI.

What a connection is and when it ends stays uvicorn's: requests in the lane stand in its books as a `cycle`, as every
other. Whatever is unusual (another route, a head that is refused, a body that is long or compressed, a client that
waits for `100 Continue`, that sends ahead of its answers or does not read them) goes uvicorn's way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.joined_writes import JOINED_WRITES, JoinedWrites

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from service.fast_lane import FastLane, Known

__all__ = ["LaneProtocol"]

_END_OF_HEAD: Final = b"\r\n\r\n"


class _LaneCycle:
    """What uvicorn's protocol wants to know of a request on its way. One a connection, used again and again.

    Attributes:
        response_complete: Nothing is on its way.
        keep_alive: Whether the connection stays open after the answer.
        disconnected: The client has gone.
        message_event: Nobody waits for it.
    """

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self) -> None:
        self.response_complete = True
        self.keep_alive = True
        self.disconnected = False
        self.message_event = asyncio.Event()


class _PatientFlow(FlowControl):
    """Reads on only when all requests that came in have begun.

    uvicorn reads on with every answer, and each time as much as the kernel holds: a client that sends far ahead would
    have its requests pile up here. None that has begun needs what is not read yet, as long as others wait behind it.

    Args:
        transport: The connection's.
        queue: Requests that wait for the answers before theirs.
    """

    def __init__(self, transport: asyncio.Transport, queue: Sized) -> None:
        super().__init__(transport)
        self._queue = queue

    def resume_reading(self) -> None:
        """Read on, unless requests wait."""
        if not self._queue:
            super().resume_reading()


class LaneProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        lane: Where requests are answered that need no more; None for nowhere.
        given: What uvicorn gives its protocols.
    """

    def __init__(self, lane: FastLane | None, **given: Any) -> None:
        super().__init__(**given)
        plain = not self.root_path and not self.access_log and self.limit_concurrency is None
        self._lane = lane if plain else None
        self._own = _LaneCycle()
        self._own_cycle = cast("Any", self._own)
        self.cycle = self._own_cycle  # nothing is on its way
        self._write: Callable[[bytes], None] = _no_write
        self._is_closing: Callable[[], bool] = bool
        self._known: Known | None = None  # of the request that is being received in the lane
        self._parts: list[bytes] = []  # of its body
        self._size = 0
        self._fresh: bytes | None = None  # what came in, if a request began with it
        self._between = True  # the parser has seen the end of a request, and nothing after it
        self._idle_since: float | None = None  # None while something is on its way

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        self._write = transport.write
        self._is_closing = transport.is_closing
        super().connection_made(cast("asyncio.Transport", JoinedWrites(transport)))
        self.flow = _PatientFlow(transport, self.pipeline)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; an application that waits for the rest of a body is told."""
        if self._known is not None:
            self._leave_lane()
        super().connection_lost(exc)
        super()._unset_keepalive_if_required()

    # What comes in.

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self._idle_since = None
        lane = self._lane
        if lane is not None and self._between and self.cycle.response_complete:
            # The same bytes mean the same to a parser that has seen the end of everything before.
            end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
            known = lane.recall(data[:end])
            if known is not None and len(data) - end == known.length and not self.flow.write_paused:
                own = self._own
                self.cycle = self._own_cycle
                own.response_complete = False
                own.keep_alive = known.keep_alive
                lane.enter(self, known, data[end:])
                return
            self._fresh = data
        super().data_received(data)
        self._fresh = None

    def on_message_begin(self) -> None:
        """Begin a request; nothing is made for it yet."""
        self._between = False
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Choose the request's way."""
        lane = self._lane
        if lane is not None and not self.expect_100_continue and not self.flow.write_paused:
            parser = self.parser
            if parser.should_upgrade():
                self._lane = None  # what comes after it is no request, perhaps
            elif self.cycle.response_complete:
                keep_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive()
                self._known = lane.admit(parser.get_method(), self.url, self.headers, keep_alive=keep_alive)
                if self._known is not None:
                    self.cycle = self._own_cycle
                    self._own.response_complete = False
                    self._own.keep_alive = self._known.keep_alive
                    return
        self._begin_ordinarily()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        if self._known is None:
            super().on_body(body)
            return
        self._parts.append(body)
        self._size += len(body)
        if self._lane is None or self._size > self._lane.most_bytes:
            self._leave_lane()

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        self._between = True
        known, lane = self._known, self._lane
        if known is None or lane is None:
            super().on_message_complete()
            return
        body = self._take_body()
        data = self._fresh
        # A parser that has seen the last request of a connection takes no notice of what comes after it: it has to.
        if data is not None and body and known.keep_alive:
            end = len(data) - len(body)
            head = data[:end]
            # One request and nothing else, its body as it is: whatever comes with this head is as long. Where lines do
            # not end as they should, a parser may see the end of the head elsewhere.
            alone = data.find(_END_OF_HEAD) == end - len(_END_OF_HEAD) and data.endswith(body)
            if alone and head.count(b"\n") == head.count(b"\r\n"):
                lane.remember(head, known, len(body))
        lane.enter(self, known, body)

    def _take_body(self) -> bytes:
        """What has come of the body of the request in the lane, which is received no more."""
        parts, self._parts, self._known, self._size = self._parts, [], None, 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _begin_ordinarily(self) -> None:
        """Make for a request, of which the head is there, what uvicorn makes as it comes in."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        self.scope["extensions"] = {JOINED_WRITES: cast("dict[object, object]", self.transport)}
        super().on_headers_complete()

    def _leave_lane(self) -> None:
        """Go on in the ordinary way with a request that is not there as a whole."""
        body = self._take_body()
        self._own.response_complete = True
        self._begin_ordinarily()
        self.cycle.keep_alive = self._own.keep_alive  # the server may have begun to stop since the head came
        super().on_body(body)

    # What goes out.

    def finish(self, head: list[bytes], body: bytes) -> bool:
        """Write the answer to the request in the lane, and go on.

        Args:
            head: Status line and headers, without the empty line at their end.
            body: The body.

        Returns:
            Whether there was anyone to write to.
        """
        own = self._own
        own.response_complete = True
        if self._is_closing():
            return False
        if not own.keep_alive:
            head.append(b"connection: close\r\n")
        head += (b"\r\n", body)
        self._write(b"".join(head))
        if not own.keep_alive:
            self.transport.close()
        self.on_response_complete()
        return True

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for one."""
        self.server_state.total_requests += 1
        if self._is_closing():
            return
        queued = self.pipeline.pop() if self.pipeline else None
        if self.flow.read_paused:
            self.flow.resume_reading()
        if queued is not None:
            self._start_asgi_task(*queued)
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch(self.timeout_keep_alive)

    # How long a connection may be idle. A timer that is set and cancelled with every request costs more than one that
    # finds out what happened meanwhile.

    def _watch(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it was idle for long; else look again when it will have been."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:  # whatever ends looks again
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._watch(left)
        else:
            super().timeout_keep_alive_handler()


def _no_write(_data: bytes) -> None:
    """Stands where no connection is made yet."""
