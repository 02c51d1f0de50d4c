"""`POST /feedback`: what became of candidates that were scored."""

import asyncio
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import UNSET, Meta, UnsetType

from service.edge.asgi import read_body
from service.errors import PROBLEM_MEDIA_TYPE, FeedbackOffError, MalformedBodyError, MemberError
from service.feedback.desk import Event
from service.runtime import Runtime
from service.schemas import FeedbackAnswer, FeedbackRequest, ProblemDocument

__all__ = ["MOST_EVENTS", "router"]

MOST_EVENTS: Final = 1000
# Others get their turn after so many: about half a millisecond.
_AT_ONCE: Final = 64
_TAKEN: Final = frozenset(("click", "no_click", "shown", "withdrawn", "repeated"))
_REFUSED: Final[dict[int, str]] = {
    400: "The body is no JSON document.",
    403: "The token was not signed by this service.",
    404: "The service gives no tokens: no secret is set.",
    410: "The token's window is over.",
    413: "The body is too large.",
    422: "No token, or an event that says nothing.",
}


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """One event, or many."""

    token: str | UnsetType = UNSET
    click: bool | UnsetType = UNSET
    shown: bool | UnsetType = UNSET
    events: Annotated[list[Event], Meta(min_length=1, max_length=MOST_EVENTS)] | UnsetType = UNSET


_decode: Final = msgspec.json.Decoder(_Body).decode


def router(runtime: Runtime) -> APIRouter:
    """The desk's door."""
    routes = APIRouter(tags=["feedback"])
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": {PROBLEM_MEDIA_TYPE: {}}, "model": ProblemDocument}
        for status, text in _REFUSED.items()
    }
    body = {"required": True, "content": {"application/json": {"schema": FeedbackRequest.model_json_schema()}}}

    @routes.post(
        "/feedback",
        summary="Say what was clicked",
        status_code=202,
        response_model=FeedbackAnswer,
        responses=responses,
        openapi_extra={"requestBody": body},
    )
    async def feedback(request: Request) -> Response:
        """One event, refused with its reason if it does not count; or `events`, each with its outcome in the answer."""
        desk = runtime.feedback
        if desk is None:
            raise FeedbackOffError("Feedback is off: no secret is set.", expected="REACTION_FEEDBACK_SECRET")
        events, alone = _read(await read_body(request.scope, request.receive, runtime.settings.max_body_bytes))
        if alone:
            outcomes = [desk.take(events[0])]
        else:
            outcomes = []
            for first in range(0, len(events), _AT_ONCE):
                outcomes += desk.take_all(events[first : first + _AT_ONCE])
                await asyncio.sleep(0)
        answer = {"accepted": sum(outcome in _TAKEN for outcome in outcomes), "outcomes": outcomes}
        return Response(msgspec.json.encode(answer), 202, media_type="application/json")

    return routes


def _read(body: bytes) -> tuple[list[Event], bool]:
    """Events of a body, and whether it is one by itself.

    Raises:
        MalformedBodyError: It is no JSON document.
        MemberError: It has another shape.
    """
    try:
        document = _decode(body)
    except msgspec.ValidationError as error:
        raise MemberError("body", "an event, or events", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedBodyError("The body is no JSON document.", where="body") from None
    if document.events is UNSET:
        if document.token is UNSET:
            raise MemberError("body", "a token, or events", "neither")
        return [Event(document.token, document.click, document.shown)], True
    if document.token is not UNSET or document.click is not UNSET or document.shown is not UNSET:
        raise MemberError("body", "a token, or events", "both")
    return document.events, False
