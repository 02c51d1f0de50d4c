"""`POST /score`: the hot route. Raw ASGI, and a documented FastAPI route that leads to the same code."""

from asyncio import CancelledError
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import random
from time import perf_counter
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from service.admission import Terms
from service.coalesce import Coalescer
from service.edge.asgi import (
    ScoreHead,
    answer_headers,
    read_body,
    refusal_headers,
    send_answer,
    send_refusal,
    server_timing,
)
from service.edge.joined_writes import watch
from service.errors import (
    PROBLEM_MEDIA_TYPE,
    ClientGoneError,
    MethodNotAllowedError,
    NotReadyError,
    problem_bytes,
    problem_of,
)
from service.feedback.desk import Issued
from service.logging import get_logger, log_often
from service.pipeline import ANY_ROWS, ManyRowsError, Stages, Work
from service.runtime import Model, Runtime
from service.tracing.context import TRACEPARENT, read_traceparent
from service.trial.feed import SCORE_FORM
from service.wire import JSON, MSGPACK

__all__ = ["GONE", "OK", "PATH", "HandOver", "ScoreEndpoint", "router"]

PATH: Final = "/score"

OK: Final = 200
GONE: Final = problem_of(ClientGoneError("")).status
_SERVER_FAULT: Final = 500
_JSON: Final = JSON.encode()
_MSGPACK: Final = MSGPACK.encode()
_PROBLEM: Final = PROBLEM_MEDIA_TYPE.encode()
_log: Final = get_logger("service.score")


