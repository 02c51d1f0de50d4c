"""uvicorn's protocol, with a lane beside it for requests that need nothing of ASGI.

What a connection is and when it ends stays uvicorn's: requests in the lane stand in its books as a `cycle`, as every
other. Whatever is unusual (another route, a head that is refused, a body that is long or compressed, a client that
waits for `100 Continue`, that sends ahead of its answers or does not read them) goes uvicorn's way.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast

from service.edge.guarded import GuardedProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.edge.fast_lane import FastLane, Known
    from service.edge.guard import Guard
    from service.edge.joined_writes import JoinedWrites
    from service.errors import ServiceError

__all__ = ["LaneProtocol"]

_END_OF_HEAD: Final = b"\r\n\r\n"


class _LaneCycle:
    """What uvicorn's protocol wants to know of a request on its way. One a connection, used again and again.

    Attributes:
        response_complete: Nothing is on its way.
        response_started: Never: an answer is written as a whole.
        keep_alive: Whether the connection stays open after the answer.
        disconnected: The client has gone.
        message_event: Nobody waits for it.
    """

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete")
    response_started: Final = False

    def __init__(self) -> None:
        self.response_complete = True
        self.keep_alive = True
        self.disconnected = False
        self.message_event = asyncio.Event()


class LaneProtocol(GuardedProtocol):
    """One connection.

    Args:
        lane: Where requests are answered that need no more; None for nowhere.
        guard: The limits, and who looks after them.
        given: What uvicorn gives its protocols.
    """

    def __init__(self, lane: FastLane | None, guard: Guard, **given: Any) -> None:
        super().__init__(guard, **given)
        plain = not self.root_path and not self.access_log and self.limit_concurrency is None
        self._lane = lane if plain else None
        self._own = _LaneCycle()
        self._own_cycle = cast("Any", self._own)
        self.cycle = self._own_cycle  # nothing is on its way
        self._known: Known | None = None  # of the request that is being received in the lane
        self._parts: list[bytes] = []  # of its body
        self._size = 0
        self._head_at = 0.0

    def connection_lost(self, exc: Exception | None) -> None:
        """End; an application that waits for the rest of a body is told."""
        if self._known is not None:
            self._leave_lane()
        super().connection_lost(exc)

    # What comes in.

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        lane = self._lane
        if lane is not None and self._between and self.cycle.response_complete:
            # The same bytes mean the same to a parser that has seen the end of everything before.
            end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
            known = lane.recall(data[:end])
            if known is not None and len(data) - end == known.length and not self.flow.write_paused:
                self._idle_since = None
                own = self._own
                self.cycle = self._own_cycle
                own.response_complete = False
                own.keep_alive = known.keep_alive
                lane.enter(self, known, data[end:])
                return
        super().data_received(data)

    def _begin_request(self) -> None:
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
                    self._head_at = perf_counter()
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
        self._hold(body)
        self._parts.append(body)
        self._size += len(body)
        if self._lane is None or self._size > self._lane.most_bytes:
            self._leave_lane()

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        known, lane = self._known, self._lane
        if known is None or lane is None:
            super().on_message_complete()
            return
        self._between = True
        data, self._fresh = self._fresh, None
        body = self._take_body()
        # A parser that has seen the last request of a connection takes no notice of what comes after it: it has to.
        if data is not None and body and known.keep_alive:
            end = len(data) - len(body)
            head = data[:end]
            # One request and nothing else, its body as it is: whatever comes with this head is as long. Where lines do
            # not end as they should, a parser may see the end of the head elsewhere.
            alone = data.find(_END_OF_HEAD) == end - len(_END_OF_HEAD) and data.endswith(body)
            if alone and head.count(b"\n") == head.count(b"\r\n"):
                lane.remember(head, known, len(body))
        lane.enter(self, known, body, self._head_at)

    def _take_body(self) -> bytes:
        """What has come of the body of the request in the lane, which is received no more."""
        parts, self._parts, self._known, self._size = self._parts, [], None, 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _leave_lane(self) -> None:
        """Go on in the ordinary way with a request that is not there as a whole."""
        body = self._take_body()
        self._own.response_complete = True
        self._begin_ordinarily()
        self.cycle.keep_alive = self._own.keep_alive  # the server may have begun to stop since the head came
        self._hand_on(body)

    def _refuse_body(self, error: ServiceError) -> None:
        """Let whoever waits for the rest of a body refuse the request: never the lane."""
        if self._known is not None:
            self._leave_lane()
        super()._refuse_body(error)

    def watch(self, tell: Callable[[], None] | None) -> None:
        """Have somebody told when the client hangs up; None ends that."""
        cast("JoinedWrites", self.transport).lost = tell

    def pass_on(self, give: Callable[[int], bool]) -> bool:
        """Let another process have the connection, if nothing is on its way and nothing of it is kept here.

        Args:
            give: Takes its descriptor, which stays this process's too; false where it cannot.

        Returns:
            Whether it has gone, without its client's noticing.
        """
        transport = self.transport
        # One without a lane may be in the middle of something that is no request.
        if self.idle_since() is None or not self._between or self._lane is None or transport.get_write_buffer_size():
            return False
        if not give(transport.get_extra_info("socket").fileno()):
            return False
        transport.abort()  # which closes this process's descriptor, and says nothing to the client
        return True

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
