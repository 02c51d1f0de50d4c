"""The fast lane: small scoring requests, answered on the event loop by plain calls from the protocol to the stages.

A request of the usual kind is known as a whole when its last byte is in: nothing has to be awaited, so nothing of
ASGI is needed to answer it, no task, no events, no messages. What is done with it is `ScoreEndpoint`'s, as for every
other request, and so are the bytes of the answer. Requests that became complete during one turn of the event loop go
through the stages together: all are read, then all scored (each by a call of its own), then all answered. Each stage is
other code over other memory, far more of both than a processor's nearest caches hold, and finds them cold after the
others. Nothing waits for company.
"""

from __future__ import annotations

import contextlib
import re
from asyncio import CancelledError
from hashlib import sha256
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.errors import NotReadyError
from service.logging import get_logger
from service.pipeline import ManyRowsError
from service.routes.score import GONE, OK
from service.tracing.context import TRACEPARENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from service.edge.protocol import LaneProtocol
    from service.pipeline import Stages, Work
    from service.routes.score import ScoreEndpoint
    from service.runtime import Model, Runtime

    _Asked = tuple[LaneProtocol, "Known", Work]

__all__ = ["FastLane", "Known"]

# Longer requests keep a processor's caches busy by themselves, and would hold each other up.
_STAGED_BODY_BYTES: Final = 32_768
# Heads as they came; clients send few, but may send any.
_MOST_HEADS: Final = 512
_LONGEST_HEAD: Final = 2_048
# Heads with what lets a client in are kept as digests: that itself stays in memory no longer than its request does.
_SECRETS: Final = frozenset((b"authorization", b"cookie", b"proxy-authorization", b"x-api-key"))
# Paths that are what they look like: nothing quoted, no query.
_plain_path: Final = re.compile(rb"/[\w./~-]*").fullmatch
_log: Final = get_logger("service.score")


class Known(NamedTuple):
    """What a request's head says, found acceptable.

    Attributes:
        endpoint: Whose it is.
        model: The model to score with.
        stages: What its form is run by.
        head: What the endpoint made of the headers.
        keep_alive: Whether the connection stays open after the answer.
        length: Bytes of the body, where known by the head; else 0.
        keys: The API keys that were good then; None where none is asked for.
    """

    endpoint: ScoreEndpoint
    model: Model
    stages: Stages[Any]
    head: Any
    keep_alive: bool
    length: int = 0
    keys: object = None


