"""Look-ups of raw text for the hot path, one class a kind of vocabulary.

`lookup[raw]` is the id of raw text as the four bytes of a native int32, so that a column of ids is one
`b"".join(...)`: half the time of collecting integers and converting them. None and `""` are both "missing".

Keys are text (and None) alone: `1 == 1.0 == True` as dictionary keys, so a number must never meet one. Whatever is
neither encodable text nor None raises `KeyError` (or `TypeError`, if it cannot be a key), and the caller asks the
field.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Protocol

from xxhash import xxh64_intdigest

if TYPE_CHECKING:
    from service.features.packed import PackedTokens

__all__ = [
    "MISSING",
    "OUT_OF_VOCABULARY",
    "PAD",
    "HashedLookup",
    "Lookup",
    "PackedLookup",
    "TableLookup",
    "from_id_bytes",
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


class Lookup(Protocol):
    """What the encoder asks; see the module."""

    def __getitem__(self, raw: object, /) -> bytes:
        """Id of raw text."""


class TableLookup(dict[object, bytes]):
    """A dictionary of the tokens; a miss that is text is out of vocabulary."""

    def __init__(self) -> None:
        super().__init__({None: _MISSING, "": _MISSING})

    def __missing__(self, raw: object) -> bytes:
        if not isinstance(raw, str):
            raise KeyError(raw)
        _encoded(raw)
        return _OUT_OF_VOCABULARY


class PackedLookup:
    """Packed tokens, mapped or in memory."""

    def __init__(self, tokens: PackedTokens, reserved: int) -> None:
        self._tokens = tokens
        self._reserved = reserved

    def __getitem__(self, raw: object, /) -> bytes:
        if not isinstance(raw, str) or not raw:
            return _of_nothing(raw)
        position = self._tokens.find(_encoded(raw))
        return _OUT_OF_VOCABULARY if position is None else to_id_bytes(position + self._reserved)


class HashedLookup:
    """xxHash64 of the UTF-8, seed 0, modulo the buckets."""

    def __init__(self, buckets: int, reserved: int) -> None:
        self._buckets = buckets
        self._reserved = reserved

    def __getitem__(self, raw: object, /) -> bytes:
        if not isinstance(raw, str) or not raw:
            return _of_nothing(raw)
        return to_id_bytes(xxh64_intdigest(_encoded(raw)) % self._buckets + self._reserved)


def _of_nothing(raw: object) -> bytes:
    if raw is None or isinstance(raw, str):
        return _MISSING
    raise KeyError(raw)


def _encoded(raw: str) -> bytes:
    try:
        return raw.encode("utf-8")
    except UnicodeEncodeError:
        raise KeyError(raw) from None
