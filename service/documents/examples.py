"""Worked examples for the documentation: made up from the kinds of the fields, never from anyone's data.

Golden rows and vocabularies hold what users did, so nothing here reads them. Values are therefore mostly out of
vocabulary; the answers are what the model says to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from service.pipeline import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.features import FeatureEncoder, Field
    from service.pipeline import Stages

__all__ = ["Example", "answer_to", "example_rows", "examples", "generic_examples"]

CANDIDATES: Final = 3


class Example(NamedTuple):
    """One worked request.

    Attributes:
        name: For programs.
        summary: For people.
        body: The request.
    """

    name: str
    summary: str
    body: dict[str, Any]


def examples(encoder: FeatureEncoder) -> tuple[Example, ...]:
    """One example for each form of a request."""
    return _forms(*example_rows(encoder))


def example_rows(encoder: FeatureEncoder) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Made-up values of a model's fields: of the context, and of each candidate."""
    context = {field.name: _value(field, 0) for field in encoder.fields if field.side == "context"}
    fields = [field for field in encoder.fields if field.side == "candidate"]
    return context, [{field.name: _value(field, row) for field in fields} for row in range(CANDIDATES)]


def generic_examples() -> tuple[Example, ...]:
    """Examples for a document that is asked for before there is a model."""
    context = {"user": "user-1", "hour": 14}
    return _forms(context, [{"ad": f"ad-{row + 1}", "price": round(1.5 + row, 1)} for row in range(CANDIDATES)])


def answer_to(example: Example, pipeline: Stages[Work]) -> dict[str, Any]:
    """What a model answers to an example."""
    work = Work(msgspec.json.encode(example.body), request_id="example", packed=False, answer_packed=False)
    pipeline.run(work)
    answer: dict[str, Any] = msgspec.json.decode(work.answer)
    answer.pop("feedback_tokens", None)  # of an answer that nobody got
    return answer


def _forms(context: dict[str, Any], rows: Sequence[dict[str, Any]]) -> tuple[Example, ...]:
    everything = [context | row for row in rows]
    forms = []
    if context:
        body = {"context": context, "candidates": rows, "top_k": 2, "request_id": "r-81", "routing_key": "user-1"}
        forms.append(Example("ranking", "One context, candidates as objects, the best two named", body))
        if rows[0]:
            body = {"context": context, "candidates": _columns(rows)}
            forms.append(Example("columns", "The same with one array a field: the cheapest to read", body))
    forms.append(Example("pointwise", "No context: each candidate carries all fields", {"candidates": everything}))
    return tuple(forms)


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _value(field: Field, row: int) -> Any:
    """A value that the kind of the field allows."""
    if field.kind == "numeric":
        return row + 1
    if field.kind == "multi_valued":
        return [f"{field.name}-{row + 1}", f"{field.name}-{row + 2}"][: field.width]
    return f"{field.name}-{row + 1}"