class ScoreEndpoint:
    """Scores one request after the other; an ASGI application of its own.

    Args:
        runtime: The process's state.

    Attributes:
        label: What requests are counted as.
    """

    label = PATH
    _faults = _log
    _form = SCORE_FORM

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._max_body_bytes = runtime.settings.max_body_bytes
        self._inline_body_bytes = runtime.settings.inline_body_bytes
        self.inline_candidates = runtime.settings.inline_candidates
        self._gzip_bytes = runtime.settings.gzip_bytes
        self._log_ratio = runtime.settings.request_log_ratio
        self._recorder = runtime.recorder
        self._feed = runtime.feed
        self._tracer = runtime.tracer
        self._tells_timing = runtime.settings.server_timing
        # Nothing beside the counts wants to know of a request.
        self._counts_alone = self._feed is None and self._recorder is None and self._tracer is None
        self._values = runtime.metrics.cells.values
        self._good = runtime.metrics.request_cell(self.label, OK)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        request_id = self._runtime.new_request_id()
        model: Model | None = None
        work: Work | None = None
        received = 0.0
        status = GONE  # until an answer is on its way
        try:
            model, head = self.admit(scope)
            long = head.compressed or head.length > self._inline_body_bytes
            terms = self._runtime.gate.look(head, long=long)
            body = await read_body(scope, receive, self._max_body_bytes)
            received = perf_counter()
            work = self.make_work(body, request_id, head)
            work.received = received
            await self._run(self.stages(model), work, terms, scope, self._coalescer(model))
            status = OK
            await send_answer(scope, send, self.answer_headers(work), work.answer)
        except ClientGoneError:
            status = GONE
        except CancelledError:  # the web server is ending, and has waited for as long as it does
            if status == OK:
                raise
            error = NotReadyError("Not ready: the service is stopping.")
            answer = self.refuse(error, request_id, model)
            status = answer[0]
            await send_refusal(scope, receive, send, error, answer)
        except Exception as error:  # the last resort: logged, answered, not passed on
            if status == OK:
                raise  # the answer is on its way; only the server can end the connection now
            request_id = work.request_id if work is not None else request_id
            answer = self.refuse(error, request_id, model)
            status = answer[0]
            await send_refusal(scope, receive, send, error, answer)
        finally:
            self.count(model, work, status, received, perf_counter())

    # The steps of a request, for whatever carries it.

    def admit(self, scope: Mapping[str, Any]) -> tuple[Model, Any]:
        """The model that a request is for, and what its headers say; of the scope: method, path, root_path, headers.

        Raises:
            ServiceError: It is refused unread.
        """
        if self._runtime.keys is not None:
            self._runtime.keys.check(scope["headers"])
        if scope["method"] != "POST":
            raise self._wrong_method(scope["method"])
        return self._addressed(scope), self._read_head(scope["headers"])

    def make_work(self, body: bytes, request_id: str, head: Any) -> Work:
        """A request whose body is there."""
        work: Work = self._new_work(body, request_id, head)
        work.traceparent = head.named.get(TRACEPARENT, b"")
        work.accept_encoding, work.deflate_from = head.accept_encoding, self._gzip_bytes
        work.routing_key = head.routing_key
        if head.compressed:
            work.inflate_to = self._max_body_bytes
        return work

    def stages(self, model: Model) -> Stages[Any]:
        """What runs requests of this form."""
        return model.pipeline

    def answer_headers(self, work: Any) -> list[tuple[bytes, bytes]]:
        """Headers of a good answer."""
        headers = self._form_headers(work)
        if self._tells_timing:
            headers.append(server_timing(work))
        return headers

    def refuse(
        self, error: Exception, request_id: str, model: Model | None
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, headers and body of the answer to an error; faults of the service are logged."""
        status, body, media_type = self._refusal(error, request_id)
        if (
            status == _SERVER_FAULT and model is not None
        ):  # to be overloaded is no fault, and nothing to write long lines of
            self._faults.error("request_failed", request_id=request_id, exc_info=error)
        return status, refusal_headers(error, body, media_type, request_id), body

    # What differs between the forms that requests come in.

    def _addressed(self, _scope: Mapping[str, Any]) -> Model:
        return self._runtime.ready_model()

    def _read_head(self, headers: Iterable[tuple[bytes, bytes]]) -> Any:
        return ScoreHead(headers, self._max_body_bytes)

    def _new_work(self, body: bytes, request_id: str, head: Any) -> Any:
        return Work(body, request_id=request_id, packed=head.packed, answer_packed=head.answer_packed)

    def _form_headers(self, work: Any) -> list[tuple[bytes, bytes]]:
        return answer_headers(work, _MSGPACK if work.answer_packed else _JSON)

    def _coalescer(self, model: Model) -> Coalescer | None:
        return model.coalescer

    def _refusal(self, error: Exception, request_id: str) -> tuple[int, bytes, bytes]:
        """Status, body and media type of the answer to an error."""
        return problem_of(error).status, problem_bytes(error, request_id), _PROBLEM

    def _path_again(self, _model: Model) -> str:
        """Where a recorded request is to be sent again."""
        return PATH

    def _wrong_method(self, method: str) -> MethodNotAllowedError:
        return MethodNotAllowedError(
            f"{self.label}: expected POST, got {method}.", headers=(("allow", "POST"),), expected="POST", got=method
        )

    async def _run(
        self, pipeline: Stages[Any], work: Work, terms: Terms, scope: Scope, coalescer: Coalescer | None
    ) -> None:
        """Fill in the answer, on the event loop or in a worker thread."""
        size = len(work.body)
        # Who knows how much is in a compressed body.
        inline = size <= self._inline_body_bytes and work.inflate_to is None
        if not inline:
            await self.run_beside(pipeline, work, terms, partial(watch, scope), coalescer)
            return
        work.most_rows = self.inline_candidates
        if terms.stated:
            work.due = terms.deadline
            self._runtime.gate.refuse_late(work)
        try:
            if coalescer is None:
                pipeline.run(work)
            else:
                await coalescer.run(work)
        except ManyRowsError as many:
            await self.run_beside(pipeline, work, terms, partial(watch, scope), coalescer, rows=many.rows)

    async def run_beside(
        self,
        pipeline: Stages[Any],
        work: Work,
        terms: Terms,
        mind: Callable[[Callable[[], None] | None], None],
        coalescer: Coalescer | None = None,
        *,
        rows: int | None = None,
    ) -> None:
        """Fill in the answer in a worker thread, in its turn.

        Args:
            pipeline: What runs it.
            work: The request.
            terms: On what terms.
            mind: Has itself told what to do when the client hangs up, see `Gate.run`.
            coalescer: What shares calls of the model; None for nothing.
            rows: Its candidates, where they are known.
        """
        work.most_rows = ANY_ROWS
        if coalescer is not None:
            await coalescer.run_in_thread(work)
        else:
            await self._runtime.gate.run(pipeline, work, terms, mind, rows=rows)

    def count(self, model: Model | None, work: Work | None, status: int, received: float, ended: float) -> None:
        """Count a request, and log it if it is drawn.

        Args:
            model: What it was for, if that is known.
            work: What became of it; None where the body was refused unread.
            status: Of its answer.
            received: When its last byte was there (`perf_counter`, seconds); 0.0 if never.
            ended: When its answer was handed over.
        """
        trace_id = ""
        # The usual ones by the shortest way: code that nothing else has run lately costs more than what it does.
        if status == OK and self._counts_alone and model is not None and work is not None and not work.arm:
            self._values[self._good] += 1.0
            model.metrics.record_good(work, received, ended)
            if work.feedback is not None:
                self._count_issued(model, work.feedback)
        else:
            trace_id = self._count_widely(model, work, status, received, ended)
        if self._log_ratio and random() < self._log_ratio:  # noqa: S311 - no secret hangs on it
            self._log_request(work, status, ended - received if received else None, trace_id)

    def _count_widely(self, model: Model | None, work: Work | None, status: int, received: float, ended: float) -> str:
        """Count any request, and tell all who want to know of it.

        Returns:
            Its trace; empty where it is not traced.
        """
        self._runtime.metrics.count_request(self.label, status)
        if model is not None:
            if work is not None and work.arm and model.canary is not None:
                model = model.canary.count(model, work)
            model.metrics.record("ok" if status == OK else _outcome(status), work, received, ended)
            if work is not None and work.feedback is not None and status == OK:
                self._count_issued(model, work.feedback)
        if self._feed is not None and work is not None and status == OK:
            self._feed.offer(self._form, work)
        if self._recorder is not None and status == OK and self._recorder.draw() and model is not None:
            self._recorder.offer(model.scorer, self._path_again(model), work, received)
        if self._tracer is None or work is None:
            return ""
        return self._tracer.trace(work, self.label, "" if model is None else model.label, status, ended)

    def _count_issued(self, model: Model, issued: Issued) -> None:
        if self._runtime.feedback is not None:
            self._runtime.feedback.count_issued(model.label, issued)

    @staticmethod
    def _log_request(work: Work | None, status: int, seconds: float | None, trace_id: str) -> None:
        if work is not None and work.traceparent and not trace_id:
            caller = read_traceparent(work.traceparent)
            trace_id = "" if caller is None else caller.trace_id
        facts: dict[str, Any] = {
            "request_id": None if work is None else work.request_id,
            "status": status,
            "candidates": len(work.scores) if status == OK and work is not None else None,
            "seconds": None if seconds is None else round(seconds, 6),
        }
        if trace_id:
            facts["trace_id"] = trace_id
        log_often("service.score", "request", facts)


def _outcome(status: int) -> str:
    if status == GONE:
        return "gone"
    return "refused" if status < _SERVER_FAULT else "failed"


class HandOver(Response):
    """A response that lets an ASGI application answer."""

    def __init__(self, endpoint: ScoreEndpoint) -> None:
        super().__init__()
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        await self._endpoint(scope, receive, send)


def router(runtime: Runtime) -> APIRouter:
    """The documented route. The application answers `PATH` before it gets here; this is the same answer."""
    routes = APIRouter()
    endpoint = ScoreEndpoint(runtime)

    @routes.post(PATH, tags=["scoring"], summary="Score candidates", operation_id="score")
    async def score(_request: Request) -> Response:
        return HandOver(endpoint)

    return routes
