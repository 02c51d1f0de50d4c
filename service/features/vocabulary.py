"""Vocabularies: how a token becomes an id. The second of the contract's two pure steps.

Ids are int32 and local to a field: 0 missing, 1 out of vocabulary, for a multi-valued field 2 the pad, then the
tokens by (-count, token), which no hash seed can change.

Up to `LARGEST_TABLE` tokens a look-up goes to a dictionary, above it to packed arrays in the mapped file (see
`packed`). `tests/service/features/bench_vocabulary.py 100000 1000000` prints why, relative to the dictionary where a
figure is a time (tokens of 10 bytes; look-ups of keys drawn uniformly, and by a Zipf law as requests are):

==============  ============  ===============  =============  ==================  ===============
form            disk B/token  private B/token  opening, 10^6  uniform, 10^5-10^6  Zipf, 10^5-10^6
==============  ============  ===============  =============  ==================  ===============
dictionary      18            140 to 200       1              1                   1
packed arrays   26 to 28      0                1/40           1.4 to 1            5 to 3
marisa-trie     9 to 10       0                1/1000         1.5 to 1            5 to 3.5
LMDB            24            0                1/1000         1 to 1              9 to 4
==============  ============  ===============  =============  ==================  ===============

Those are look-ups one by one; of many values in a call, at 10^7 tokens, the packed form takes twice a dictionary's time
by a Zipf law and the same time uniformly (`python -m tests.model_export.bench_tables --only vocabulary`).

So a dictionary is worth its memory while it is small: at the limit it costs a worker some 25 MB and a tenth of a
second a field. The mapped forms are about equally fast. Packed arrays were taken because a token may be anything: the
trie ends a key at its first NUL, and so finds what is not there, and LMDB takes keys of at most 511 bytes; they also
are one file, which is filled five times as fast as either.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from service.features.errors import SchemaError, describe
from service.features.fields import is_utf8
from service.features.lookup import (
    MISSING,
    OUT_OF_VOCABULARY,
    PAD,
    Lookup,
    TokenTable,
    from_id_bytes,
    hashed_lookup,
    packed_lookup,
    shared_id_bytes,
    table_lookup,
)
from service.features.packed import PackedTokens

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["MISSING", "OUT_OF_VOCABULARY", "PAD", "AnyVocabulary", "HashedVocabulary", "Vocabulary"]

LARGEST_TABLE: Final = 1 << 17  # tokens; see the figures above
_SPELLINGS_OF_MISSING: Final = 2  # keys of a table beside the tokens: None and ""
_LARGEST_SIZE: Final = 2**31 - 1


def _ordered(counts: Mapping[str, int], min_count: int) -> list[str]:
    """Tokens of at least min_count, by falling count and then by code points.

    Code point order is also the order of the UTF-8 bytes.
    """
    if min_count < 1:
        raise SchemaError(f"min_count: expected at least 1, got {min_count}")
    kept = sorted(token for token, count in counts.items() if count >= min_count)
    kept.sort(key=counts.__getitem__, reverse=True)  # stable, also in reverse
    return kept


class Vocabulary:
    """A closed list of tokens in id order.

    Args:
        tokens: Distinct non-empty tokens; the first gets id `reserved`.
        reserved: Ids before the first token: 2, or 3 for a multi-valued field (the pad).
        packed: Look tokens up in packed arrays (true) or in a dictionary (false); by size if None. Ids are the same.

    Raises:
        SchemaError: An empty, repeated or non-UTF-8 token, or more tokens than int32 can number.
    """

    def __init__(
        self, tokens: Collection[str] | PackedTokens, reserved: int = 2, *, packed: bool | None = None
    ) -> None:
        if reserved + len(tokens) > _LARGEST_SIZE:
            raise SchemaError(f"vocabulary: expected at most {_LARGEST_SIZE} ids, got {reserved + len(tokens)}")
        self.reserved = reserved
        self._size = reserved + len(tokens)
        self._packed: PackedTokens | None = None
        if isinstance(tokens, PackedTokens) and tokens.slots is not None:
            self._packed = tokens
        elif len(tokens) > LARGEST_TABLE if packed is None else packed:
            self._packed = PackedTokens.build(tokens, index=True)
        self._table = TokenTable()
        if self._packed is None:
            self._fill_table(tokens)
        self._lookup = table_lookup(self._table) if self._packed is None else packed_lookup(self._packed, reserved)

    def _fill_table(self, tokens: Iterable[str]) -> None:
        for position, token in enumerate(tokens, self.reserved):
            if not isinstance(token, str) or not token or not is_utf8(token):
                raise SchemaError(f"vocabulary: expected non-empty UTF-8 tokens, got {describe(token)}")
            number = shared_id_bytes(position)
            if self._table.setdefault(token, number) is not number:
                raise SchemaError(f"vocabulary: expected distinct tokens, got {describe(token)} twice")

    @classmethod
    def fit(
        cls, counts: Mapping[str, int], min_count: int = 1, reserved: int = 2, *, packed: bool | None = None
    ) -> Vocabulary:
        """Number the tokens that occur at least `min_count` times; the rest trains the out-of-vocabulary row."""
        return cls(_ordered(counts, min_count), reserved, packed=packed)

    def extended(self, counts: Mapping[str, int], min_count: int = 1) -> Vocabulary:
        """A vocabulary in which every old id stays and tokens new in `counts` follow, in the same order rule."""
        fresh = {token: count for token, count in counts.items() if self.id(token) == OUT_OF_VOCABULARY}
        return Vocabulary([*self.tokens(), *_ordered(fresh, min_count)], self.reserved)

    @property
    def packed(self) -> bool:
        """Whether look-ups go to packed arrays, which a file can be mapped to."""
        return self._packed is not None

    def id(self, token: str) -> int:
        """Id of a token, 1 where the vocabulary does not hold it."""
        return from_id_bytes(self._lookup.one(token)) if token else OUT_OF_VOCABULARY

    def ids(self, tokens: Iterable[str]) -> NDArray[np.int32]:
        """Ids of tokens, shape (n,)."""
        return np.fromiter(map(self.id, tokens), dtype=np.int32)

    @property
    def lookup(self) -> Lookup:
        """Look-up of raw text for the hot path."""
        return self._lookup

    def tokens(self) -> list[str]:
        """All tokens; the one at position i has id `reserved + i`."""
        if self._packed is not None:
            return list(self._packed)
        return [token for token in islice(self._table, _SPELLINGS_OF_MISSING, None) if isinstance(token, str)]

    def content(self) -> PackedTokens:
        """The tokens as they are stored."""
        return PackedTokens.build(self.tokens(), index=False) if self._packed is None else self._packed

    def __len__(self) -> int:
        return self._size


class HashedVocabulary:
    """No list at all: a token's id is its xxHash64 modulo a fixed number of buckets. Nothing is out of vocabulary.

    Args:
        buckets: Rows after the reserved ones.
        reserved: Ids before the first bucket.
    """

    def __init__(self, buckets: int, reserved: int = 2) -> None:
        if not 1 <= buckets <= _LARGEST_SIZE - reserved:
            raise SchemaError(f"buckets: expected an integer from 1 to {_LARGEST_SIZE - reserved}, got {buckets}")
        self.buckets = buckets
        self.reserved = reserved
        self._lookup = hashed_lookup(buckets, reserved)

    def id(self, token: str) -> int:
        """Id of a token."""
        return from_id_bytes(self._lookup.one(token))

    def ids(self, tokens: Iterable[str]) -> NDArray[np.int32]:
        """Ids of tokens, shape (n,)."""
        return np.fromiter(map(self.id, tokens), dtype=np.int32)

    @property
    def lookup(self) -> Lookup:
        """Look-up of raw text for the hot path."""
        return self._lookup

    def extended(self, counts: Mapping[str, int], min_count: int = 1) -> HashedVocabulary:  # noqa: ARG002
        """Itself: hashing knows every token already."""
        return self

    def __len__(self) -> int:
        return self.reserved + self.buckets


AnyVocabulary = Vocabulary | HashedVocabulary
