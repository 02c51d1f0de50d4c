"""The little of ASGI that the hot route needs: headers, a bounded body, an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from service.admission import is_low, read_deadline
from service.edge.compression import READABLE, WRITTEN
from service.edge.joined_writes import fault_of, join_next_writes
from service.errors import (
    BodyTooLargeError,
    ClientGoneError,
    HeaderError,
    InflatedBodyError,
    MediaTypeError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Receive, Scope, Send

    from service.pipeline import Work

__all__ = [
    "LONGEST_KEY",
    "RequestHead",
    "ScoreHead",
    "answer_headers",
    "read_body",
    "refusal_headers",
    "send_answer",
    "send_refusal",
    "server_timing",
]

_JSON_TYPES: Final = (b"application/json",)
_MSGPACK_TYPES: Final = (b"application/msgpack", b"application/vnd.msgpack", b"application/x-msgpack")
_MEDIA_TYPES: Final = {**dict.fromkeys(_JSON_TYPES, False), **dict.fromkeys(_MSGPACK_TYPES, True)}
_READABLE: Final = "application/json or application/msgpack"
# A refused body is still taken in for a while, so that its sender gets to read why.
_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 64 * 1024 * 1024


_TIMED: Final = ("queue", "decode", "encode", "infer")
# Of an answer that is compressed, and of one that would be for another client: caches must not mix them up.
_DEFLATED: Final = (b"content-encoding", WRITTEN)
_VARIES: Final = (b"vary", b"accept-encoding")
_ROUTING_KEY: Final = b"x-routing-key"
LONGEST_KEY: Final = 1024  # 256 characters, as in a body


class RequestHead:
    """What the headers of a request say of its body, in any form.

    Attributes:
        named: The last header of each name.
        length: Declared length of the body; 0 where it is not.
        compressed: The body is gzip or deflate.
        accept_encoding: Encodings that the client takes, as it says so.
        deadline_seconds: Within how many it wants its answer; None if it does not say.
        low: It may be left out first.
        routing_key: What a sticky split between versions hashes; None if it does not say.

    Raises:
        MediaTypeError: The body has an encoding that is not read.
        BodyTooLargeError: The declared length is over the limit.
        HeaderError: A header says something else than it may.
    """

    __slots__ = ("accept_encoding", "compressed", "deadline_seconds", "length", "low", "named", "routing_key")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], max_body_bytes: int) -> None:
        self.named = named = dict(headers)
        self.length = int(named.get(b"content-length", 0))
        if self.length > max_body_bytes:
            raise _too_large(max_body_bytes, self.length)
        self.accept_encoding = named.get(b"accept-encoding", b"")
        self.compressed = False
        if b"content-encoding" in named:
            encodings = [value for name, value in headers if name == b"content-encoding"]
            self.compressed = _is_compressed(b", ".join(encodings))
        self.deadline_seconds = read_deadline(named)
        self.low = is_low(named)
        self.routing_key = key = named.get(_ROUTING_KEY)
        if key is not None and not 1 <= len(key) <= LONGEST_KEY:
            raise HeaderError("X-Routing-Key", f"1 to {LONGEST_KEY} bytes", key)


class ScoreHead(RequestHead):
    """What the headers of a scoring request say.

    Attributes:
        packed: The body is MessagePack, else JSON.
        answer_packed: The client wants MessagePack: it says so in `Accept`, or sent it and says nothing.

    Raises:
        MediaTypeError: Neither JSON nor MessagePack in UTF-8, or an encoding that is not read.
        BodyTooLargeError: The declared length is over the limit.
    """

    __slots__ = ("answer_packed", "packed")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], max_body_bytes: int) -> None:
        super().__init__(headers, max_body_bytes)
        content_type, accept = self.named.get(b"content-type", b""), self.named.get(b"accept", b"")
        packed = _MEDIA_TYPES.get(content_type)
        if packed is None:
            packed = _parse_content_type(content_type)
        self.packed = packed
        self.answer_packed = _answer_packed(accept.lower(), packed) if accept and accept != b"*/*" else packed


def _answer_packed(accept: bytes, packed: bool) -> bool:
    wants_packed = any(kind in accept for kind in _MSGPACK_TYPES)
    if wants_packed == packed:
        return packed
    # Both named: the answer is of the request's own kind.
    return wants_packed and not any(kind in accept for kind in _JSON_TYPES)


def _is_compressed(content_encoding: bytes) -> bool:
    """Whether a `Content-Encoding` says that a body has to be inflated.

    Raises:
        MediaTypeError: It names an encoding that is not read, or more than one.
    """
    encoding = content_encoding.strip().lower()
    if encoding == b"identity":
        return False
    if encoding not in READABLE:
        hint = ("accept-encoding", "gzip, deflate, identity")
        raise _unsupported("Content-Encoding", "gzip, deflate or identity", content_encoding, hint)
    return True


def _parse_content_type(value: bytes) -> bool:
    kind, _, parameters = value.partition(b";")
    packed = _MEDIA_TYPES.get(kind.strip().lower())
    if packed is None:
        raise _unsupported("Content-Type", _READABLE, value, ("accept", "application/json, application/msgpack"))
    for parameter in parameters.split(b";"):
        name, _, charset = parameter.strip().lower().partition(b"=")
        if name == b"charset" and charset.strip(b'"') not in (b"utf-8", b"utf8"):
            raise _unsupported("Content-Type", "the charset utf-8", value, ("accept", "application/json"))
    return packed


def _unsupported(header: str, expected: str, value: bytes, hint: tuple[str, str]) -> MediaTypeError:
    got = repr(value.decode("latin-1")) if value else "nothing"
    detail = f"{header}: expected {expected}, got {got}."
    return MediaTypeError(detail, headers=(hint,), where=header, expected=expected, got=got)


def _too_large(max_body_bytes: int, got: int) -> BodyTooLargeError:
    """The error for a body that has, or declares, more bytes than allowed."""
    expected = f"at most {max_body_bytes} bytes"
    return BodyTooLargeError(
        f"body: expected {expected}, got {got} or more.", where="body", expected=expected, got=f"{got} bytes or more"
    )


async def read_body(scope: Scope, receive: Receive, max_body_bytes: int) -> bytes:
    """Read a whole body, and no more of it than allowed.

    Raises:
        BodyTooLargeError: It has more bytes.
        LateRequestError: It took too long.
        MalformedHttpError: It broke off with what is no HTTP.
        ClientGoneError: The client hung up.
    """
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGoneError("The client hung up before its body was complete.")
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= max_body_bytes:
        return body
    parts = [body]
    size = len(body)
    while True:
        if size > max_body_bytes:
            raise _too_large(max_body_bytes, size)
        if not message.get("more_body", False):
            return b"".join(parts)
        fault = fault_of(scope)
        if fault is not None:
            raise fault
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError("The client hung up before its body was complete.")
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)


def answer_headers(work: Work, media_type: bytes) -> list[tuple[bytes, bytes]]:
    """Headers of a good answer."""
    headers = [
        (b"content-type", media_type),
        (b"content-length", b"%d" % len(work.answer)),
        (b"x-request-id", work.request_id.encode()),
    ]
    if work.deflated:
        headers += (_DEFLATED, _VARIES)
    elif len(work.answer) >= work.deflate_from:
        headers.append(_VARIES)
    if work.version:
        headers.append((b"x-model-version", work.version))
    return headers


def server_timing(work: Work) -> tuple[bytes, bytes]:
    """How long the stages took so far, in milliseconds (W3C Server Timing)."""
    marks = (work.received - work.lag, work.started, work.decoded, work.encoded, work.inferred)
    stages = zip(_TIMED, marks, marks[1:], strict=False)
    text = ", ".join([f"{name};dur={(end - begin) * 1e3:.3f}" for name, begin, end in stages])
    return b"server-timing", text.encode()


def refusal_headers(error: BaseException, body: bytes, media_type: bytes, request_id: str) -> list[tuple[bytes, bytes]]:
    """Headers of the answer to an error."""
    headers = [
        (b"content-type", media_type),
        (b"content-length", b"%d" % len(body)),
        *((name.encode(), value.encode("latin-1", "replace")) for name, value in getattr(error, "headers", ())),
        (b"x-request-id", request_id.encode()),
    ]
    if _lingers(error):
        headers.append((b"connection", b"close"))
    return headers


def _lingers(error: BaseException) -> bool:
    """Whether a body was refused unread. It is still taken in for a moment after the answer and thrown away.

    Closing at once would reset the connection, and the client might lose the answer with it.
    """
    return isinstance(error, BodyTooLargeError) and not isinstance(error, InflatedBodyError)


async def send_answer(scope: Scope, send: Send, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a whole good answer, head and body in one write where the server can.

    Raises:
        ClientGoneError: The server knows that nobody is there any more.
    """
    there = join_next_writes(scope)
    # To nobody too: the server wants its messages.
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    if not there:
        raise ClientGoneError("The client hung up before it had its answer.")


async def send_refusal(
    scope: Scope,
    receive: Receive,
    send: Send,
    error: BaseException,
    answer: tuple[int, list[tuple[bytes, bytes]], bytes],
) -> None:
    """Send the answer to an error (status, headers, body), in whatever form."""
    status, headers, body = answer
    linger = _lingers(error)
    if not linger and scope["method"] != "HEAD":  # no body is ever written to that
        join_next_writes(scope)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": linger})
    if linger:
        await _throw_away(receive)
        await send({"type": "http.response.body", "body": b""})


async def _throw_away(receive: Receive) -> None:
    taken = 0
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while taken < _LINGER_BYTES:
                message = await receive()
                taken += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return
