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
from service.features.packed import PackedTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["MISSING", "OUT_OF_VOCABULARY", "PAD", "AnyVocabulary", "HashedVocabulary", "Vocabulary"]

MISSING: Final = 0
OUT_OF_VOCABULARY: Final = 1
PAD: Final = 2  # multi-valued fields only

LARGEST_DICTIONARY: Final = 1 << 17  # tokens; see the figures above
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
        # Small: one dictionary serves `id` and, with both spellings of a missing value in it, the encoder's hot path.
        self._table: dict[object, int] = {None: MISSING, "": MISSING}
        if isinstance(tokens, PackedTokens) and tokens.slots is not None:
            self._packed = tokens
        elif len(tokens) > LARGEST_DICTIONARY if packed is None else packed:
            self._packed = PackedTokens.build(tokens, index=True)
        else:
            self._fill_table(tokens)

    def _fill_table(self, tokens: Iterable[str]) -> None:
        for position, token in enumerate(tokens, self.reserved):
            if not isinstance(token, str) or not token or not is_utf8(token):
                raise SchemaError(f"vocabulary: expected non-empty UTF-8 tokens, got {describe(token)}")
            if self._table.setdefault(token, position) != position:
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
        found = self.text_lookup()(token) if token else None
        return OUT_OF_VOCABULARY if found is None else found

    def ids(self, tokens: Iterable[str]) -> NDArray[np.int32]:
        """Ids of tokens, shape (n,)."""
        return np.fromiter(map(self.id, tokens), dtype=np.int32)

    def text_lookup(self) -> Callable[[object], int | None]:
        """Look-up of raw text for the hot path: None for a miss of any kind, 0 for None and `""`.

        Its keys are text (and None) only, so a number can never be taken for a key that equals it.
        """
        return self._table.get if self._packed is None else self._find

    def _find(self, raw: object) -> int | None:
        """`text_lookup` of the packed form."""
        if not raw or not isinstance(raw, str):
            return MISSING if raw is None or raw == "" else None
        try:
            position = self._packed.find(raw.encode("utf-8"))  # type: ignore[union-attr]  # text_lookup has looked
        except UnicodeEncodeError:
            return None
        return None if position is None else position + self.reserved

    def tokens(self) -> list[str]:
        """All tokens; the one at position i has id `reserved + i`."""
        if self._packed is not None:
            return list(self._packed)
        return [token for token in islice(self._table, 2, None) if isinstance(token, str)]

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

    def id(self, token: str) -> int:
        """Id of a token."""
        return self.reserved + xxh64_intdigest(token.encode("utf-8")) % self.buckets

    def ids(self, tokens: Iterable[str]) -> NDArray[np.int32]:
        """Ids of tokens, shape (n,)."""
        return np.fromiter(map(self.id, tokens), dtype=np.int32)

    def text_lookup(self) -> Callable[[object], int | None]:
        """See `Vocabulary.text_lookup`; it misses only what is no encodable text."""
        return self._find

    def _find(self, raw: object) -> int | None:
        if not raw or not isinstance(raw, str):
            return MISSING if raw is None or raw == "" else None
        try:
            return self.id(raw)
        except UnicodeEncodeError:
            return None

    def extended(self, counts: Mapping[str, int], min_count: int = 1) -> HashedVocabulary:  # noqa: ARG002
        """Itself: hashing knows every token already."""
        return self

    def __len__(self) -> int:
        return self.reserved + self.buckets


AnyVocabulary = Vocabulary | HashedVocabulary
