"""A table as coded batches: every pass over the data sees the same rows, labels and splits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from training.preparation.columns import CodedColumn, dictionary_encode, groups, labels, weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from training.datasets.base import Table
    from training.preparation.rows import RawBatch
    from training.preparation.splits import Assigner

KEPT_BYTES = 1 << 29  # coded batches of less than this in all are kept between passes, not read again


@dataclass(frozen=True)
class CodedBatch:
    """Some rows, checked and dictionary-encoded (N rows).

    Attributes:
        raw: where the rows come from, for messages; its frame is emptied.
        columns: the fields' columns, by column name.
        label: (N,) 0 or 1.
        split: (N,) place in SPLITS.
        weight: (N,) float32, if the data set has weights.
        group: (N,) int64, if it has groups.
    """

    raw: RawBatch
    columns: Mapping[str, CodedColumn]
    label: NDArray[np.uint8]
    split: NDArray[np.uint8]
    weight: NDArray[np.float32] | None
    group: NDArray[np.int64] | None

    @property
    def rows(self) -> int:
        """N."""
        return int(self.label.size)

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        arrays = (self.label, self.split, self.weight, self.group)
        own = sum(array.nbytes for array in arrays if array is not None)
        return own + sum(column.nbytes for column in self.columns.values())


class CodedBatches:
    """The rows of a table, as often as needed.

    Args:
        table: the data set.
        assigner: gives rows their splits.
        read_columns: all columns that are read (fields, label, weight, group, split).
        kept_bytes: as long as all batches together are smaller, they are kept for the next pass.
    """

    def __init__(self, table: Table, assigner: Assigner, read_columns: list[str], kept_bytes: int = KEPT_BYTES) -> None:
        self._table = table
        self._assigner = assigner
        self._columns = read_columns
        self._coded = list(dict.fromkeys(field.source for field in table.spec.fields))
        self._budget = kept_bytes
        self._kept: list[CodedBatch] | None = None

    def __iter__(self) -> Iterator[CodedBatch]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[CodedBatch] = []
        size = 0
        with ThreadPoolExecutor(max_workers=pl.thread_pool_size()) as pool:
            first = 0
            for raw in self._table.source.batches(self._columns):
                batch = self._code(raw, first, pool)
                first += batch.rows
                size += batch.nbytes
                if size <= self._budget:
                    kept.append(batch)
                else:
                    kept.clear()
                yield batch
        if size <= self._budget:
            self._kept = kept

    def _code(self, raw: RawBatch, first: int, pool: ThreadPoolExecutor) -> CodedBatch:
        spec = self._table.spec
        coded = pool.map(dictionary_encode, [raw.frame.get_column(name) for name in self._coded])
        return CodedBatch(
            raw=replace(raw, frame=raw.frame.clear()),
            label=labels(raw, spec.label),
            split=self._assigner.assign(raw, first),
            weight=None if spec.weight is None else weights(raw, spec.weight),
            group=None if spec.group is None else groups(raw, spec.group),
            columns=dict(zip(self._coded, coded, strict=True)),
        )
