"""How many candidates a body holds, found out before any of them is built.

A candidate of one byte becomes an object of hundreds: a body within its limit could take a thousand times its length.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from service.errors import MemberError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["refuse_too_many"]

# Takes what it has seen for good: a text without an end reaches to the end of the body, and is not looked at again from
# each quotation mark within it, which would take the square of its length.
_TEXT: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
# First byte of an array with a length of two or of four bytes; shorter ones have theirs in the low half of it.
_LENGTHS: Final = {0xDC: 2, 0xDD: 4}
_SHORT_ARRAY: Final = 0x90
_BRACE: Final = ord("{")
_BRACKET: Final = ord("[")
_LEVEL: Final = 3
_SPARE: Final = 64


class _Candidates(msgspec.Struct):
    candidates: msgspec.Raw


_find_candidates: Final[Callable[[bytes], _Candidates]] = msgspec.msgpack.Decoder(_Candidates).decode


def refuse_too_many(body: bytes, most: int, *, packed: bool) -> None:
    """Refuse a body that must hold far more candidates than allowed; the rest are counted once they are decoded.

    Args:
        body: The whole body, whatever it is.
        most: Most candidates in one request.
        packed: MessagePack, else JSON.

    Raises:
        MemberError: There are more.
    """
    if len(body) <= most:  # a candidate takes a byte at least
        return
    if packed:
        found, bound = _array_length(body), most
    else:
        # Ignored fields of the context may hold objects of the candidates' level.
        found, bound = body.count(b"{"), 2 * most + _SPARE
        if found > bound:
            found = _objects_in_arrays(body)
    if found > bound:
        raise MemberError("candidates", f"at most {most}", f"{found} or so")


def _objects_in_arrays(body: bytes) -> int:
    """Objects of the third level: the body is the first, its array of candidates the second."""
    bare = np.frombuffer(_TEXT.sub(b"", body), dtype=np.uint8)
    opened = bare == _BRACE
    steps = (opened | (bare == _BRACKET)).astype(np.int8)
    steps -= (bare == _BRACE + 2) | (bare == _BRACKET + 2)  # in ASCII, what closes is two beyond what opens
    return int(np.count_nonzero(np.cumsum(steps, dtype=np.int32)[opened] == _LEVEL))


def _array_length(body: bytes) -> int:
    """Length of the array of candidates as it says itself; 0 where there is none."""
    try:
        start = bytes(memoryview(_find_candidates(body).candidates)[:5])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    if start and start[0] & 0xF0 == _SHORT_ARRAY:
        return start[0] & 0x0F
    return int.from_bytes(start[1 : 1 + _LENGTHS.get(start[0], 0)], "big") if start else 0
