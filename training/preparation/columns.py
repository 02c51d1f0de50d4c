"""Columns of one batch: checked labels, weights and groups, and fields as distinct values with codes.

Letters: N rows of a batch, D distinct values of a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from xxhash import xxh64_intdigest

from service.features import FieldValueError, NumericField
from service.features.errors import describe as named
from training.datasets.config import LabelRule
from training.preparation.rows import DataValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from training.preparation.rows import RawBatch

NUMBER = NumericField("number", "context", ())  # the contract's grammar of numbers, for labels, weights and times


@dataclass(frozen=True)
class CodedColumn:
    """One column of a batch, dictionary-encoded.

    Attributes:
        values: (D,) distinct raw values, null and "" among them.
        codes: (N,) int32, row -> place in values.
    """

    values: pl.Series
    codes: NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return int(self.values.estimated_size()) + self.codes.nbytes


def dictionary_encode(column: pl.Series) -> CodedColumn:
    """Distinct values of a column, and which row has which."""
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        column = column.cast(pl.String)
    column = column.rename("value")
    values = column.unique()
    table = pl.DataFrame([values, pl.Series("code", np.arange(values.len(), dtype=np.int32))])
    joined = column.to_frame().join(table, on="value", how="left", nulls_equal=True, maintain_order="left")
    return CodedColumn(values, joined.get_column("code").to_numpy())


def located(batch: RawBatch, column: str, row: int, expected: str, got: str) -> DataValueError:
    """The error of one value: file, line or row, column, expected, got."""
    return DataValueError(f"{batch.where(row)}: column {column!r}: expected {expected}, got {got}")


def describe(value: object) -> str:
    """A raw value for a message."""
    if isinstance(value, pl.Series):  # what indexing a column of lists gives
        value = value.to_list()
    if value is None or value == "":
        return "a missing value"
    return named(value).removeprefix("the text ")


def labels(batch: RawBatch, rule: str | LabelRule) -> NDArray[np.uint8]:
    """(N,) labels 0 and 1.

    Raises:
        DataValueError: a label that is neither 0 nor 1 (as text or an integer), or no number where the rule needs one.
    """
    if isinstance(rule, LabelRule):
        values = numbers(batch, rule.column, f"a number (label is 1 from {rule.at_least:g} up)")
        return (values >= rule.at_least).astype(np.uint8)
    column = batch.frame.get_column(rule)
    if column.dtype == pl.String:
        ones, zeros = column == "1", column == "0"
    elif column.dtype.is_integer():
        ones, zeros = column == 1, column == 0
    else:
        ones = zeros = pl.Series(np.zeros(column.len(), dtype=bool))
    wrong = ~(ones | zeros).fill_null(value=False).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise located(batch, rule, row, "a label of 0 or 1 (text or integer)", describe(column[row]))
    return ones.to_numpy().astype(np.uint8)


def numbers(batch: RawBatch, name: str, expected: str) -> NDArray[np.float64]:
    """(N,) finite numbers of a column; distinct values are read once.

    Raises:
        DataValueError: a value that is missing, no number, or not finite.
    """
    coded = dictionary_encode(batch.frame.get_column(name))

    def number(value: object) -> float | None:
        if isinstance(value, bool):  # a rule may say from where up a boolean is a 1
            value = int(value)
        return NUMBER.number(value)

    return _map_values(batch, name, coded, number, expected)


def weights(batch: RawBatch, name: str) -> NDArray[np.float32]:
    """(N,) sample weights.

    Raises:
        DataValueError: a weight that is no finite number from 0 up.
    """
    expected = "a finite weight from 0 up"
    values = numbers(batch, name, expected)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    wrong = (values < 0) | ~np.isfinite(single)
    if wrong.any():
        row = int(wrong.argmax())
        raise located(batch, name, row, expected, describe(batch.frame.get_column(name)[row]))
    return single


def groups(batch: RawBatch, name: str) -> NDArray[np.int64]:
    """(N,) one number a group: xxHash64 of its text, so that no table of groups is needed.

    Raises:
        DataValueError: a missing group, or one that is neither text nor an integer.
    """
    column = batch.frame.get_column(name)
    expected = "a group (text or integer)"
    if column.dtype.is_float() or not (column.dtype.is_integer() or _is_text(column.dtype)):
        raise located(batch, name, 0, expected, describe(column[0]))
    coded = dictionary_encode(column)

    def digest(value: object) -> int | None:
        return xxh64_intdigest(str(value).encode()) if value is not None and value != "" else None

    hashes = [digest(value) for value in coded.values.to_list()]
    if None in hashes:
        wrong = np.array([value is None for value in hashes])[coded.codes]
        if wrong.any():
            row = int(wrong.argmax())
            raise located(batch, name, row, expected, describe(column[row]))
    known = np.array([value or 0 for value in hashes], dtype=np.uint64)
    return known[coded.codes].view(np.int64)


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, (pl.String, pl.Categorical, pl.Enum))


def _map_values(
    batch: RawBatch, name: str, coded: CodedColumn, convert: Callable[[object], float | None], expected: str
) -> NDArray[np.float64]:
    """(N,) converted values; the first row whose value cannot be converted is named."""
    known = np.full(coded.values.len(), np.nan)
    for place, value in enumerate(coded.values.to_list()):
        try:
            converted = convert(value)
        except FieldValueError:
            converted = None
        if converted is not None:
            known[place] = converted
    out = known[coded.codes]
    wrong = np.isnan(out)
    if wrong.any():
        row = int(wrong.argmax())
        raise located(batch, name, row, expected, describe(coded.values[int(coded.codes[row])]))
    return out