class FastLane:
    """Runs the requests that connections of one event loop hand in.

    Args:
        runtime: The process's state.
        find: The endpoint of a path; None where it is none of the hot ones.
    """

    def __init__(self, runtime: Runtime, find: Callable[[str], ScoreEndpoint | None]) -> None:
        self._runtime = runtime
        self._find = find
        self._new_request_id = runtime.new_request_id
        self._turn: list[_Asked] = []
        self._answered: list[tuple[_Asked, int, float]] = []
        self._keys = runtime.keys
        self._heads: dict[bytes, Known] = {}
        self._digested = False  # some of them, those with secrets
        self._defaults: object = None  # the web server's headers of every answer, and how an answer with them begins
        self._begin_ok = b""
        self._parting = False
        self.most_bytes = min(runtime.settings.inline_body_bytes, runtime.settings.max_body_bytes)

    def admit(self, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> Known | None:
        """Look at a request's head; None where it has to be answered in the ordinary way, which also refuses."""
        if method != b"POST" or not _plain_path(url):
            return None
        path = url.decode("ascii")
        endpoint = self._find(path)
        if endpoint is None:
            return None
        keys = None if self._keys is None else self._keys.now()  # before they are asked: they may change meanwhile
        try:
            model, head = endpoint.admit({"method": "POST", "path": path, "headers": headers})
        except Exception:  # noqa: BLE001 - whatever it is, the ordinary way finds it again and answers it
            return None
        if head.compressed or head.length > self.most_bytes or model.coalescer is not None:
            return None
        return Known(endpoint, model, endpoint.stages(model), head, keep_alive and not self._parting, keys=keys)

    def part(self) -> None:
        """End every connection with its next answer."""
        self._parting = True
        self._heads.clear()

    def recall(self, head: bytes) -> Known | None:
        """What was made of the same bytes of a head before."""
        known = self._heads.get(head)
        if known is None:
            if not self._digested or (known := self._heads.get(sha256(head).digest())) is None:
                return None
            if self._keys is not None and known.keys is not self._keys.now():
                return None
        return known if known.model is self._runtime.model else None

    def remember(self, head: bytes, known: Known, length: int) -> None:
        """Keep what was made of a head, for requests that begin with the same bytes."""
        if len(head) > _LONGEST_HEAD or TRACEPARENT in known.head.named:
            return  # one that names its span never comes again
        if len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
            self._digested = False
        secrets = _SECRETS & known.head.named.keys()
        for name in secrets:
            del known.head.named[name]
        if secrets:
            self._digested = True
            head = sha256(head).digest()
        self._heads[head] = known._replace(length=length)

    def enter(self, protocol: LaneProtocol, known: Known, body: bytes, since: float = 0.0) -> None:
        """Take a whole request, its head there since then; it is answered when all that came in this turn is there."""
        work = known.endpoint.make_work(body, self._new_request_id(), known.head)
        work.received = perf_counter()
        if known.head.deadline_seconds is not None:
            work.due = (since or work.received) + known.head.deadline_seconds
        work.most_rows = known.endpoint.inline_candidates
        turn = self._turn
        if not turn:
            protocol.loop.call_soon(self._run)
        turn.append((protocol, known, work))

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[None]:
        """Count nothing meanwhile."""
        self._note = _no_note  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            del self._note

    def _run(self) -> None:
        """Answer everyone who is there; then count them."""
        turn, self._turn = self._turn, []
        if len(turn) > 1:
            short = [asked for asked in turn if _is_staged(asked)]
            self._write(self._infer(self._read(short)))
            if len(short) < len(turn):
                self._run_each([asked for asked in turn if not _is_staged(asked)])
        else:
            self._run_each(turn)
        self._count()

    def _run_each(self, turn: list[_Asked]) -> None:
        for asked in turn:
            _, known, work = asked
            try:
                if work.due:
                    self._runtime.gate.refuse_late(work)
                known.stages.run(work)
            except ManyRowsError as many:
                self._hand_over(asked, many.rows)
            except Exception as error:  # noqa: BLE001 - the last resort: logged, answered, the others go on
                self._refuse(asked, error)
            else:
                self._answer(asked)

    def _hand_over(self, asked: _Asked, rows: int) -> None:
        """Have a request scored by a worker thread, in its turn: it would hold the others up."""
        protocol = asked[0]
        task = protocol.loop.create_task(self._score_beside(asked, rows))
        tasks = protocol.server_state.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _score_beside(self, asked: _Asked, rows: int) -> None:
        protocol, known, work = asked
        terms = self._runtime.gate.look(known.head, long=False)
        try:
            await known.endpoint.run_beside(known.stages, work, terms, protocol.watch, rows=rows)
        except CancelledError:  # the web server is ending, and has waited for as long as it does
            self._refuse(asked, NotReadyError("Not ready: the service is stopping."))
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(asked, error)
        else:
            self._answer(asked)
        self._count()

    # The stages of several. Each returns those that got through; the others have their answers.

    def _read(self, turn: list[_Asked]) -> list[_Asked]:
        through = []
        for asked in turn:
            _, known, work = asked
            try:
                if work.due:
                    self._runtime.gate.refuse_late(work)
                known.stages.read(work)
            except ManyRowsError as many:
                self._hand_over(asked, many.rows)
            except Exception as error:  # noqa: BLE001 - as above
                self._refuse(asked, error)
            else:
                through.append(asked)
        return through

    def _infer(self, turn: list[_Asked]) -> list[_Asked]:
        through = []
        for asked in turn:
            _, known, work = asked
            work.lag = perf_counter() - work.encoded
            try:
                work.scores = known.stages.infer(work.context_ids, work.candidate_ids)
            except Exception as error:  # noqa: BLE001 - as above
                self._refuse(asked, error)
            else:
                work.inferred = perf_counter() - work.lag
                through.append(asked)
        return through

    def _write(self, turn: list[_Asked]) -> None:
        for asked in turn:
            _, known, work = asked
            work.lag = perf_counter() - work.inferred
            try:
                known.stages.write(work)
            except Exception as error:  # noqa: BLE001 - as above
                self._refuse(asked, error)
            else:
                self._answer(asked)

    def _refuse(self, asked: _Asked, error: Exception) -> None:
        _, known, work = asked
        try:
            status, headers, body = known.endpoint.refuse(error, work.request_id, known.model)
            self._send(asked, status, headers, body)
        except Exception as fault:  # noqa: BLE001 - as above
            self._give_up(asked, fault)

    def _answer(self, asked: _Asked) -> None:
        _, known, work = asked
        try:
            self._send(asked, OK, known.endpoint.answer_headers(work), work.answer)
        except Exception as fault:  # noqa: BLE001 - as above
            self._give_up(asked, fault)

    def _send(self, asked: _Asked, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Write an answer."""
        protocol = asked[0]
        parts = [self._begin(protocol, status)]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        if not protocol.finish(parts, body):
            status = GONE
        self._note(asked, status)

    def _note(self, asked: _Asked, status: int) -> None:
        """Remember to count a request: that, too, is a stage, and finds the caches cold after the others."""
        self._answered.append((asked, status, perf_counter()))

    def _count(self) -> None:
        answered, self._answered = self._answered, []
        for (_, known, work), status, ended in answered:
            try:
                known.endpoint.count(known.model, work, status, work.received, ended)
            except Exception as fault:  # noqa: BLE001 - as above; it has its answer
                _log.error("count_failed", request_id=work.request_id, exc_info=fault)

    def _give_up(self, asked: _Asked, fault: Exception) -> None:
        """End a connection whose answer failed, as the web server does where an application fails halfway."""
        protocol, _, work = asked
        _log.error("answer_failed", request_id=work.request_id, exc_info=fault)
        protocol.transport.close()

    def _begin(self, protocol: LaneProtocol, status: int) -> bytes:
        """Status line and the web server's own headers."""
        defaults = protocol.server_state.default_headers
        if status == OK and defaults is self._defaults:
            return self._begin_ok
        # That a connection ends is said by the protocol, which knows of each.
        lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in defaults if header[0] != b"connection")]
        begin = b"".join(lines)
        if status == OK:
            self._defaults, self._begin_ok = defaults, begin
        return begin


def _no_note(_asked: _Asked, _status: int) -> None:
    """Stands where nothing is counted."""


def _is_staged(asked: _Asked) -> bool:
    """Whether a request goes through the stages with others: not where each may be for another version."""
    return len(asked[2].body) <= _STAGED_BODY_BYTES and asked[1].model.canary is None
