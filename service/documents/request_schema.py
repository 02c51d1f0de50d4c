"""The documented form of what `/score` accepts: pydantic models made from a model's fields.

They write the OpenAPI document, where a client finds the very fields it may send. Requests are read by `wire` and
checked by the feature encoder; a test holds the two against each other on the same bodies.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, StrictFloat, StrictInt, TypeAdapter, create_model
from pydantic import Field as Member

from service.features.fields import LONGEST_INT_DIGITS, NUMBER_PATTERN
from service.wire import REQUEST_ID_PATTERN, ROUTING_KEY_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from service.features import FeatureEncoder, Field

__all__ = ["request_type"]

_LARGEST: Final = 10**LONGEST_INT_DIGITS


def _bounded(value: int) -> int:
    if not -_LARGEST < value < _LARGEST:
        raise ValueError(f"more than {LONGEST_INT_DIGITS} digits")
    return value


def _finite(value: Any) -> Any:
    try:
        finite = math.isfinite(float(value)) if value != "" else True
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError("outside of the float64 range")
    return value


_Text = Annotated[str, Member(strict=True)]
_Integer = Annotated[StrictInt, AfterValidator(_bounded)]
_Token = _Text | _Integer
_Number = Annotated[
    Annotated[StrictInt, AfterValidator(_finite)]
    | Annotated[StrictFloat, Member(allow_inf_nan=False)]
    | Annotated[str, Member(strict=True, pattern=f"^(?:{NUMBER_PATTERN})?$"), AfterValidator(_finite)],
    Member(),
]
_KINDS: Final[dict[str, Any]] = {
    "categorical": _Token | None,
    "numeric": _Number | None,
    "multi_valued": _Token | list[_Token] | None,
}
_ABOUT: Final = {
    "categorical": "Text or an integer; null, empty or absent is missing.",
    "numeric": "A number or numeric text; null, empty or absent is missing.",
    "multi_valued": "An array of text and integers, or text; null, empty or absent is missing.",
    "ignored": "Accepted and ignored: the model does not use it.",
}


class _Object(BaseModel):
    model_config = ConfigDict(extra="forbid")


def request_type(encoder: FeatureEncoder, *, max_candidates: int) -> TypeAdapter[Any]:
    """The type of a scoring request for one model.

    Args:
        encoder: The model's serving encoder.
        max_candidates: Most candidates in one request.

    Returns:
        A union of two forms: one context with its candidates, and candidates that carry all fields.
    """
    used, ignored = encoder.fields, encoder.ignored
    context = _fields_model("Context", "context", used, ignored, wrap=False, least=1)
    candidate = _fields_model("Candidate", "candidate", used, ignored, wrap=False)
    columns = _columns_model("CandidateColumns", "candidate", used, ignored, max_candidates)
    row = _fields_model("Row", None, used, ignored, wrap=False)
    row_columns = _columns_model("RowColumns", None, used, ignored, max_candidates)
    size = Member(min_length=1, max_length=max_candidates)
    shared: dict[str, Any] = {
        "top_k": (
            Annotated[StrictInt, Member(ge=1)] | None,
            Member(None, description="Places of the ranking to give."),
        ),
        "request_id": (
            Annotated[str, Member(strict=True, pattern=REQUEST_ID_PATTERN)] | None,
            Member(None, description="Comes back in the answer and in `X-Request-Id`; made if absent."),
        ),
        "routing_key": (
            Annotated[str, Member(strict=True, min_length=1, max_length=ROUTING_KEY_LENGTH)] | None,
            Member(None, description="What a sticky split between model versions hashes."),
        ),
    }
    ranking_form = create_model(
        "RankingRequest",
        __base__=_Object,
        __doc__="One context, many candidates.",
        context=(context, ...),
        candidates=(Annotated[list[candidate], size] | columns, ...),  # type: ignore[valid-type]
        **shared,
    )
    no_context: Any = create_model("NoContext", __base__=_Object)
    pointwise_form = create_model(
        "PointwiseRequest",
        __base__=_Object,
        __doc__="No context: each candidate carries the fields of both sides.",
        context=(no_context | None, None),
        candidates=(Annotated[list[row], size] | row_columns, ...),  # type: ignore[valid-type]
        **shared,
    )
    return TypeAdapter(ranking_form | pointwise_form)


def _fields_model(
    name: str,
    side: str | None,
    used: Iterable[Field],
    ignored: Iterable[Field],
    *,
    wrap: bool,
    least: int = 0,
) -> Any:
    """An object with one member a field of a side, or of both if None."""
    members: dict[str, Any] = {}
    for kind_of, fields in (("", used), ("ignored", ignored)):
        for field in fields:
            if side in (None, field.side):
                kind = kind_of or field.kind
                value = _KINDS.get(kind, Any)
                # Any name can be a field's, but not any name an attribute's: the name goes into the alias.
                members[f"field_{len(members)}"] = (
                    list[value] if wrap else value,  # type: ignore[valid-type]
                    Member(None, alias=field.name, description=_ABOUT[kind]),
                )

    def check_size(instance: BaseModel) -> BaseModel:
        if len(instance.model_fields_set) < least:
            raise ValueError("no member")
        return instance

    model = create_model(name, __base__=_Object, **members)
    if not least:
        return model
    return Annotated[model, AfterValidator(check_size), Member(json_schema_extra={"minProperties": least})]


def _columns_model(
    name: str, side: str | None, used: Sequence[Field], ignored: Sequence[Field], max_candidates: int
) -> Any:
    """An object of equally long arrays."""

    def check_lengths(instance: BaseModel) -> BaseModel:
        lengths = {len(getattr(instance, member)) for member in instance.model_fields_set}
        if len(lengths) != 1 or not 1 <= min(lengths) <= max_candidates:
            raise ValueError("columns differ in length, are empty or too long")
        return instance

    model = _fields_model(name, side, used, ignored, wrap=True)
    return Annotated[model, AfterValidator(check_lengths), Member(json_schema_extra={"minProperties": 1})]
