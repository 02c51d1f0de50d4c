"""`POST /score`: the hot route. Raw ASGI, and a documented FastAPI route that leads to the same code."""

import asyncio
import random
from time import perf_counter
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from service.asgi import DEFLATED, RequestHead, read_body, send_answer, send_refusal
from service.coalesce import Coalescer
from service.errors import (
    PROBLEM_MEDIA_TYPE,
    ClientGoneError,
    MethodNotAllowedError,
    problem_bytes,
    problem_of,
)
from service.logging import get_logger
from service.pipeline import Stages, Work
from service.runtime import Model, Runtime
from service.stages import run_in_stages
from service.wire import JSON, MSGPACK

__all__ = ["PATH", "HandOver", "ScoreEndpoint", "router"]

PATH: Final = "/score"

_OK: Final = 200
_GONE: Final = problem_of(ClientGoneError("")).status
_SERVER_FAULT: Final = 500
# Longer requests keep a processor's caches busy by themselves, and would hold each other up.
_STAGED_BODY_BYTES: Final = 32_768
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

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._max_body_bytes = runtime.settings.max_body_bytes
        self._inline_body_bytes = runtime.settings.inline_body_bytes
        self._gzip_bytes = runtime.settings.gzip_bytes
        self._log_ratio = runtime.settings.request_log_ratio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        request_id = self._runtime.new_request_id()
        model: Model | None = None
        work: Work | None = None
        received = 0.0
        status = _GONE  # until an answer is on its way
        try:
            if scope["method"] != "POST":
                raise self._wrong_method(scope["method"])  # noqa: TRY301
            model = self._addressed(scope)
            head = self._read_head(scope)
            body = await read_body(receive, self._max_body_bytes)
            received = perf_counter()
            work = self._make_work(body, request_id, head)
            work.accept_encoding, work.deflate_from = head.accept_encoding, self._gzip_bytes
            if head.compressed:
                work.inflate_to = self._max_body_bytes
            await self._score(model, work)
            status = _OK
            headers = [(b"x-request-id", work.request_id.encode())]
            if work.deflated:
                headers += DEFLATED
            media_type = self._describe_answer(work, headers)
            await send_answer(scope, send, work.answer, media_type, headers)
        except ClientGoneError:
            pass
        except Exception as error:  # the last resort: logged, answered, not passed on
            if status == _OK:
                raise  # the answer is on its way; only the server can end the connection now
            request_id = work.request_id if work is not None else request_id
            status, refusal, media_type = self._refusal(error, request_id)
            if status >= _SERVER_FAULT and model is not None:
                self._faults.error("request_failed", request_id=request_id, exc_info=error)
            await send_refusal(receive, send, error, status, refusal, media_type=media_type, request_id=request_id)
        finally:
            self._count(model, work, status, received)

    # What differs between the forms that requests come in.

    def _addressed(self, _scope: Scope) -> Model:
        return self._runtime.ready_model()

    def _read_head(self, scope: Scope) -> Any:
        return RequestHead(scope["headers"], self._max_body_bytes)

    def _make_work(self, body: bytes, request_id: str, head: Any) -> Any:
        return Work(body, request_id=request_id, packed=head.packed, answer_packed=head.answer_packed)

    async def _score(self, model: Model, work: Any) -> None:
        await self._run(model.pipeline, work, model.coalescer)

    def _describe_answer(self, work: Any, _headers: list[tuple[bytes, bytes]]) -> bytes:
        """The media type of an answer; headers of its own are added."""
        return _MSGPACK if work.answer_packed else _JSON

    def _refusal(self, error: Exception, request_id: str) -> tuple[int, bytes, bytes]:
        """Status, body and media type of the answer to an error."""
        return problem_of(error).status, problem_bytes(error, request_id), _PROBLEM

    def _wrong_method(self, method: str) -> MethodNotAllowedError:
        return MethodNotAllowedError(
            f"{self.label}: expected POST, got {method}.", headers=(("allow", "POST"),), expected="POST", got=method
        )

    async def _run(self, pipeline: Stages[Any], work: Work, coalescer: Coalescer | None = None) -> None:
        """Fill in the answer, on the event loop or in a worker thread, by itself or in company."""
        runtime, size = self._runtime, len(work.body)
        # Who knows how much is in a compressed body.
        inline = size <= self._inline_body_bytes and work.inflate_to is None
        if coalescer is not None:
            await (coalescer.run if inline else coalescer.run_in_thread)(work)
        elif not inline:
            await asyncio.get_running_loop().run_in_executor(runtime.workers, pipeline.run, work)
        elif size <= _STAGED_BODY_BYTES and runtime.has_company():
            await run_in_stages(pipeline, work)
        else:
            pipeline.run(work)

    def _count(self, model: Model | None, work: Work | None, status: int, received: float) -> None:
        ended = perf_counter()
        self._runtime.metrics.count_request(self.label, status)
        if model is not None:
            model.metrics.record(_outcome(status), work, received, ended)
        if self._log_ratio and random.random() < self._log_ratio:  # noqa: S311 - no secret hangs on it
            _log.info(
                "request",
                request_id=None if work is None else work.request_id,
                status=status,
                candidates=len(work.scores) if status == _OK and work is not None else None,
                seconds=round(ended - received, 6) if received else None,
            )


def _outcome(status: int) -> str:
    if status == _OK:
        return "ok"
    if status == _GONE:
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
