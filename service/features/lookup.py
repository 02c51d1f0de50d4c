"""Look-ups of raw text for the hot path, one function a kind of vocabulary.

A look-up gives the id of raw text as the four bytes of a native int32, so that a column of ids is one
`b"".join(...)`: half the time of collecting integers and converting them. None and `""` are both "missing".

Keys are text (and None) alone: `1 == 1.0 == True` as dictionary keys, so a number must never meet one. Whatever is
neither encodable text nor None raises `KeyError` (or `TypeError`, if it cannot be a key), and the caller asks the
field.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from xxhash import xxh64_intdigest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.features.packed import PackedTokens

__all__ = [
    "ID_BYTES",
    "MISSING",
    "OUT_OF_VOCABULARY",
    "PAD",
    "Lookup",
    "TokenTable",
    "from_id_bytes",
    "hashed_lookup",
    "packed_lookup",
    "table_lookup",
    "to_id_bytes",
]

MISSING: Final = 0
OUT_OF_VOCABULARY: Final = 1
PAD: Final = 2  # multi-valued fields only

ID_BYTES: Final = 4


def to_id_bytes(number: int) -> bytes:
    """An id as the four bytes of a native int32."""
    return number.to_bytes(ID_BYTES, sys.byteorder)


def from_id_bytes(content: bytes) -> int:
    """The id that `to_id_bytes` wrote."""
    return int.from_bytes(content, sys.byteorder)


_MISSING: Final = to_id_bytes(MISSING)
_OUT_OF_VOCABULARY: Final = to_id_bytes(OUT_OF_VOCABULARY)


@dataclass(frozen=True, slots=True)
class Lookup:
    """Id of one raw value, and ids of many, one after the other; see the module for what is raised."""

    one: Callable[[object], bytes]
    many: Callable[[Sequence[object]], bytes]


class TokenTable(dict[object, bytes]):
    """A dictionary of tokens; a miss that is text is out of vocabulary."""

    def __init__(self) -> None:
        super().__init__({None: _MISSING, "": _MISSING})

    def __missing__(self, raw: object) -> bytes:
        if not isinstance(raw, str):
            raise KeyError(raw)
        _encoded(raw)
        return _OUT_OF_VOCABULARY


def table_lookup(table: TokenTable) -> Lookup:
    """Look-up in a dictionary."""
    one = table.__getitem__

    def many(raws: Sequence[object]) -> bytes:
        # itemgetter asks for all of them in one call; of a single key it would give no tuple
        return b"".join(itemgetter(*raws)(table)) if len(raws) > 1 else b"".join(map(one, raws))

    return Lookup(one, many)


def packed_lookup(tokens: PackedTokens, reserved: int) -> Lookup:
    """Look-up in packed tokens, mapped or in memory."""
    find = tokens.finder()

    def one(raw: object) -> bytes:
        if not isinstance(raw, str) or not raw:
            return _of_nothing(raw)
        position = find(_encoded(raw))
        return _OUT_OF_VOCABULARY if position < 0 else to_id_bytes(position + reserved)

    return Lookup(one, lambda raws: b"".join(map(one, raws)))


def hashed_lookup(buckets: int, reserved: int) -> Lookup:
    """xxHash64 of the UTF-8, seed 0, modulo the buckets."""

    def one(raw: object) -> bytes:
        if not isinstance(raw, str) or not raw:
            return _of_nothing(raw)
        return to_id_bytes(xxh64_intdigest(_encoded(raw)) % buckets + reserved)

    return Lookup(one, lambda raws: b"".join(map(one, raws)))


def _of_nothing(raw: object) -> bytes:
    if raw is None or isinstance(raw, str):
        return _MISSING
    raise KeyError(raw)


def _encoded(raw: str) -> bytes:
    try:
        return raw.encode("utf-8")
    except UnicodeEncodeError:
        raise KeyError(raw) from None
