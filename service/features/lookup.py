"""Look-ups of raw text for the hot path, one function a kind of vocabulary.

A look-up gives the id of raw text as the four bytes of a native int32, so that a column of ids is one
`b"".join(...)`: half the time of collecting integers and converting them. None and `""` are both "missing".

Keys are text (and None) alone: `1 == 1.0 == True` as dictionary keys, so a number must never meet one. An integer is
looked up as its decimal text. Whatever else is neither encodable text nor None raises `KeyError` (or `TypeError`, if it
cannot be a key), and the caller asks the field.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Protocol

from xxhash import xxh64_intdigest

from service.features.fields import LARGEST_INT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.features.packed import PackedTokens

__all__ = [
    "ID_BYTES",
    "MISSING",
    "OUT_OF_VOCABULARY",
    "PAD",
    "Lookup",
    "TableOfIds",
    "TokenTable",
    "from_id_bytes",
    "hashed_lookup",
    "join_all",
    "packed_lookup",
    "shared_id_bytes",
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


_shared: Final[dict[int, bytes]] = {}


def shared_id_bytes(number: int) -> bytes:
    """`to_id_bytes`, the same object for all who ask for the number.

    Tables of many fields that share their ids keep the ids asked for most in a processor's nearest cache, and hold no
    object an entry.
    """
    return _shared.setdefault(number, to_id_bytes(number))


def from_id_bytes(content: bytes) -> int:
    """The id that `to_id_bytes` wrote."""
    return int.from_bytes(content, sys.byteorder)


_MISSING: Final = shared_id_bytes(MISSING)
_OUT_OF_VOCABULARY: Final = shared_id_bytes(OUT_OF_VOCABULARY)


class TableOfIds(Protocol):
    """Ids of a raw value, as bytes of int32."""

    def __getitem__(self, raw: object, /) -> bytes:
        """Ids of one raw value."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Id of one raw value, and ids of many, one after the other; see the module for what is raised.

    Attributes:
        one: Id of one raw value.
        many: Ids of several.
        table: The dictionary behind them, if it is one.
    """

    one: Callable[[object], bytes]
    many: Callable[[Sequence[object]], bytes]
    table: TokenTable | None = None


class TokenTable(dict[object, bytes]):
    """A dictionary of tokens; a miss that is text is out of vocabulary."""

    def __init__(self) -> None:
        super().__init__({None: _MISSING, "": _MISSING})

    def __missing__(self, raw: object) -> bytes:
        if isinstance(raw, str):
            _encoded(raw)
            return _OUT_OF_VOCABULARY
        if type(raw) is int and -LARGEST_INT < raw < LARGEST_INT:
            return self[str(raw)]
        raise KeyError(raw)


def join_all(table: TableOfIds, raws: Sequence[object]) -> bytes:
    """Ids of several values in one table, one after the other."""
    # itemgetter asks for all of them in one call; of a single key it would give no tuple
    return b"".join(itemgetter(*raws)(table)) if len(raws) > 1 else b"".join([table[raw] for raw in raws])


def table_lookup(table: TokenTable) -> Lookup:
    """Look-up in a dictionary."""
    return Lookup(table.__getitem__, lambda raws: join_all(table, raws), table)


def packed_lookup(tokens: PackedTokens, reserved: int) -> Lookup:
    """Look-up in packed tokens, mapped or in memory."""
    find = tokens.finder()

    def one(raw: object) -> bytes:
        if not isinstance(raw, str) or not raw:
            return _of_nothing(raw)
        position = find(_encoded(raw))
        return _OUT_OF_VOCABULARY if position < 0 else to_id_bytes(position + reserved)

    return Lookup(one, tokens.finder_of_many(reserved, OUT_OF_VOCABULARY, lambda raw: from_id_bytes(one(raw))))


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
