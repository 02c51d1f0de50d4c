"""`raw_sample.jsonl`: raw rows of the validation split, as a client would send them.

Rows are drawn by the seed, and, so that the seldom cases are in it, a few are added for each field: a row where it is
missing, one where it is out of vocabulary, and for a number the rows nearest to a bucket edge (of the first batch that
has any), from above (or on it) and from below.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from service.features import MISSING, OUT_OF_VOCABULARY, MultiValuedField, NumericField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from service.features import FeatureEncoder, Field
    from training.datasets.config import FieldConfig
    from training.preparation.columns import CodedColumn

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
        self._found: list[dict[str, Any]] = []
        self._reached: set[tuple[str, int | str]] = set()

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
        wanted = set((self._drawn[low:high] - self._first).tolist())
        for field, source in self._fields:
            here = ids[field.name][valid]
            for kind in (MISSING, OUT_OF_VOCABULARY):
                if (field.name, kind) not in self._reached and (here == kind).any():
                    self._reached.add((field.name, kind))
                    self._want(wanted, int((here == kind).argmax()))
            if isinstance(field, NumericField) and field.edges and (field.name, "edge") not in self._reached:
                for place in _nearest_to_edges(field, columns[source], valid):
                    self._reached.add((field.name, "edge"))
                    self._want(wanted, place)
        places = np.array(sorted(wanted), dtype=np.intp)
        self._found.extend(self._rows(columns, valid[places], places + self._first))
        self._first += valid.size

    def _want(self, wanted: set[int], place: int) -> None:
        """Add a special row while there is room for any."""
        if self._special > 0 and place not in wanted:
            self._special -= 1
            wanted.add(place)

    def _rows(
        self, columns: Mapping[str, CodedColumn], rows: NDArray[np.intp], numbers: NDArray[np.intp]
    ) -> list[dict[str, Any]]:
        """Raw rows of a batch; `numbers` are theirs within the split."""
        out: list[dict[str, Any]] = [{"context": {}, "candidate": {}, "row": number} for number in numbers.tolist()]
        for field, source in self._fields:
            coded = columns[source]
            values = coded.values.gather(coded.codes[rows]).to_list()
            for row, value in zip(out, values, strict=True):
                row[field.side][field.name] = as_json(field, value)
        return out

    def rows(self) -> list[dict[str, Any]]:
        """What was picked, in the order of the split: `{"context": .., "candidate": .., "row": ..}`."""
        return self._found


def _nearest_to_edges(field: NumericField, coded: CodedColumn, valid: NDArray[np.intp]) -> list[int]:
    """Places within `valid` of the rows nearest to a bucket edge, from above (or on it) and from below."""
    values = coded.values if coded.values.dtype.is_numeric() else coded.values.cast(pl.Float64, strict=False)
    known = values.cast(pl.Float64).fill_null(np.nan).to_numpy()  # what is no number is no row to pick; not our error
    numbers = known[coded.codes[valid]]
    edges = np.array(field.edges)
    bucket = np.searchsorted(edges, numbers, side="right")
    above = np.where(bucket > 0, numbers - edges[np.maximum(bucket - 1, 0)], np.nan)
    below = np.where(bucket < edges.size, edges[np.minimum(bucket, edges.size - 1)] - numbers, np.nan)
    return [int(np.nanargmin(distance)) for distance in (above, below) if np.isfinite(distance).any()]


def as_json(field: Field, value: object) -> object:
    """A raw value as a client would send it: numbers as numbers, several values as an array, missing as null."""
    if value is None or value == "":
        return None
    if isinstance(field, NumericField) and isinstance(value, str):
        return int(value) if _is_integer(value) else float(value)
    if isinstance(field, MultiValuedField) and isinstance(value, str):
        return list(field.tokens(value))
    return value
