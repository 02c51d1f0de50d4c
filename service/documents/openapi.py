"""The OpenAPI document: what FastAPI knows of the routes, and what only the served model can tell of `/score`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

from service.documents.examples import answer_to, examples, generic_examples
from service.documents.headers import RETRIED, RETRY_AFTER, answer_headers, request_headers
from service.documents.request_schema import request_type
from service.edge.api_keys import OPEN_PATHS
from service.errors import PROBLEM_MEDIA_TYPE, PROBLEMS
from service.schemas import ProblemDocument, ScoreAnswer
from service.wire import JSON, MSGPACK

if TYPE_CHECKING:
    from service.runtime import Model
    from service.settings import Settings

__all__ = ["add_keys", "add_scoring"]

_REFERENCE: Final = "#/components/schemas/{model}"


def add_scoring(document: dict[str, Any], path: str, model: Model | None, settings: Settings) -> dict[str, Any]:
    """Fill in the scoring operation.

    Args:
        document: FastAPI's document; changed in place.
        path: Path of the operation.
        model: The served model; without one, the request is described in general terms.
        settings: The service's: most candidates of a request, and its deadline.

    Returns:
        The document.
    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, answers = models_json_schema(
        [(ScoreAnswer, "serialization"), (ProblemDocument, "serialization")], ref_template=_REFERENCE
    )
    schemas |= _tidy(answers["$defs"])
    operation = document["paths"][path]["post"]
    request, worked, answered = _general() if model is None else _of_model(model, settings.max_candidates)
    schemas |= request.pop("$defs", {})
    schemas["ScoreRequest"] = request
    operation["parameters"] = request_headers(deadline_seconds=settings.deadline_seconds)
    content = {"schema": {"$ref": _REFERENCE.format(model="ScoreRequest")}, "examples": worked}
    operation["requestBody"] = {
        "required": True,
        "content": {JSON: content, MSGPACK: {"schema": content["schema"]}},
    }
    answer = {"schema": {"$ref": _REFERENCE.format(model="ScoreAnswer")}}
    operation["responses"] = {
        "200": {
            "description": "The scores.",
            "headers": answer_headers(request_id="The request's id: its `request_id`, else one that was made for it."),
            "content": {JSON: answer | {"examples": answered}, MSGPACK: answer},
        },
        **problem_responses(),
    }
    return document


def add_keys(document: dict[str, Any]) -> None:
    """Say that every route but the probes asks for an API key, and how it is shown."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    document["security"] = [{"bearer": []}, {"header": []}]
    for path in OPEN_PATHS & document["paths"].keys():
        for operation in document["paths"][path].values():
            operation["security"] = []


def problem_responses() -> dict[str, Any]:
    """The errors of a scoring request by status, from the table of errors."""
    by_status: dict[int, list[str]] = {}
    for problem in PROBLEMS.values():
        if problem.status != 499:  # noqa: PLR2004 - nobody is there to read it
            by_status.setdefault(problem.status, []).append(f"{problem.title} (`{problem.code}`).")
    reference = {"schema": {"$ref": _REFERENCE.format(model="ProblemDocument")}}
    return {
        str(status): {"description": " ".join(titles), "content": {PROBLEM_MEDIA_TYPE: reference}}
        | ({"headers": RETRY_AFTER} if status in RETRIED else {})
        for status, titles in sorted(by_status.items())
    }


def _of_model(model: Model, max_candidates: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    encoder = model.scorer.encoder
    schema = _tidy(request_type(encoder, max_candidates=max_candidates).json_schema(ref_template=_REFERENCE))
    made = examples(encoder)
    return (
        schema,
        {example.name: {"summary": example.summary, "value": example.body} for example in made},
        {example.name: {"summary": example.summary, "value": answer_to(example, model.pipeline)} for example in made},
    )


def _general() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    anything = {"type": "object", "additionalProperties": True}
    schema = {
        "type": "object",
        "description": "Fields are named once a model is served: ask for this document again.",
        "required": ["candidates"],
        "properties": {
            "context": anything,
            "candidates": {"anyOf": [{"type": "array", "items": anything}, anything]},
            "top_k": {"type": "integer", "minimum": 1},
            "request_id": {"type": "string"},
            "routing_key": {"type": "string"},
        },
    }
    worked = {example.name: {"summary": example.summary, "value": example.body} for example in generic_examples()}
    return schema, worked, {}


def _tidy(schema: Any) -> Any:
    """Leave out what says nothing: titles that repeat names, and the null that stands for absence."""
    if isinstance(schema, list):
        return [_tidy(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    tidied = {}
    for name, part in schema.items():
        if name == "properties":
            tidied[name] = {member: _tidy(content) for member, content in part.items()}
        elif not (name == "title" and isinstance(part, str)) and not (name == "default" and part is None):
            tidied[name] = _tidy(part)
    return tidied
