"""The application: `create_app(settings)`, or `uvicorn --factory service.app:create_app` with `REACTION_*` set."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
from fastapi import FastAPI, Response
from starlette.exceptions import HTTPException

from service import VERSION
from service.documents.openapi import add_keys, add_scoring
from service.edge.api_keys import OPEN_PATHS
from service.errors import (
    PROBLEM_MEDIA_TYPE,
    Problem,
    ServiceError,
    UnauthorizedError,
    problem_bytes,
    problem_document,
    problem_of,
)
from service.features.errors import RequestError
from service.logging import configure_logging, get_logger
from service.openinference.documentation import add_inference
from service.openinference.errors import OPEN_INFERENCE_PATHS, error_bytes, message_bytes, status_of
from service.routes import HOT_PATTERNS, HOT_ROUTES, ROUTERS, openinference, score
from service.runtime import Runtime
from service.settings import SettingsError, load_settings
from service.workers.announce import announce
from service.workers.machine import Machine
from service.workers.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi import Request
    from starlette.types import Message, Receive, Scope, Send

    from service.routes.score import ScoreEndpoint
    from service.settings import Settings
    from service.workers.assignment import Assignment
    from service.workers.plan import Plan

__all__ = ["VERSION", "ServiceApp", "create_app"]

# Whatever a browser makes of an answer, it is what its type says.
_NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")
_log: Final = get_logger("service")


class ServiceApp(FastAPI):
    """FastAPI, with the hot routes answered before its middleware and routing, and every request counted.

    Args:
        runtime: The process's state.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(
            title="REACTION scoring service",
            description="Scores the candidates of a ranking request with one fused click model.",
            version=VERSION,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            lifespan=_lifespan,
        )
        self.runtime = runtime
        for make in ROUTERS.values():
            self.include_router(make(runtime))
        self._hot: dict[str, ScoreEndpoint] = {path: make(runtime) for path, make in HOT_ROUTES.items()}
        self._hot_patterns = [(*ends, make(runtime)) for ends, make in HOT_PATTERNS.items()]
        self._known = {*super().openapi()["paths"], "/docs", "/openapi.json"}
        for error in (ServiceError, RequestError, Exception):
            self.add_exception_handler(error, _answer_error)
        self.add_exception_handler(HTTPException, _answer_http_exception)
        self._documented: tuple[object, dict[str, Any]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        path = scope["path"]
        if scope.get("root_path"):  # behind a proxy that keeps its prefix
            path = path.removeprefix(scope["root_path"])
        hot = self.hot(path)
        await (self._answer(path, scope, receive, send) if hot is None else hot(scope, receive, send))

    async def _answer(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by the framework, and count."""
        status = 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), _NO_SNIFF]}
            await send(message)

        keys = self.runtime.keys
        try:
            if keys is not None and path not in OPEN_PATHS:
                try:
                    keys.check(scope["headers"])
                except UnauthorizedError as error:
                    await _refusal(path, error)(scope, receive, send_noting_status)
                    return
            await super().__call__(scope, receive, send_noting_status)
        finally:
            # A path with a name in it is counted as its template: whoever asks makes up no labels.
            route = str(getattr(scope.get("route"), "path", path))
            self.runtime.metrics.count_request(route if route in self._known else "other", status)

    def hot(self, path: str) -> ScoreEndpoint | None:
        """The endpoint that answers a path before middleware and routing; None where the framework does."""
        endpoint = self._hot.get(path)
        if endpoint is None:
            for start, end, named in self._hot_patterns:
                if path.startswith(start) and path.endswith(end) and len(path) >= len(start) + len(end):
                    return named
        return endpoint

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document for the model that is served now."""
        model = self.runtime.model
        if self._documented is None or self._documented[0] is not model:
            self.openapi_schema = None
            settings = self.runtime.settings
            document = add_scoring(super().openapi(), score.PATH, model, settings)
            document = add_inference(document, openinference.PATHS, model, settings)
            if self.runtime.keys is not None:
                add_keys(document)
            self._documented = (model, document)
        return self._documented[1]


def create_app(
    settings: Settings | None = None,
    *,
    plan: Plan | None = None,
    assignment: Assignment | None = None,
    on_failure: Callable[[], None] | None = None,
) -> ServiceApp:
    """Make the application. Its lifespan loads the bundle.

    Args:
        settings: Settings; read from the environment if None, and then logging is set up and a bundle that cannot be
            loaded ends the process: this is how a server's factory option calls it.
        plan: Threads to use; made for this process alone if None.
        assignment: This process's part; by default it serves alone.
        on_failure: Called when no model could be loaded.

    Raises:
        SystemExit: Settings, or the API keys that they name, are wrong; a server would print a traceback of another
            error.
    """
    factory = settings is None
    if settings is None:
        try:
            settings = load_settings()
        except SettingsError as error:
            raise SystemExit(f"error: {error}") from None
        configure_logging(settings.log_level)
        on_failure = on_failure or _end_process
    if plan is None:
        plan = make_plan(settings.model_copy(update={"workers": 1}), Machine.read())
    if factory:
        announce(plan)
    try:
        runtime = Runtime(settings, plan, assignment, on_failure=on_failure)
    except SettingsError as error:
        raise SystemExit(f"error: {error}") from None
    return ServiceApp(runtime)


@asynccontextmanager
async def _lifespan(app: ServiceApp) -> AsyncIterator[None]:
    runtime = app.runtime
    facts = runtime.settings.model_dump(mode="json")
    _log.info("starting", process=os.getpid(), version=VERSION, late=runtime.assignment.late, settings=facts)
    app.runtime.start()
    await app.runtime.may_listen()
    yield
    app.runtime.stop()
    _log.info("stopped", process=os.getpid())


def _end_process() -> None:
    """End a server that we did not start: it stops on SIGTERM as it would for anyone."""
    os.kill(os.getpid(), signal.SIGTERM)


def _path_of(request: Request) -> str:
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", ""))


def _speaks_open_inference(path: str) -> bool:
    return path == OPEN_INFERENCE_PATHS or path.startswith(f"{OPEN_INFERENCE_PATHS}/")


async def _answer_error(request: Request, error: Exception) -> Response:
    return _refusal(_path_of(request), error)


def _refusal(path: str, error: Exception) -> Response:
    headers = dict(getattr(error, "headers", ()))
    if _speaks_open_inference(path):
        return Response(error_bytes(error), status_of(error), headers=headers, media_type="application/json")
    return Response(
        problem_bytes(error),
        problem_of(error).status,
        headers=headers,
        media_type=PROBLEM_MEDIA_TYPE,
    )


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """The framework's own refusals: no such path (404), wrong method (405)."""
    status = HTTPStatus(getattr(error, "status_code", 500))
    headers = getattr(error, "headers", None)
    detail = f"{request.method} {request.url.path}: {status.phrase}."
    if _speaks_open_inference(_path_of(request)):
        return Response(message_bytes(detail), status, headers=headers, media_type="application/json")
    problem = Problem(status, status.phrase.lower().replace(" ", "-"), status.phrase)
    body = msgspec.json.encode(problem_document(problem, detail))
    return Response(body, status, headers=headers, media_type=PROBLEM_MEDIA_TYPE)
