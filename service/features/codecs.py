"""Codecs: a whole column of raw values to ids, one class a kind of field.

Each is equal, value by value, to `vocabulary.id(field.token(raw))`; what differs is the work a value costs. Ids
travel as bytes of native int32: a column of a field is `width` runs of n ids, one after the other.

`one` and `column` take anything. `table` and `plain_column` are for values out of which a typed decoder has kept
booleans (see `memo`); what they raise may be any of `REFUSALS`, and then `column` says where the fault is.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np

from service.features.errors import FieldValueError
from service.features.fields import LARGEST_INT, CategoricalField, Field, MultiValuedField, NumericField
from service.features.lookup import MISSING, PAD, TableOfIds, TokenTable, join_all, shared_id_bytes, table_lookup
from service.features.memo import Memo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from service.features.vocabulary import AnyVocabulary

__all__ = [
    "REFUSALS",
    "CategoricalCodec",
    "Codec",
    "LocatedError",
    "MultiValuedCodec",
    "NumericCodec",
    "codec",
    "numeric_block",
]

REFUSALS: Final = (KeyError, TypeError, FieldValueError)

_MISSING: Final = shared_id_bytes(MISSING)
_PAD: Final = shared_id_bytes(PAD)
# A column is worth bisecting as a whole from about this many values on, and how often before memory is tried again.
_FEW: Final = 16
_COLUMNS_BISECTED: Final = 63


class LocatedError(Exception):
    """A field refused the value at `index`; the encoder turns it into the field's error with its full place."""

    def __init__(self, index: int, error: FieldValueError) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


def _each(one: Callable[[object], bytes], raws: Sequence[object]) -> list[bytes]:
    """Ids value by value, which finds the one at fault.

    Raises:
        LocatedError: The field refuses a value.
    """
    found: list[bytes] = []
    try:
        for raw in raws:
            found.append(one(raw))  # noqa: PERF401  # its length locates the fault
    except FieldValueError as error:
        raise LocatedError(len(found), error) from None
    return found


class CategoricalCodec:
    """Text through the vocabulary's look-up, integers as their decimal text."""

    def __init__(self, field: CategoricalField, vocabulary: AnyVocabulary) -> None:
        self._field = field
        self._lookup = vocabulary.lookup
        self.missing = _MISSING
        self.table: TableOfIds = Memo(self.one) if self._lookup.table is None else self._lookup.table

    def one(self, raw: object) -> bytes:
        """Ids of one raw value."""
        try:
            return self._lookup.one(raw)
        except (KeyError, TypeError):
            return self._lookup.one(self._field.token(raw))

    def plain_column(self, raws: Sequence[object]) -> bytes:
        """Ids of a column without booleans."""
        if type(raws[0]) is int:
            return self.column(raws)
        return join_all(self.table, raws)

    def column(self, raws: Sequence[object]) -> bytes:
        """Ids of a column.

        Raises:
            LocatedError: The field refuses a value.
        """
        if raws and type(raws[0]) is int and set(map(type, raws)) == {int}:
            numbers: Sequence[int] = raws  # type: ignore[assignment]  # what has just been shown
            if min(numbers) > -LARGEST_INT and max(numbers) < LARGEST_INT:
                return self._lookup.many(list(map(str, numbers)))
        try:
            return self._lookup.many(raws)
        except (KeyError, TypeError):
            return b"".join(_each(self.one, raws))


class _NumericTexts(TokenTable):
    """Ids of numeric text, remembered for the first few thousand texts of a process: counts are mostly small."""

    _most: Final = 4096
    _longest: Final = 24

    def __init__(self, of_text: Callable[[object], bytes]) -> None:
        super().__init__()
        self._of_text = of_text

    def __missing__(self, raw: object) -> bytes:
        if type(raw) is not str:
            raise KeyError(raw)
        found = self._of_text(raw)
        if len(self) < self._most and len(raw) <= self._longest:
            self[raw] = found
        return found


