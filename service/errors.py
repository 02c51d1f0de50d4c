"""Everything that can go wrong, and what a client is told: one table from exception type to HTTP status.

::

    Exception
    ├── ServiceError                    the service's own
    │   ├── UnauthorizedError             401  no API key, where one is asked for, or none that is good
    │   ├── MethodNotAllowedError         405  wrong method, `Allow` says which
    │   ├── MediaTypeError                415  a type or an encoding that is not read
    │   ├── BodyTooLargeError             413  more bytes than `max_body_bytes`
    │   │   └── InflatedBodyError              the same, found after all of it was read
    │   ├── MalformedHttpError            400  no HTTP request, or a body that breaks off with what is none
    │   ├── LateRequestError              408  a head or a body that is not there in time
    │   ├── HeadTooLargeError             431  more bytes or headers than allowed
    │   ├── ClientGoneError               499  hung up before it had an answer: counted, never answered
    │   ├── HeaderError                   400  a header that says something else than it may
    │   ├── QueueFullError                429  too much work waits
    │   ├── OverloadedError               503  it cannot be scored in time
    │   ├── MalformedBodyError            400  bytes that are no JSON or MessagePack document
    │   ├── FeedbackError                 422  an event of feedback that does not count
    │   │   ├── MalformedTokenError            no token, or an event that says nothing
    │   │   ├── ForgedTokenError          403  signed by somebody else
    │   │   ├── LateFeedbackError         410  after the token's window
    │   │   ├── EarlyFeedbackError             before the token was issued: clocks differ
    │   │   └── UnknownVersionError            of one model more than are counted apart
    │   ├── FeedbackOffError              404  no secret is set, so there are no tokens
    │   ├── NotReadyError                 503  no model yet, or none that could be loaded
    │   └── ModelOutputError              500  a score that is not a finite number
    ├── RequestError (service.features)   422  a document that cannot be scored: where, expected, got
    │   ├── UnknownFieldError ...              (its tree is drawn in service/features/errors.py)
    │   └── MemberError                        a member of the body beside context and candidates
    └── anything else                   500  logged with its traceback; the client sees none of it

Domain errors know no HTTP. Answers are RFC 9457 problem documents: `type`, `title`, `status`, `detail`, and, where
they are known, `where`, `expected`, `got` and `request_id`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from service.features.errors import (
    FieldValueError,
    MisplacedFieldError,
    NoCandidatesError,
    RaggedColumnsError,
    RequestError,
    StructureError,
    UnknownFieldError,
)

__all__ = [
    "PROBLEMS",
    "PROBLEM_MEDIA_TYPE",
    "BodyTooLargeError",
    "ClientGoneError",
    "EarlyFeedbackError",
    "FeedbackError",
    "FeedbackOffError",
    "ForgedTokenError",
    "HeadTooLargeError",
    "HeaderError",
    "InflatedBodyError",
    "LateFeedbackError",
    "LateRequestError",
    "MalformedBodyError",
    "MalformedHttpError",
    "MalformedTokenError",
    "MediaTypeError",
    "MemberError",
    "MethodNotAllowedError",
    "ModelOutputError",
    "NotReadyError",
    "OverloadedError",
    "Problem",
    "QueueFullError",
    "ServiceError",
    "UnauthorizedError",
    "UnknownVersionError",
    "problem_bytes",
    "problem_document",
    "problem_of",
]

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_LONGEST_QUOTE: Final = 400


class ServiceError(Exception):
    """Root of the service's own errors.

    Args:
        detail: One sentence for the client.
        headers: Response headers that belong to the answer, such as `Allow`.
        where: Place of the fault; expected, got: what it may hold and what it holds.
    """

    def __init__(
        self,
        detail: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        where: str | None = None,
        expected: str | None = None,
        got: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = headers
        self.where = where
        self.expected = expected
        self.got = got


class UnauthorizedError(ServiceError):
    """The request brings no API key that is good."""


class MethodNotAllowedError(ServiceError):
    """The path exists, the method does not."""


class MediaTypeError(ServiceError):
    """The body is declared to be something the service does not read."""


class BodyTooLargeError(ServiceError):
    """More bytes than allowed; found while reading, never after."""


class InflatedBodyError(BodyTooLargeError):
    """A compressed body, all of it read, inflates to more bytes than allowed."""


class MalformedHttpError(ServiceError):
    """What came over the connection is no HTTP request, or the body of one is not framed as HTTP frames it."""


class LateRequestError(ServiceError):
    """A part of a request came, and the rest not in time."""


class HeadTooLargeError(ServiceError):
    """A head with more bytes, or more headers, than allowed."""


class ClientGoneError(ServiceError):
    """The client closed its connection before it had an answer."""


class HeaderError(ServiceError):
    """A header of the request has a value that it cannot have.

    Args:
        name: The header.
        expected: What it may hold.
        value: What it holds.
    """

    def __init__(self, name: str, expected: str, value: bytes) -> None:
        got = repr(value[:40].decode("latin-1"))
        super().__init__(f"{name}: expected {expected}, got {got}.", where=name, expected=expected, got=got)


class QueueFullError(ServiceError):
    """Too much work waits already.

    Args:
        most: Candidates that may wait.
        seconds: When there is likely to be room.
    """

    def __init__(self, most: int, seconds: float) -> None:
        super().__init__(
            f"Too many candidates wait: expected at most {most}.",
            headers=_retry_after(seconds),
            expected=f"at most {most} candidates that wait",
        )


class OverloadedError(ServiceError):
    """A request cannot be scored in time.

    Args:
        why: When that was found out.
        seconds: When it would have been its turn.
    """

    def __init__(self, why: str, seconds: float) -> None:
        super().__init__(f"Refused: {why}.", headers=_retry_after(seconds))


def _retry_after(seconds: float) -> tuple[tuple[str, str], ...]:
    """Whole seconds, one at least."""
    return (("retry-after", str(max(1, math.ceil(seconds)))),)


class MalformedBodyError(ServiceError):
    """The bytes are no document at all."""


class FeedbackError(ServiceError):
    """An event of feedback does not count."""


class MalformedTokenError(FeedbackError):
    """The token is none, or the event says nothing."""


class ForgedTokenError(FeedbackError):
    """None of the service's secrets has signed the token."""


