"""uvicorn's protocol with limits: on the size of a head, and on how long a client may take to send and to take.

Whatever ends a connection early is said as a problem document where that can be, after the answers to what came before
it, and counted. Nothing that came after it is ever read as a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import httptools

from service.edge.held_bodies import Held
from service.edge.joined_writes import JOINED_WRITES, JoinedWrites
from service.edge.patient_flow import PatientFlow
from service.edge.refusals import answer_bytes, full, late, malformed, not_to_the_letter, reason_of, too_large
from service.edge.resting import RestingProtocol
from service.errors import OverloadedError, problem_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from service.edge.guard import Guard
    from service.errors import ServiceError

__all__ = ["GuardedProtocol"]

# So long is what comes after a refusal thrown away, that its sender gets to read it; and so long may an application
# take to answer what cannot be received any more.
_LINGER_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 5.0
# Connections beyond the most that may be open: each is told so, and holds a descriptor until its client has read it.
_MOST_LINGER: Final = 24
# Between the parts of a header, and the line ends around it.
_AROUND_HEADER: Final = 4


class GuardedProtocol(RestingProtocol):
    """One connection. Whoever derives from it sees to it that there always is a `cycle`.

    Args:
        guard: The limits, and who looks after them.
        given: What uvicorn gives its protocols.
    """

    flow: PatientFlow

    def __init__(self, guard: Guard, **given: Any) -> None:
        super().__init__(**given)
        self._guard = guard
        self._limits = guard.limits
        self._held = Held(guard.bodies, self)
        self._between = True  # the parser has seen the end of a request, and nothing after it
        self._in_head = False
        self._fresh: bytes | None = None  # what came in, if a request began with it and none has ended in it
        self._began = False  # a request, with what came in last
        self._bodiless = True  # what came in last held nothing of a body
        self._unread_bytes = 0  # of a head that has not ended, or between parts of a body
        self._since: float | None = None  # the client is waited for
        self._stuck_since: float | None = None  # the client takes nothing
        self._over = False  # nothing more is read
        self._fault: ServiceError | None = None  # why
        self._unsaid = False  # it has to be said, after the answers to what came before
        self._write: Callable[[bytes], None] = _no_write
        self._is_closing: Callable[[], bool] = bool

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; it is idle until something comes."""
        self._write = transport.write
        self._is_closing = transport.is_closing
        super().connection_made(cast("asyncio.Transport", JoinedWrites(transport, self._unsent)))
        self.flow = PatientFlow(transport, self.pipeline)
        beyond = len(self.connections) - self._limits.connections
        if beyond > 0 and not self._guard.make_room(cast("set[GuardedProtocol]", self.connections)):
            self._refuse(full(self._limits.connections))
            if beyond > _MOST_LINGER:
                self.transport.close()
            return
        self._rest()

    def idle_since(self) -> float | None:
        """Since when nothing is on its way, nor was refused; None while something is."""
        return None if self._over or self._stuck_since is not None or self._is_closing() else self._idle_since

    def make_room(self) -> None:
        """End at once, without waiting for TLS's farewell: it is idle, and its descriptor is needed."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._guard.release(self)
        self._held.give()
        lost = cast("JoinedWrites", self.transport).lost
        if lost is not None:
            lost()
        super().connection_lost(exc)

    # What comes in.

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self._over:
            return
        self._fresh = data if self._between else None
        self._bodiless = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The offer is not taken, and what came right behind it cannot be told from what was to follow on it.
            if upgrade.args[0] < len(data):
                self._over = True
                self._between = False
                self.cycle.keep_alive = False
                if self.cycle.response_complete:
                    self.transport.close()
                return
        except httptools.HttpParserError as error:
            self._refuse(self._fault or malformed(error))
            return
        self._account(data)

    def _account(self, data: bytes) -> None:
        """See what is left open by what came in."""
        if self._between:
            if self._since is not None:
                self._since = None
                if self._stuck_since is None:
                    self._guard.release(self)
            if self._idle_since is None and self.cycle.response_complete and not self.pipeline:
                self._rest()  # the end of a request that was answered before it was there
            return
        if self._since is None:
            self._since = self.loop.time()
            self._guard.watch(self, self.loop)
        if self._in_head or self._bodiless:
            # Where other requests came before it, who knows how much of it came: what follows will tell.
            if not self._began or self._fresh is not None:
                self._unread_bytes += len(data)
            if self._unread_bytes > self._limits.head_bytes:
                self._refuse(too_large(f"at most {self._limits.head_bytes} bytes", "more"))
        self._began = False

    def on_message_begin(self) -> None:
        """Begin a request; nothing is made for it yet."""
        self._between = False
        self._in_head = self._began = True
        self._unread_bytes = 0
        self._idle_since = None
        if self._since is not None:
            self._since = self.loop.time()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what stands behind a chunked body is none."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin a request whose head is there and not too large."""
        limits, data, headers = self._limits, self._fresh, self.headers
        if len(headers) > limits.headers:
            self._fault = too_large(f"at most {limits.headers} headers", str(len(headers)))
            raise self._fault
        if data is None or len(data) > limits.head_bytes:
            size = len(self.url) + sum(len(name) + len(value) + _AROUND_HEADER for name, value in headers)
            if size > limits.head_bytes:
                self._fault = too_large(f"at most {limits.head_bytes} bytes", f"{size} or more")
                raise self._fault
        self._fault = not_to_the_letter(self.parser.get_http_version(), headers)
        if self._fault is not None:
            raise self._fault
        self._begin_request()
        self._in_head = False
        self._unread_bytes = 0
        if self._since is not None:
            self._since = self.loop.time()

    def _begin_request(self) -> None:
        """Choose a request's way."""
        self._begin_ordinarily()

    def _begin_ordinarily(self) -> None:
        """Make for a request, of which the head is there, what uvicorn makes as it comes in."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        self.scope["extensions"] = {JOINED_WRITES: cast("dict[object, object]", self.transport)}
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._hold(body)
        self._hand_on(body)

    def _hold(self, body: bytes) -> None:
        """See to it that there is room for a piece of a body."""
        self._bodiless = False
        if self.cycle.response_started or self.cycle.response_complete:
            self._held.give()  # what is answered already is thrown away as it comes
            return
        try:
            self._held.take(len(body))
        except OverloadedError as error:
            self._fault = error
            raise

    def _hand_on(self, body: bytes) -> None:
        """Let the application have what is held of a body."""
        super().on_body(body)

    def is_sending(self) -> bool:
        """Whether a part of a body is there, and not all of it."""
        return not (self._between or self._in_head or self._over)

    def crowd_out(self, error: OverloadedError) -> None:
        """Refuse the request whose body comes in: there is no room for what is there of it."""
        self._refuse(error)

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        self._between = True
        self._fresh = None
        super().on_message_complete()

    # What is refused.

    def _refuse(self, error: ServiceError) -> None:
        """End a connection for what came in, or did not; nothing more is read."""
        in_body = not self._between and not self._in_head
        self._over = True
        self._between = False
        self._fault = error
        self._since = self.loop.time()
        self._guard.watch(self, self.loop)
        if in_body:
            self._guard.count(reason_of(error), None)
            self._refuse_body(error)
            return
        self._guard.count(reason_of(error), problem_of(error).status)
        if self.cycle.response_complete and not self.pipeline:
            self._say(error)
        else:
            self._unsaid = self.flow.held = True
            self.flow.pause_reading()

    def _refuse_body(self, error: ServiceError) -> None:
        """Let whoever waits for the rest of a body refuse the request."""
        if self.cycle.response_complete and not self.pipeline:  # nobody waits for it
            self.transport.close()
            return
        self.cycle.keep_alive = False
        cast("JoinedWrites", self.transport).fault = error
        self.cycle.message_event.set()

    def _say(self, error: ServiceError) -> None:
        """Write the refusal, and wait a moment for its reader: who is cut off while sending may never see it."""
        self._unsaid = False
        self._since = self.loop.time()
        if self._is_closing():
            return
        self.transport.write(answer_bytes(error, self.server_state.default_headers))
        if self.transport.can_write_eof():
            self.flow.held = False
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

    def look(self, now: float) -> None:
        """End the connection if the client takes too long."""
        limits = self._limits
        if self._stuck_since is not None and now - self._stuck_since > limits.answer_seconds:
            self._guard.count("answer_late", None)
            self.transport.abort()
            return
        since = self._since
        if since is None:
            return
        waits = bool(self.pipeline) or not self.cycle.response_complete  # for answers to what came before
        if self._over:
            if self._unsaid or self.pipeline:
                self._since = now
            elif now - since > (_ANSWER_SECONDS if waits else _LINGER_SECONDS):
                self.transport.abort()
        elif self.flow.read_paused or self.pipeline or (self._in_head and waits):
            self._since = now  # not the client's doing
        else:
            where, seconds = ("head", limits.head_seconds) if self._in_head else ("body", limits.body_seconds)
            if now - since > seconds:
                self._refuse(late(where, seconds))

    # What goes out.

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for one."""
        self.server_state.total_requests += 1
        if self._held.bytes:
            self._held.give()
        if self._is_closing():
            return
        queued = self.pipeline.pop() if self.pipeline else None
        if self.flow.read_paused:
            self.flow.resume_reading()
            if self._unsaid and queued is None and self._fault is not None:
                self._say(self._fault)
                return
        if queued is not None:
            self._start_asgi_task(*queued)
        elif self._between:
            self._idle_since = self.loop.time()
            if self.timeout_keep_alive_task is None:
                self._look_again(self.timeout_keep_alive)

    def pause_writing(self) -> None:
        """The client does not take what is written."""
        super().pause_writing()
        self._unsent()

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if self._is_closing():  # what is left must go, too
            self._stuck_since = self.loop.time()
            return
        self._stuck_since = None
        if self._since is None:
            self._guard.release(self)

    def _unsent(self) -> None:
        """Look after what is written and not taken."""
        self._stuck_since = self.loop.time()
        self._guard.watch(self, self.loop)


def _no_write(_data: bytes) -> None:
    """Stands where no connection is made yet."""
