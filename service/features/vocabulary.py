"""Vocabularies: how a token becomes an id. The second of the contract's two pure steps.

Ids are int32 and local to a field: 0 missing, 1 out of vocabulary, for a multi-valued field 2 the pad, then the
tokens by (-count, token), which no hash seed can change.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np
from xxhash import xxh64_intdigest

from service.features.errors import SchemaError, describe
from service.features.fields import is_utf8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["MISSING", "OUT_OF_VOCABULARY", "PAD", "AnyVocabulary", "HashedVocabulary", "Vocabulary"]

MISSING: Final = 0
OUT_OF_VOCABULARY: Final = 1
PAD: Final = 2  # multi-valued fields only

_LARGEST_SIZE: Final = 2**31 - 1


def _ordered(counts: Mapping[str, int], min_count: int) -> list[str]:
    """Tokens of at least min_count, by falling count and then by code points.

    Code point order is also the order of the UTF-8 bytes.
    """
    if min_count < 1:
        raise SchemaError(f"min_count: expected at least 1, got {min_count}")
    kept = [(-count, token) for token, count in counts.items() if count >= min_count]
    kept.sort()
    return [token for _, token in kept]


class Vocabulary:
    """A closed list of tokens in id order.

    Args:
        tokens: Distinct non-empty tokens; the first gets id `reserved`.
        reserved: Ids before the first token: 2, or 3 for a multi-valued field (the pad).

    Raises:
        SchemaError: An empty, repeated or non-UTF-8 token, or more tokens than int32 can number.
    """

    def __init__(self, tokens: Iterable[str], reserved: int = 2) -> None:
        self.reserved = reserved
        # One dictionary serves `id` and, with the two spellings of a missing value in it, the encoder's hot path.
        self._table: dict[object, int] = {None: MISSING, "": MISSING}
        size = reserved
        for token in tokens:
            if not isinstance(token, str) or not token or not is_utf8(token):
                raise SchemaError(f"vocabulary: expected non-empty UTF-8 tokens, got {describe(token)}")
            if self._table.setdefault(token, size) != size:
                raise SchemaError(f"vocabulary: expected distinct tokens, got {describe(token)} twice")
            size += 1
        if size > _LARGEST_SIZE:
            raise SchemaError(f"vocabulary: expected at most {_LARGEST_SIZE} ids, got {size}")
        self._size = size

    @classmethod
    def fit(cls, counts: Mapping[str, int], min_count: int = 1, reserved: int = 2) -> Vocabulary:
        """Number the tokens that occur at least `min_count` times; the rest trains the out-of-vocabulary row."""
        return cls(_ordered(counts, min_count), reserved)

    def extended(self, counts: Mapping[str, int], min_count: int = 1) -> Vocabulary:
        """A vocabulary in which every old id stays and tokens new in `counts` follow, in the same order rule."""
        fresh = {token: count for token, count in counts.items() if token not in self._table}
        return Vocabulary([*self.tokens(), *_ordered(fresh, min_count)], self.reserved)

    def id(self, token: str) -> int:
        """Id of a token, 1 where the vocabulary does not hold it."""
        return self._table.get(token, OUT_OF_VOCABULARY) if token else OUT_OF_VOCABULARY

    def ids(self, tokens: Iterable[str]) -> NDArray[np.int32]:
        """Ids of tokens, shape (n,)."""
        return np.fromiter(map(self.id, tokens), dtype=np.int32)

    def text_lookup(self) -> Callable[[object], int | None]:
        """Look-up of raw text for the hot path: None for a miss of any kind, 0 for None and `""`.

        Its keys are text (and None) only, so a number can never be taken for a key that equals it.
        """
        return self._table.get

    def tokens(self) -> list[str]:
        """All tokens; the one at position i has id `reserved + i`."""
        return [token for token in islice(self._table, 2, None) if isinstance(token, str)]

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

    def id(self, token: str) -> int:
        """Id of a token."""
        return self.reserved + xxh64_intdigest(token.encode("utf-8")) % self.buckets

    def ids(self, tokens: Iterable[str]) -> NDArray[np.int32]:
        """Ids of tokens, shape (n,)."""
        return np.fromiter(map(self.id, tokens), dtype=np.int32)

    def text_lookup(self) -> Callable[[object], int | None]:
        """See `Vocabulary.text_lookup`."""
        table: dict[object, int] = {None: MISSING, "": MISSING}
        return table.get

    def extended(self, counts: Mapping[str, int], min_count: int = 1) -> HashedVocabulary:  # noqa: ARG002
        """Itself: hashing knows every token already."""
        return self

    def __len__(self) -> int:
        return self.reserved + self.buckets


AnyVocabulary = Vocabulary | HashedVocabulary