class NumericCodec:
    """Numbers and numeric text through bisection, then a table from bucket to id."""

    def __init__(self, field: NumericField, vocabulary: AnyVocabulary) -> None:
        self._field = field
        self._edges = np.array(field.edges, dtype=np.float64)
        tokens = [str(bucket) for bucket in range(len(field.edges) + 1)]
        self._ids = vocabulary.ids(tokens)
        self._of_bucket = [vocabulary.lookup.one(token) for token in tokens]
        self._texts = table_lookup(_NumericTexts(self._of_one))
        self.missing = _MISSING
        self.table = Memo(self._of_one, numbers=True)
        self._bisections = 0

    def one(self, raw: object) -> bytes:
        """Ids of one raw value."""
        return self._texts.one(raw) if type(raw) is str else self._of_one(raw)

    def plain_column(self, raws: Sequence[object]) -> bytes:
        """Ids of a column without booleans.

        Numbers that repeat are remembered; where most do not, columns are bisected as a whole for a while.
        """
        if self._bisections:
            self._bisections -= 1
            return self.column(raws)
        missed = self.table.missed
        found = join_all(self.table, raws)
        if self.table.missed - missed > max(_FEW, len(raws) // 2):
            self._bisections = _COLUMNS_BISECTED
        return found

    def _of_one(self, raw: object) -> bytes:
        number = self._field.number(raw)
        return _MISSING if number is None else self._of_bucket[bisect_right(self._field.edges, number)]

    def column(self, raws: Sequence[object]) -> bytes:
        """Ids of a column.

        Raises:
            LocatedError: The field refuses a value.
        """
        block = numeric_block([self], [raws])
        if block is not None:
            return block[0]
        try:
            return self._texts.many(raws)
        except (KeyError, TypeError, FieldValueError):
            return b"".join(_each(self.one, raws))

    def of_numbers(self, numbers: NDArray[np.float64]) -> NDArray[np.int32]:
        """Ids of numbers that are there."""
        return self._ids.take(self._edges.searchsorted(numbers, "right"))


_NUMBERS: Final = frozenset({int, float, type(None)})


def numeric_block(codecs: Sequence[NumericCodec], columns: Sequence[Sequence[object]]) -> list[bytes] | None:
    """Ids of several numeric columns of one length at once: types are looked at and numbers converted in one go.

    Returns:
        Ids of each column, or None unless every value is a finite number or None.
    """
    if not columns:
        return []
    numbers = _plain_numbers(list(chain.from_iterable(columns)))
    if numbers is None:
        return None
    numbers = numbers.reshape(len(columns), len(columns[0]))
    missing = np.isnan(numbers)
    ids = np.stack([codec.of_numbers(values) for codec, values in zip(codecs, numbers, strict=True)])
    ids[missing] = MISSING
    return [column.tobytes() for column in ids]


def _plain_numbers(raws: list[object]) -> NDArray[np.float64] | None:
    """Values as float64 with NaN for missing, or None unless all are finite numbers or None."""
    if not _NUMBERS.issuperset(map(type, raws)):
        return None
    try:
        numbers = np.array(raws, dtype=np.float64)
    except OverflowError:
        return None
    refused = numbers.size - np.isfinite(numbers).sum()
    return numbers if refused == 0 or refused == raws.count(None) else None


class _Calling:
    """A function in the form of a table: arrays cannot be keys."""

    def __init__(self, one: Callable[[object], bytes]) -> None:
        self._one = one

    def __getitem__(self, raw: object) -> bytes:
        return self._one(raw)


class MultiValuedCodec:
    """Several values: first as many ids as fit, then the pad."""

    def __init__(self, field: MultiValuedField, vocabulary: AnyVocabulary) -> None:
        self._field = field
        self._lookup = vocabulary.lookup
        self._padding = [_PAD * spare for spare in range(field.max_values + 1)]
        self.missing = _MISSING + _PAD * (field.max_values - 1)
        self._texts = Memo(self._found)
        self.table: TableOfIds = _Calling(self.one)

    def one(self, raw: object) -> bytes:
        """Ids of one raw value, `max_values` of them."""
        return self._texts[raw] if type(raw) is str else self._found(raw)

    def plain_column(self, raws: Sequence[object]) -> bytes:
        """Ids of a column without booleans."""
        return self.column(raws)

    def _found(self, raw: object) -> bytes:
        width = self._field.max_values
        tokens = self._field.tokens(raw, width)
        if not tokens:
            return self.missing
        return b"".join(map(self._lookup.one, tokens)) + self._padding[width - len(tokens)]

    def column(self, raws: Sequence[object]) -> bytes:
        """Ids of a column.

        Raises:
            LocatedError: The field refuses a value.
        """
        rows = np.frombuffer(b"".join(_each(self.one, raws)), dtype=np.int32)
        return rows.reshape(len(raws), self._field.max_values).T.tobytes()


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
