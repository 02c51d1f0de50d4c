"""What the protocol itself refuses a request with: the errors, and their answers as they go over the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.errors import (
    PROBLEM_MEDIA_TYPE,
    HeadTooLargeError,
    LateRequestError,
    MalformedHttpError,
    OverloadedError,
    problem_bytes,
    problem_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.errors import ServiceError

__all__ = ["answer_bytes", "full", "late", "malformed", "not_to_the_letter", "reason_of", "too_large"]

_REASONS: Final = {HeadTooLargeError: "head_too_large", MalformedHttpError: "malformed", OverloadedError: "full"}
_VERSIONS: Final = frozenset(("1.1", "1.0"))
_ANSWER: Final = (
    b"content-type: " + PROBLEM_MEDIA_TYPE.encode() + b"\r\ncontent-length: %d\r\n"
    b"x-content-type-options: nosniff\r\nconnection: close\r\n\r\n%b"
)


def malformed(error: Exception) -> MalformedHttpError:
    """The error for what the parser does not take."""
    return MalformedHttpError(
        "What came over the connection is no HTTP request.",
        where="request",
        expected="an HTTP/1.1 request",
        got=str(error) or type(error).__name__,
    )


def not_to_the_letter(version: str, headers: Iterable[tuple[bytes, bytes]]) -> MalformedHttpError | None:
    """The error for a head that the parser takes and the standard does not; None where it does.

    Args:
        version: Of HTTP; 0.9 where the request names none.
        headers: Their names in small letters.
    """
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return MalformedHttpError(
                "The body of the request is coded in a way that is not read.",
                where="Transfer-Encoding",
                expected="chunked",
                got=repr(value.decode("latin-1")[:100]),
            )
    if (hosts == 1 and version in _VERSIONS) or (hosts == 0 and version == "1.0"):
        return None
    return MalformedHttpError(
        "The head of the request is not HTTP/1.1's.",
        where="head",
        expected="HTTP/1.1 with one Host header",
        got=f"HTTP/{version} with {hosts} Host headers",
    )


def too_large(expected: str, got: str) -> HeadTooLargeError:
    """The error for a head that is over a limit."""
    return HeadTooLargeError(
        f"The head of the request: expected {expected}, got {got}.", where="head", expected=expected, got=got
    )


def full(most: int) -> OverloadedError:
    """The error for a connection that is one too many."""
    return OverloadedError(f"{most} connections are open, and none is idle", 1.0)


def late(where: str, seconds: float) -> LateRequestError:
    """The error for a head or a body that is not there in time."""
    return LateRequestError(
        f"The {where} of the request: expected within {seconds:g} s, got a part of it.",
        where=where,
        expected=f"all of it within {seconds:g} s",
        got="a part of it",
    )


def reason_of(error: ServiceError) -> str:
    """What a connection that ends with an error is counted as."""
    return _REASONS.get(type(error)) or f"{error.where}_late"


def answer_bytes(error: ServiceError, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The whole answer, after which the connection ends.

    Args:
        error: What is refused, and why.
        headers: The web server's own headers.
    """
    body = problem_bytes(error)
    lines = [STATUS_LINE[problem_of(error).status], *(b"%b: %b\r\n" % header for header in headers)]
    lines += [b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in error.headers]
    lines.append(_ANSWER % (len(body), body))
    return b"".join(lines)