class LateFeedbackError(FeedbackError):
    """The token's window is over."""


class EarlyFeedbackError(FeedbackError):
    """The token was issued in the future."""


class UnknownVersionError(FeedbackError):
    """There are too many models to count this one apart."""


class FeedbackOffError(ServiceError):
    """The service neither gives nor takes tokens."""


class NotReadyError(ServiceError):
    """There is no model to score with."""


class ModelOutputError(ServiceError):
    """The model gave something that is no score."""


class MemberError(RequestError):
    """A member of the body other than context and candidates has the wrong name, type or value."""


@dataclass(frozen=True, slots=True)
class Problem:
    """How one kind of error is answered.

    Attributes:
        status: HTTP status code.
        code: Last part of the problem's `type`; stable, for programs.
        title: The same for people.
    """

    status: int
    code: str
    title: str

    @property
    def type(self) -> str:
        """The problem's `type` member (RFC 9457, section 3.1.1)."""
        return f"urn:problem-type:reaction:{self.code}"


INTERNAL: Final = Problem(500, "internal", "The service failed")

# Looked up along the exception's ancestors, so a subclass answers as its parent unless it has a line of its own.
PROBLEMS: Final[dict[type[Exception], Problem]] = {
    MalformedBodyError: Problem(400, "malformed-body", "The body is no valid document"),
    HeaderError: Problem(400, "malformed-header", "A header has a value it cannot have"),
    MalformedHttpError: Problem(400, "malformed-http", "This is no HTTP request"),
    UnauthorizedError: Problem(401, "unauthorized", "An API key is needed"),
    MethodNotAllowedError: Problem(405, "method-not-allowed", "The method is not allowed here"),
    LateRequestError: Problem(408, "late-request", "The request did not come in time"),
    BodyTooLargeError: Problem(413, "body-too-large", "The body is too large"),
    InflatedBodyError: Problem(413, "inflated-body-too-large", "The body is too large once it is inflated"),
    MediaTypeError: Problem(415, "media-type", "The media type is not supported"),
    RequestError: Problem(422, "invalid-request", "The request cannot be scored"),
    MemberError: Problem(422, "invalid-member", "A member of the body is wrong"),
    StructureError: Problem(422, "wrong-structure", "An object or an array is needed here"),
    RaggedColumnsError: Problem(422, "ragged-columns", "The columns differ in length"),
    NoCandidatesError: Problem(422, "no-candidates", "There is nothing to score"),
    UnknownFieldError: Problem(422, "unknown-field", "The model has no such field"),
    MisplacedFieldError: Problem(422, "misplaced-field", "The field belongs to the other side"),
    FieldValueError: Problem(422, "field-value", "A field has a value it cannot have"),
    QueueFullError: Problem(429, "queue-full", "Too much work waits"),
    HeadTooLargeError: Problem(431, "head-too-large", "The head of the request is too large"),
    FeedbackError: Problem(422, "feedback", "The event does not count"),
    MalformedTokenError: Problem(422, "malformed-token", "The event has no token, or says nothing"),
    ForgedTokenError: Problem(403, "forged-token", "The token was not signed by this service"),
    LateFeedbackError: Problem(410, "late-feedback", "The token's window is over"),
    EarlyFeedbackError: Problem(422, "early-feedback", "The token is of the future"),
    UnknownVersionError: Problem(422, "unknown-version", "The token is of a model that is not counted"),
    FeedbackOffError: Problem(404, "feedback-off", "Feedback is off"),
    ClientGoneError: Problem(499, "client-gone", "The client closed its connection"),
    ModelOutputError: Problem(500, "model-output", "The model gave no finite score"),
    OverloadedError: Problem(503, "overloaded", "The request cannot be scored in time"),
    NotReadyError: Problem(503, "not-ready", "The service is not ready"),
}


