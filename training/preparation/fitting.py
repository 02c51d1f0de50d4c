"""Fitting: the train split's values to a `FeatureEncoder`, that is numeric edges and vocabularies.

Fitting is token and count. What a batch's distinct values are counted by is the field's own token; only for text and
integers in a categorical field, whose token is the text itself, are values counted before the few that are frequent
enough become Python strings.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from service.features import (
    CategoricalField,
    FeatureEncoder,
    FieldValueError,
    HashedVocabulary,
    MultiValuedField,
    NumericField,
    SchemaError,
    Vocabulary,
    log_squared_edges,
    quantile_edges,
)
from training.preparation.columns import describe, located
from training.preparation.counting import BUDGET_ROWS, Counters
from training.preparation.rows import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from service.features import AnyVocabulary, Field
    from training.datasets.config import FieldConfig
    from training.preparation.columns import CodedColumn
    from training.preparation.rows import RawBatch
    from training.progress import Progress

# The common case of the field's own grammar, read at a third of the price; all else goes through the field.
_is_plain_number = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?").fullmatch
MOST_NUMBERS = 1 << 20  # distinct values of a numeric field that are counted one by one


class Fitter:
    """Counts what the train split holds, then makes the encoder.

    Args:
        fields: the data set's fields.
        min_count: of fields that do not say their own.
        folder: for counts that do not fit in memory.
        budget_rows: distinct values counted in memory, of all fields together.
    """

    def __init__(
        self, fields: Sequence[FieldConfig], min_count: int, folder: Path, budget_rows: int = BUDGET_ROWS
    ) -> None:
        self._fields = {field.name: field for field in fields}
        self._min_count = min_count
        self._counters = Counters(folder, budget_rows)
        self._plain = {field.name: _declare(field) for field in fields}
        for field in fields:
            if field.hash_buckets is None:
                self._counters.add(field.name, MOST_NUMBERS if field.kind == "numeric" else None)

    def add(self, batch: RawBatch, columns: Mapping[str, CodedColumn], train: NDArray[np.bool_]) -> None:
        """Count the train rows of a batch.

        Args:
            batch: for messages.
            columns: by column name.
            train: (N,) which rows are in the train split.

        Raises:
            DataValueError: a value of the wrong type in any row.
        """
        for field in self._fields.values():
            if field.hash_buckets is not None:
                continue
            coded = columns[field.source]
            counts = np.bincount(coded.codes[train], minlength=coded.values.len())
            values, total = self._countable(batch, field, coded, counts)
            self._counters[field.name].add(values, total)
        self._counters.keep_to_budget()

    def _countable(
        self, batch: RawBatch, field: FieldConfig, coded: CodedColumn, counts: NDArray[np.int64]
    ) -> tuple[pl.Series, pl.Series]:
        plain = self._plain[field.name]
        dtype = coded.values.dtype
        if isinstance(plain, CategoricalField):
            if not (dtype in (pl.String, pl.Null) or dtype.is_integer()):
                refuse_first(batch, field.source, plain, coded)
            return coded.values.cast(pl.String), pl.Series(counts)
        if isinstance(plain, NumericField):
            return numbers(batch, field.source, plain, coded), pl.Series(counts)
        tokens: Counter[str] = Counter()
        for value, count in zip(coded.values.to_list(), counts.tolist(), strict=True):
            try:
                for token in plain.tokens(value)[: plain.max_values]:
                    tokens[token] += count
            except FieldValueError:
                refuse_first(batch, field.source, plain, coded)
        return pl.Series(list(tokens), dtype=pl.String), pl.Series(list(tokens.values()), dtype=pl.Int64)

    def encoder(self, previous: FeatureEncoder | None, progress: Progress) -> FeatureEncoder:
        """The encoder of all fields.

        Args:
            previous: of the run that this data continues: its ids and edges stay, new tokens follow.
            progress: told of every field.

        Raises:
            DataError: the fields are not those of `previous`, or one breaks the feature contract.
        """
        if previous is not None:
            self._compare(previous)
        fields: list[Field] = []
        vocabularies: dict[str, AnyVocabulary] = {}
        progress.start("fitting vocabularies", len(self._fields))
        for config in self._fields.values():
            try:
                field, vocabulary = self._fit(config, previous)
            except SchemaError as error:
                raise DataError(f"data.fields: {error}") from error
            fields.append(field)
            vocabularies[field.name] = vocabulary
            progress.advance()
        return FeatureEncoder(fields, vocabularies)

    def _fit(self, config: FieldConfig, previous: FeatureEncoder | None) -> tuple[Field, AnyVocabulary]:
        plain = self._plain[config.name]
        if config.hash_buckets is not None:
            return plain, HashedVocabulary(config.hash_buckets, plain.reserved)
        min_count = self._min_count if config.min_count is None else config.min_count
        if isinstance(plain, NumericField):
            # Every number counts for the edges; it is the buckets that may be rare.
            found = self._counters[config.name].counts()
            field: Field = plain
            if previous is not None:
                field = previous.field(config.name)
            elif config.edges is None:
                field = NumericField(config.name, config.side, _edges(config, found), config.serving_constant)
            tokens = _count_buckets(field, found)
        else:
            field = plain
            found = self._counters[config.name].counts(min_count)
            values = found.get_column("value").to_list()
            if previous is None:  # in id order already, and a token as it stands
                return field, Vocabulary(values, field.reserved)
            tokens = dict(zip(values, found.get_column("count").to_list(), strict=True))
        if previous is None:
            return field, Vocabulary.fit(tokens, min_count, field.reserved)
        return field, previous.vocabulary(config.name).extended(tokens, min_count)

    def _compare(self, previous: FeatureEncoder) -> None:
        """Refuse fields that are not those of the run that is continued."""
        old, new = [field.name for field in previous.fields], list(self._fields)
        if old != new:
            raise DataError(f"--init-from: expected the run's fields {old}, got {new}")
        for config in self._fields.values():
            was, now = previous.field(config.name), self._plain[config.name]
            if isinstance(was, NumericField) and isinstance(now, NumericField) and config.edges is None:
                now = NumericField(now.name, now.side, was.edges, now.serving_constant)
            if was != now or was.kind != now.kind:
                raise DataError(f"--init-from: field {config.name!r}: expected the run's {was}, got {now}")
            vocabulary = previous.vocabulary(config.name)
            buckets = vocabulary.buckets if isinstance(vocabulary, HashedVocabulary) else None
            if buckets != config.hash_buckets:
                raise DataError(
                    f"--init-from: field {config.name!r}: expected the run's hash_buckets {buckets}, "
                    f"got {config.hash_buckets}"
                )


def _declare(config: FieldConfig) -> Field:
    """A field as far as it is known before fitting: a numeric field may have no edges yet."""
    constant = config.serving_constant
    try:
        if config.kind == "categorical":
            return CategoricalField(config.name, config.side, constant)
        if config.kind == "numeric":
            return NumericField(config.name, config.side, config.edges or (), constant)
        return MultiValuedField(config.name, config.side, config.max_values, config.pooling, config.separator, constant)
    except SchemaError as error:
        raise DataError(f"data.fields: {error}") from error


def _edges(config: FieldConfig, found: pl.DataFrame) -> tuple[float, ...]:
    """Edges fitted to distinct numbers and their counts; none where there is no number."""
    if found.height == 0:
        return ()
    values = found.get_column("value").to_numpy()
    if config.buckets == "log_squared":
        return log_squared_edges(float(values.max()))
    return quantile_edges(values, config.buckets, found.get_column("count").to_numpy())


def _count_buckets(field: Field, found: pl.DataFrame) -> dict[str, int]:
    """Tokens of a numeric field with their counts: the encoder itself, over a vocabulary of all buckets, finds them."""
    if not isinstance(field, NumericField) or found.height == 0:
        return {}
    tokens = [str(bucket) for bucket in range(len(field.edges) + 1)]
    every = FeatureEncoder([field], {field.name: Vocabulary(tokens)})
    ids = every.encode_values(field.name, found.get_column("value").to_list())[:, 0]
    totals = np.bincount(ids - field.reserved, found.get_column("count").to_numpy(), len(tokens))
    return {token: int(total) for token, total in zip(tokens, totals, strict=True) if total}


def numbers(batch: RawBatch, column: str, field: NumericField, coded: CodedColumn) -> pl.Series:
    """(D,) the float64 that each distinct value stands for, null where it is missing.

    Raises:
        DataValueError: a value that is no finite number.
    """
    if coded.values.dtype.is_integer() or coded.values.dtype.is_float():
        typed = coded.values.cast(pl.Float64)
        if typed.is_finite().all():  # nulls aside
            return typed
    elif coded.values.dtype == pl.String:
        texts = coded.values.to_list()
        if all(map(_is_plain_number, filter(None, texts))):
            return pl.Series([float(text) if text else None for text in texts], dtype=pl.Float64)
    try:
        return pl.Series([field.number(value) for value in coded.values.to_list()], dtype=pl.Float64)
    except FieldValueError:
        refuse_first(batch, column, field, coded)
        raise


def refuse_first(batch: RawBatch, column: str, field: Field, coded: CodedColumn) -> None:
    """Raise the error of the first row whose value the field refuses.

    Raises:
        DataValueError: always, if there is one.
    """
    faults: dict[int, FieldValueError] = {}
    for place, value in enumerate(coded.values.to_list()):
        try:
            field.tokens(value)
        except FieldValueError as error:
            faults[place] = error
    wrong = np.isin(coded.codes, list(faults))
    if wrong.any():
        row = int(wrong.argmax())
        fault = faults[int(coded.codes[row])]
        element = fault.where.removeprefix(field.name)
        got = fault.got.removeprefix("the text ")
        if element:
            got = f"{got} in {describe(coded.values[int(coded.codes[row])])}"
        raise located(batch, column, row, fault.expected, got) from fault
