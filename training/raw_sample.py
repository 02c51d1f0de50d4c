"""`raw_sample.jsonl`: raw rows of the validation split, as a client would send them.

Rows are drawn by the seed, and, so that the seldom cases are in it, a few are added for each field: a row where it is
missing, one where it is out of vocabulary, and for a number the rows nearest to a bucket edge (of the first batch that
has any), from above (or on it) and from below.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from service.features import MISSING, OUT_OF_VOCABULARY, FieldValueError, MultiValuedField, NumericField

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from service.features import FeatureEncoder, Field
    from training.columns import CodedColumn
    from training.datasets.config import FieldConfig

ROWS = 2_000
_is_integer = re.compile(r"-?[0-9]{1,15}").fullmatch


class RawSampler:
    """Picks rows while the validation split goes by.

    Args:
        encoder: of the fields.
        configs: the fields, for their columns.
        rows: N of the validation split.
        seed: of the draw.
        most: rows picked in all.
    """

    def __init__(
        self, encoder: FeatureEncoder, configs: Sequence[FieldConfig], rows: int, seed: int, most: int = ROWS
    ) -> None:
        self._fields = [(encoder.field(config.name), config.source) for config in configs]
        wanted = sum(4 if isinstance(field, NumericField) else 2 for field, _ in self._fields)
        drawn = min(rows, max(most - wanted, most // 2))
        rng = np.random.default_rng([seed, 0x5A])
        self._drawn = np.sort(rng.choice(rows, size=drawn, replace=False))
        self._special = most - drawn
        self._first = 0
        self._found: dict[int, dict[str, Any]] = {}
        self._reached: set[tuple[str, int]] = set()
        self._nearest: dict[tuple[str, str], dict[str, Any]] = {}

    def add(
        self,
        columns: Mapping[str, CodedColumn],
        valid: NDArray[np.intp],
        ids: Mapping[str, NDArray[np.int32]],
    ) -> None:
        """Look at a batch.

        Args:
            columns: the batch's columns, by column name.
            valid: (n,) its rows that are in the validation split, ascending.
            ids: field -> (N,) its first id in every row of the batch.
        """
        low, high = np.searchsorted(self._drawn, [self._first, self._first + valid.size])
        numbers = self._drawn[low:high]
        self._found.update(self._rows(columns, valid[numbers - self._first], numbers))
        for field, source in self._fields:
            for kind in (MISSING, OUT_OF_VOCABULARY):
                if (field.name, kind) in self._reached:
                    continue
                hits = np.flatnonzero(ids[field.name][valid] == kind)
                if hits.size:
                    self._reached.add((field.name, kind))
                    self._keep(columns, valid, int(hits[0]))
            if isinstance(field, NumericField) and field.edges and (field.name, "below") not in self._nearest:
                self._edges(field, columns, columns[source], valid)
        self._first += valid.size

    def _keep(self, columns: Mapping[str, CodedColumn], valid: NDArray[np.intp], place: int) -> None:
        number = self._first + place
        if number not in self._found and self._special > 0:
            self._special -= 1
            self._found.update(self._rows(columns, valid[place : place + 1], np.array([number])))

    def _edges(
        self, field: NumericField, columns: Mapping[str, CodedColumn], coded: CodedColumn, valid: NDArray[np.intp]
    ) -> None:
        numbers = np.array([_number(field, value) for value in coded.values.to_list()])[coded.codes[valid]]
        edges = np.array(field.edges)
        bucket = np.searchsorted(edges, numbers, side="right")
        # NaN (missing) sorts last; it loses every comparison below.
        above = np.where(bucket > 0, numbers - edges[np.maximum(bucket - 1, 0)], np.inf)
        below = np.where(bucket < edges.size, edges[np.minimum(bucket, edges.size - 1)] - numbers, np.inf)
        for side, distance in (("above", above), ("below", below)):
            distance[np.isnan(numbers)] = np.inf
            if distance.size and np.isfinite(distance).any():
                place = int(distance.argmin())
                row = self._rows(columns, valid[place : place + 1], np.array([self._first + place]))
                self._nearest[field.name, side] = row[self._first + place]

    def _rows(
        self, columns: Mapping[str, CodedColumn], rows: NDArray[np.intp], numbers: NDArray[np.intp]
    ) -> dict[int, dict[str, Any]]:
        """Raw rows by their number within the split."""
        out: dict[int, dict[str, Any]] = {
            number: {"context": {}, "candidate": {}, "row": number} for number in numbers.tolist()
        }
        for field, source in self._fields:
            coded = columns[source]
            values = coded.values.gather(coded.codes[rows]).to_list()
            for row, value in zip(out.values(), values, strict=True):
                row[field.side][field.name] = as_json(field, value)
        return out

    def rows(self) -> Iterator[dict[str, Any]]:
        """What was picked, in the order of the split: `{"context": .., "candidate": .., "row": ..}`."""
        for row in self._nearest.values():
            if row["row"] not in self._found and self._special > 0:
                self._special -= 1
                self._found[row["row"]] = row
        for number in sorted(self._found):
            yield self._found[number]


def _number(field: NumericField, value: object) -> float:
    try:
        number = field.number(value)
    except FieldValueError:  # another split's value; the encoder names it if it is ours
        number = None
    return np.nan if number is None else number


def as_json(field: Field, value: object) -> object:
    """A raw value as a client would send it: numbers as numbers, several values as an array, missing as null."""
    if value is None or value == "":
        return None
    if isinstance(field, NumericField) and isinstance(value, str):
        return int(value) if _is_integer(value) else float(value)
    if isinstance(field, MultiValuedField) and isinstance(value, str):
        return list(field.tokens(value))
    return value
