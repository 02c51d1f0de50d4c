"""gzip and deflate in, gzip out (RFC 1950, 1952, 9110), bounded: a body is never inflated past what a body may have.

Compressing costs far more time than a short answer costs to send, and most HTTP clients say that they take gzip without
being asked; so only long answers are compressed.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from service.errors import InflatedBodyError, MalformedBodyError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["READABLE", "WRITTEN", "compress", "decompress", "takes_gzip"]

READABLE: Final = (b"gzip", b"x-gzip", b"deflate")
WRITTEN: Final = b"gzip"

_EITHER_HEADER: Final = 32 + zlib.MAX_WBITS
_GZIP_HEADER: Final = 16 + zlib.MAX_WBITS
_FAST: Final = 1
# Every further member copies what is left of the body.
_MOST_MEMBERS: Final = 64


def decompress(body: bytes, limit: int) -> bytes:
    """Inflate a body of one gzip or zlib member or several.

    Args:
        body: What was sent.
        limit: Most bytes that may come out.

    Raises:
        MalformedBodyError: The body is neither gzip nor zlib, is damaged, breaks off, or has over 64 members.
        InflatedBodyError: More bytes come out; inflating has stopped there.
    """
    parts: list[bytes] = []
    room = limit
    rest = body
    while rest or not parts:
        if len(parts) == _MOST_MEMBERS:
            raise _damaged(f"in more than {_MOST_MEMBERS} parts")
        member = zlib.decompressobj(_EITHER_HEADER)
        try:
            part = member.decompress(rest, room + 1)
        except zlib.error as error:
            raise _damaged(f"damaged ({error})") from None
        if len(part) > room:
            raise InflatedBodyError(
                f"body: expected at most {limit} bytes when inflated, got more.",
                where="body",
                expected=f"at most {limit} bytes when inflated",
                got="more",
            )
        if not member.eof:
            raise _damaged("cut off")
        parts.append(part)
        room -= len(part)
        rest = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _damaged(what: str) -> MalformedBodyError:
    return MalformedBodyError(
        f"The body cannot be read: expected what Content-Encoding says, got data that is {what}.",
        where="body",
        expected="gzip or deflate",
        got=f"data that is {what}",
    )


def compress(content: bytes) -> bytes:
    """Deflate an answer, in the fastest way."""
    return zlib.compress(content, _FAST, _GZIP_HEADER)


def takes_gzip(accept_encoding: bytes) -> bool:
    """Whether an `Accept-Encoding` header lets an answer be gzip: it is named, or `*` is, with a weight above 0."""
    weights = dict(_weights(accept_encoding.lower()))
    return next((weights[name] for name in (b"gzip", b"x-gzip", b"*") if name in weights), 0.0) > 0.0


def _weights(header: bytes) -> Iterator[tuple[bytes, float]]:
    for item in header.split(b","):
        name, _, weight = item.partition(b";")
        value = weight.strip().removeprefix(b"q=")
        try:
            yield name.strip(), float(value) if value else 1.0
        except ValueError:
            yield name.strip(), 0.0