def problem_of(error: BaseException) -> Problem:
    """The line of the table an exception answers by; 500 without internals where there is none."""
    for ancestor in type(error).__mro__:
        problem = PROBLEMS.get(ancestor)
        if problem is not None:
            return problem
    return INTERNAL


def problem_document(
    problem: Problem, detail: str, *, request_id: str | None = None, **members: str | None
) -> dict[str, Any]:
    """The members of a problem document; None stands for a member that is not there.

    Args:
        problem: Which problem.
        detail: One sentence on this occurrence.
        request_id: The request's id.
        members: `where`, `expected` and `got`.
    """
    document: dict[str, Any] = {"type": problem.type, "title": problem.title, "status": problem.status}
    document["detail"] = _quote(detail)
    document |= {name: _quote(value) for name, value in members.items() if value is not None}
    if request_id is not None:
        document["request_id"] = request_id
    return document


def problem_bytes(error: BaseException, request_id: str | None = None) -> bytes:
    """The answer to an error as UTF-8 JSON. Nothing of an unexpected exception gets out.

    Args:
        error: What happened.
        request_id: The request's id, where it is known.
    """
    problem = problem_of(error)
    if problem is INTERNAL:
        document = problem_document(problem, "The fault was logged; nothing was scored.", request_id=request_id)
    else:
        places = {name: getattr(error, name, None) for name in ("where", "expected", "got")}
        document = problem_document(problem, str(error), request_id=request_id, **places)
    return msgspec.json.encode(document)


def _quote(text: str) -> str:
    """Keep a quoted part of a request short, and encodable whatever it holds."""
    if len(text) > _LONGEST_QUOTE:
        text = f"{text[:_LONGEST_QUOTE]}... ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
