"""Headers of scoring requests that the service heeds, and those of its answers, as the OpenAPI document has them."""

from __future__ import annotations

from typing import Any, Final

from service.admission import LONGEST_MS
from service.edge.asgi import LONGEST_KEY

__all__ = ["RETRIED", "RETRY_AFTER", "answer_headers", "request_headers"]

RETRIED: Final = frozenset((429, 503))
"""Statuses that say so when to try again."""
RETRY_AFTER: Final = {"Retry-After": {"description": "Seconds until a try may succeed.", "schema": {"type": "integer"}}}

_DEADLINE: Final = """\
Within how many milliseconds the answer is wanted. What cannot be scored by then is refused: 503 with `Retry-After`, \
a long body unread. Without it {:g} s. Anything else is refused: 400."""
_PRIORITY: Final = """\
Where not all can be scored, requests of `low` are left out first. Anything else is refused: 400."""
_ROUTING_KEY: Final = f"""\
What a sticky split between two versions hashes, such as a user; it goes before `routing_key` in a body. \
One that is empty or longer than {LONGEST_KEY} bytes is refused: 400."""
_TRACEPARENT: Final = """\
The trace that a request is part of (W3C Trace Context): log lines name it, spans lie under it. \
One that is not of that form is as none."""


def request_headers(*, deadline_seconds: float) -> list[dict[str, Any]]:
    """What a scoring request may say beside its body.

    Args:
        deadline_seconds: Within which an answer is wanted where a request does not say.
    """
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": description,
            "schema": schema,
        }
        for name, description, schema in (
            ("X-Request-Deadline-Ms", _DEADLINE.format(deadline_seconds), _whole(LONGEST_MS)),
            ("X-Request-Priority", _PRIORITY, {"type": "string", "enum": ["normal", "low"], "default": "normal"}),
            ("X-Routing-Key", _ROUTING_KEY, {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY}),
            ("traceparent", _TRACEPARENT, {"type": "string"}),
        )
    ]


def _whole(most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": most}


def answer_headers(*, request_id: str) -> dict[str, Any]:
    """Headers of an answer with scores.

    Args:
        request_id: What its id is.
    """
    text = {"schema": {"type": "string"}}
    return {
        "X-Request-Id": {"description": request_id, **text},
        "X-Model-Version": {"description": "Which of two versions scored, while there are two.", **text},
        "Server-Timing": {"description": "How long its stages took, where `REACTION_SERVER_TIMING` is set.", **text},
    }
