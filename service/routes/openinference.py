"""`/v2`: the Open Inference Protocol. Metadata and health by the framework; inference is raw ASGI, as `/score` is."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from service.edge.asgi import RequestHead, answer_headers
from service.errors import MalformedBodyError
from service.features.errors import describe
from service.logging import get_logger
from service.openinference import metadata
from service.openinference.answer import VERSION
from service.openinference.errors import UnknownModelError, error_bytes, status_of
from service.openinference.pipeline import InferWork
from service.pipeline import Stages
from service.routes.score import HandOver, ScoreEndpoint
from service.runtime import Model, Runtime
from service.trial.feed import INFER_FORM

__all__ = ["INFER", "PATHS", "InferEndpoint", "router"]

# Where inference paths begin and end; the model's name is between, and maybe a version.
INFER: Final = ("/v2/models/", "/infer")

_PATH: Final = "/v2/models/{name}/infer"
_VERSION_PATH: Final = "/v2/models/{name}/versions/{version}/infer"
PATHS: Final = (_PATH, _VERSION_PATH)
_named: Final = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer").fullmatch
_JSON: Final = b"application/json"
_BINARY: Final = b"application/octet-stream"
_HEADER_LENGTH: Final = b"inference-header-content-length"
_LONGEST_LENGTH: Final = 18


class InferEndpoint(ScoreEndpoint):
    """Answers inference requests; an ASGI application of its own, counted and logged as `/score` is."""

    label = _PATH
    _faults = get_logger("service.openinference")
    _form = INFER_FORM

    def stages(self, model: Model) -> Stages[Any]:
        """What runs requests of this form."""
        return model.inference

    def _form_headers(self, work: Any) -> list[tuple[bytes, bytes]]:
        if work.answer_header_length is None:
            return answer_headers(work, _JSON)
        return [*answer_headers(work, _BINARY), (_HEADER_LENGTH, b"%d" % work.answer_header_length)]

    def _addressed(self, scope: Mapping[str, Any]) -> Model:
        return _addressed(self._runtime, scope)

    def _read_head(self, headers: Iterable[tuple[bytes, bytes]]) -> Any:
        return _InferHead(headers, self._max_body_bytes)

    def _new_work(self, body: bytes, request_id: str, head: Any) -> Any:
        return InferWork(body, request_id=request_id, header_length=head.header_length)

    def _coalescer(self, _model: Model) -> None:
        return None

    def _path_again(self, model: Model) -> str:
        return _PATH.format(name=model.manifest.model_id)

    def _refusal(self, error: Exception, _request_id: str) -> tuple[int, bytes, bytes]:
        return status_of(error), error_bytes(error), _JSON


def _addressed(runtime: Runtime, scope: Mapping[str, Any]) -> Model:
    """The model that a path names.

    Raises:
        NotReadyError: No model is served.
        UnknownModelError: Another one is.
    """
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    found = _named(path)
    name, version = found.groups() if found else (path.removeprefix(INFER[0]).removesuffix(INFER[1]), None)
    return _served(runtime, name, version)


def _served(runtime: Runtime, name: str, version: str | None) -> Model:
    model = runtime.ready_model()
    if name != model.manifest.model_id:
        raise UnknownModelError("model", f"the served model {model.manifest.model_id!r}", describe(name))
    if version is not None and version != VERSION:
        raise UnknownModelError("version", f"the served version {VERSION!r}", describe(version))
    return model


class _InferHead(RequestHead):
    """What the headers say of the body. The media type is not looked at: clients of the protocol send none, or any.

    Attributes:
        header_length: Length of the body's JSON part; None where that is the whole body.

    Raises:
        MediaTypeError: The body has an encoding that is not read.
        BodyTooLargeError: The declared length is over the limit.
        MalformedBodyError: A length that is no number.
    """

    __slots__ = ("header_length",)

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], max_body_bytes: int) -> None:
        super().__init__(headers, max_body_bytes)
        length = self.named.get(_HEADER_LENGTH)
        self.header_length = None if length is None else _length(length)


def _length(value: bytes) -> int:
    if value.isdigit() and len(value) <= _LONGEST_LENGTH:
        return int(value)
    got = describe(value.decode("latin-1"))
    raise MalformedBodyError(
        f"Inference-Header-Content-Length: expected a number of bytes, got {got}.",
        where="Inference-Header-Content-Length",
        expected="a number of bytes",
        got=got,
    )


_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": metadata.ErrorAnswer, "description": "No such model or version."},
    503: {"model": metadata.ErrorAnswer, "description": "No model is served yet, or no more."},
}


def router(runtime: Runtime) -> APIRouter:
    """Server and model metadata, health, and the documented routes of inference."""
    routes = APIRouter(tags=["open inference protocol"])
    _add_server_routes(routes, runtime)
    _add_model_routes(routes, runtime)
    endpoint = InferEndpoint(runtime)

    @routes.post(_PATH, summary="Infer", operation_id="infer")
    @routes.post(_VERSION_PATH, summary="Infer with a version", operation_id="infer_version")
    async def infer(_request: Request) -> Response:
        return HandOver(endpoint)

    return routes


def _add_server_routes(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/v2", summary="Server metadata")
    async def server_metadata(request: Request) -> metadata.ServerMetadata:
        return metadata.ServerMetadata(
            name="reaction", version=request.app.version, extensions=list(metadata.EXTENSIONS)
        )

    @routes.get("/v2/health/live", summary="Is the server alive")
    async def live() -> metadata.Live:
        return metadata.Live(live=True)

    @routes.get("/v2/health/ready", summary="Are requests scored", responses={503: _ERRORS[503]})
    async def ready() -> metadata.Ready:
        runtime.check_ready()
        return metadata.Ready(ready=True)


def _add_model_routes(routes: APIRouter, runtime: Runtime) -> None:
    async def model_metadata(name: str, version: str | None = None) -> metadata.ModelMetadata:
        served = _served(runtime, name, version)
        return metadata.model_metadata(served.manifest.model_id, served.scorer.encoder)

    async def model_ready(name: str, version: str | None = None) -> metadata.ModelReady:
        served = _served(runtime, name, version)
        runtime.check_ready()
        return metadata.ModelReady(name=served.manifest.model_id, ready=True)

    for path, answer, summary in (
        ("", model_metadata, "Model metadata"),
        ("/ready", model_ready, "Is the model ready"),
    ):
        for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes.add_api_route(
                model + path, answer, summary=summary, responses=_ERRORS, response_model_exclude_none=True
            )
