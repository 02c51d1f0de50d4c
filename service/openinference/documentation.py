"""What the OpenAPI document says of inference: its form, and an example worked by the served model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from service.documents.examples import example_rows
from service.documents.headers import RETRIED, RETRY_AFTER, answer_headers, request_headers
from service.openinference.answer import OUTPUT
from service.openinference.metadata import NATURAL, ErrorAnswer
from service.openinference.pipeline import InferWork

if TYPE_CHECKING:
    from service.features import FeatureEncoder
    from service.pipeline import Stages
    from service.runtime import Model
    from service.settings import Settings

__all__ = ["InferenceAnswer", "InferenceRequest", "add_inference"]

_REFERENCE: Final = "#/components/schemas/{model}"
_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"
_STATUSES: Final = {
    "400": "The body is no inference request, or one that cannot be scored.",
    "404": "No such model or version.",
    "413": "The body is too large.",
    "415": "The content encoding is not supported.",
    "500": "The service failed.",
    "429": "Too much waits already.",
    "503": "No model is served yet, or no more; or not within the request's deadline.",
}
_ABOUT_BINARY: Final = (
    "JSON, then the data of each tensor with a `binary_data_size`, in order and little-endian; the header "
    "`Inference-Header-Content-Length` says where the JSON ends."
)


class RequestTensor(BaseModel):
    """The values of one field."""

    name: str = Field(description="Name of a field; `GET /v2/models/{name}` lists them. An absent field is missing.")
    datatype: str = Field(description="BYTES, an integer type, and for numeric fields FP32 or FP64 too.")
    shape: list[int] = Field(
        description="[N] or [N, 1] for N candidates; [1] for a context field that all share; [N, K] for several values."
    )
    data: list[Any] | None = Field(
        None, description="Row-major, flat or nested; null, empty text and NaN are missing. Absent where it is binary."
    )
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_size`: bytes of the data after the JSON.")


class OutputRequest(BaseModel):
    """An output that is asked for."""

    name: str = Field(description=f"`{OUTPUT}`, the only one.")
    parameters: dict[str, Any] | None = Field(None, description="`binary_data`: whether it comes as bytes.")


class InferenceRequest(BaseModel):
    """One ranking decision in the Open Inference Protocol."""

    id: str | None = Field(None, description="Comes back in the answer.")
    inputs: list[RequestTensor]
    outputs: list[OutputRequest] | None = None
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_output`: whether outputs come as bytes.")


class AnswerTensor(BaseModel):
    """Click probabilities."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float] | None = Field(None, description="In the order of the candidates.")
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_size`: bytes of the data after the JSON.")


class InferenceAnswer(BaseModel):
    """What inference answers."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[AnswerTensor]


def add_inference(
    document: dict[str, Any], paths: tuple[str, ...], model: Model | None, settings: Settings
) -> dict[str, Any]:
    """Fill in the inference operations.

    Args:
        document: The OpenAPI document; changed in place.
        paths: Paths of the operations; the first gets the examples.
        model: The served model; without one there are no examples.
        settings: The service's: a request's deadline.

    Returns:
        The document.
    """
    models: tuple[type[BaseModel], ...] = (InferenceRequest, InferenceAnswer, ErrorAnswer)
    _, schemas = models_json_schema([(one, "serialization") for one in models], ref_template=_REFERENCE)
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
    worked: dict[str, Any] = {}
    answered: dict[str, Any] = {}
    if model is not None:
        asked = _example(model.scorer.encoder)
        summary = "The Open Inference Protocol: one tensor a field"
        worked = {"examples": {"tensors": {"summary": summary, "value": asked}}}
        answered = {"examples": {"tensors": {"summary": summary, "value": _answer(asked, model.inference)}}}
    for path in paths:
        operation = document["paths"][path]["post"]
        names = [name for name in ("name", "version") if f"{{{name}}}" in path]
        operation["parameters"] = [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names),
            *request_headers(deadline_seconds=settings.deadline_seconds),
        ]
        if model is not None:
            operation["parameters"][0]["example"] = model.manifest.model_id
        operation["requestBody"] = {
            "required": True,
            "content": {_JSON: _refer(InferenceRequest) | worked, _BINARY: {"schema": {"description": _ABOUT_BINARY}}},
        }
        binary = {"schema": {"description": _ABOUT_BINARY}}
        operation["responses"] = {
            "200": {
                "description": "The scores.",
                "headers": answer_headers(request_id="An id that was made for the request; its own is in the body."),
                "content": {_JSON: _refer(InferenceAnswer) | answered, _BINARY: binary},
            },
            **{
                status: {"description": text, "content": {_JSON: _refer(ErrorAnswer)}}
                | ({"headers": RETRY_AFTER} if int(status) in RETRIED else {})
                for status, text in _STATUSES.items()
            },
        }
        worked = answered = {}
    return document


def _refer(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}


def _example(encoder: FeatureEncoder) -> dict[str, Any]:
    """A request made up from the kinds of the fields, as those of `/score` are."""
    context, rows = example_rows(encoder)
    inputs = []
    for field in encoder.fields:
        values = [context[field.name]] if field.side == "context" else [row[field.name] for row in rows]
        shape = [len(values)]
        if field.kind == "multi_valued":
            shape.append(len(values[0]))
        inputs.append({"name": field.name, "datatype": NATURAL[field.kind], "shape": shape, "data": values})
    return {"id": "r-81", "inputs": inputs}


def _answer(asked: dict[str, Any], pipeline: Stages[InferWork]) -> dict[str, Any]:
    work = InferWork(msgspec.json.encode(asked), request_id="example", header_length=None)
    pipeline.run(work)
    answer: dict[str, Any] = msgspec.json.decode(work.answer)
    return answer
