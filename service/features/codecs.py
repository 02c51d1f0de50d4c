"""Codecs: a whole column of raw values to ids, one class a kind of field.

Each is equal, value by value, to `vocabulary.id(field.token(raw))`; what differs is the work a value costs. The fast
path looks text up in a table of text alone; only what misses goes through the field, which checks its type.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from service.features.errors import FieldValueError
from service.features.fields import NUMBER_PATTERN, CategoricalField, Field, MultiValuedField, NumericField
from service.features.vocabulary import MISSING, PAD, AnyVocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Codec", "LocatedError", "codec"]

_are_numbers = re.compile(f"(?:{NUMBER_PATTERN},)*").fullmatch
_PLAIN_NUMBERS: Final = frozenset({int, float})


class LocatedError(Exception):
    """A field refused the value at `index`; the encoder turns it into the field's error with its full place."""

    def __init__(self, index: int, error: FieldValueError) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


class CategoricalCodec:
    """Text and integers through one table."""

    def __init__(self, field: CategoricalField, vocabulary: AnyVocabulary) -> None:
        self._field = field
        self._vocabulary = vocabulary
        self._lookup = vocabulary.text_lookup()
        self.missing: list[int] = [MISSING]

    def one(self, raw: object) -> list[int]:
        """Ids of one raw value."""
        found = self._lookup(raw) if type(raw) is str else None
        return [self._slow(raw) if found is None else found]

    def _slow(self, raw: object) -> int:
        token = self._field.token(raw)
        return MISSING if token is None else self._vocabulary.id(token)

    def column(self, raws: Sequence[object], out: NDArray[np.int32]) -> None:
        """Ids of a column, written to out (1, n)."""
        try:
            found: list[int | None] = list(map(self._lookup, raws))
        except TypeError:  # an array or object: no key at all
            found = [None] * len(raws)
        if None in found:
            for index, known in enumerate(found):
                if known is None:
                    try:
                        found[index] = self._slow(raws[index])
                    except FieldValueError as error:
                        raise LocatedError(index, error) from None
        out[0] = found  # type: ignore[assignment]  # no None is left


class NumericCodec:
    """Numbers and numeric text through bisection, and a table from bucket to id."""

    def __init__(self, field: NumericField, vocabulary: AnyVocabulary) -> None:
        self._field = field
        self._edges = np.array(field.edges, dtype=np.float64)
        self._ids = vocabulary.ids(str(bucket) for bucket in range(len(field.edges) + 1))
        self._of_token = {str(bucket): int(found) for bucket, found in enumerate(self._ids)}
        self.missing: list[int] = [MISSING]

    def one(self, raw: object) -> list[int]:
        """Ids of one raw value."""
        token = self._field.token(raw)
        return [MISSING if token is None else self._of_token[token]]

    def _fast(self, raws: Sequence[object]) -> NDArray[np.float64] | None:
        """The column as float64 where all of it is plain numbers or all numeric text, else None."""
        types = set(map(type, raws))
        try:
            if types <= _PLAIN_NUMBERS:
                return np.array(raws, dtype=np.float64)
            if types == {str}:
                texts: Sequence[str] = raws  # type: ignore[assignment]  # what types has just shown
                joined = ",".join(texts) + ","
                # A comma inside a value would pass for two numbers: count them.
                if _are_numbers(joined) and joined.count(",") == len(texts):
                    return np.fromiter(map(float, texts), dtype=np.float64, count=len(texts))
        except OverflowError:
            pass
        return None

    def column(self, raws: Sequence[object], out: NDArray[np.int32]) -> None:
        """Ids of a column, written to out (1, n)."""
        numbers = self._fast(raws)
        if numbers is not None and np.isfinite(numbers).all():
            np.take(self._ids, np.searchsorted(self._edges, numbers, side="right"), out=out[0])
            return
        for index, raw in enumerate(raws):
            try:
                (out[0, index],) = self.one(raw)
            except FieldValueError as error:
                raise LocatedError(index, error) from None


class MultiValuedCodec:
    """Several values: first as many ids as fit, then the pad."""

    def __init__(self, field: MultiValuedField, vocabulary: AnyVocabulary) -> None:
        self._field = field
        self._vocabulary = vocabulary
        self.missing: list[int] = [MISSING] + [PAD] * (field.max_values - 1)

    def one(self, raw: object) -> list[int]:
        """Ids of one raw value, `max_values` of them."""
        tokens = self._field.tokens(raw)
        if not tokens:
            return self.missing
        width = self._field.max_values
        ids = [self._vocabulary.id(token) for token in tokens[:width]]
        return ids + [PAD] * (width - len(ids))

    def column(self, raws: Sequence[object], out: NDArray[np.int32]) -> None:
        """Ids of a column, written to out (max_values, n)."""
        for index, raw in enumerate(raws):
            try:
                out[:, index] = self.one(raw)
            except FieldValueError as error:
                raise LocatedError(index, error) from None


Codec = CategoricalCodec | NumericCodec | MultiValuedCodec


def codec(field: Field, vocabulary: AnyVocabulary) -> Codec:
    """The codec of a field."""
    match field:
        case CategoricalField():
            return CategoricalCodec(field, vocabulary)
        case NumericField():
            return NumericCodec(field, vocabulary)
        case MultiValuedField():
            return MultiValuedCodec(field, vocabulary)
