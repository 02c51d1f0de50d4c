"""How often each value of a column occurs, in bounded memory.

Counts of batches are frames of distinct values. They are merged in memory as long as all columns together stay under a
budget of rows; past it, the largest go to disk, cut into partitions by a hash of the value. A partition holds all there
is of its values, so that it can be summed, and what is too rare dropped, one partition at a time. Only values that
reach `min_count` are ever all in memory at once, and none is a Python object here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BUDGET_ROWS = 12_000_000  # of about 50 bytes, in all columns together
PARTITIONS = 32
_MERGE_ROWS = 1 << 19


class ValueCounter:
    """Counts the values of one column.

    Args:
        spill: a directory of its own, made when something is written.
        most: numbers only: with more distinct values than this they are rounded down to a grid (`round_down`), and
            nothing is ever spilled.
    """

    def __init__(self, spill: Path, most: int | None = None) -> None:
        self._spill = spill
        self._most = most
        self._coarse = False
        self._pending: list[pl.DataFrame] = []
        self._pending_rows = 0
        self._merged: pl.DataFrame | None = None
        self._spills = 0

    @property
    def rows(self) -> int:
        """Rows held in memory: distinct values, some of them several times."""
        return self._pending_rows + (0 if self._merged is None else self._merged.height)

    def add(self, values: pl.Series, counts: pl.Series) -> None:
        """Count distinct values (null and "" are left out).

        Args:
            values: of one type in all calls.
            counts: how often each occurs; those that do not are left out.
        """
        if self._coarse:
            values = round_down(values)
        frame = pl.DataFrame([values.alias("value"), counts.cast(pl.Int64).alias("count")])
        present = pl.col("value").is_not_null() & (pl.col("count") > 0)
        if values.dtype == pl.String:
            present &= pl.col("value") != ""
        self._pending.append(frame.filter(present))
        self._pending_rows += self._pending[-1].height
        # Merging only what is as large as what is there keeps the whole work proportional to the rows.
        if self._pending_rows > max(_MERGE_ROWS, 0 if self._merged is None else self._merged.height):
            self._merge()

    def _merge(self) -> None:
        parts = [*self._pending, *([] if self._merged is None else [self._merged])]
        self._pending, self._pending_rows, self._merged = [], 0, None
        if parts:
            self._merged = _summed(parts)
        # Whether this is ever so depends on the number of distinct values alone, not on how they came.
        if self._most is not None and self._merged is not None and self._merged.height > self._most:
            self._coarse = True
            self._merged = _summed([self._merged.with_columns(round_down(self._merged.get_column("value")))])

    def spill(self) -> None:
        """Move what is in memory to disk."""
        self._merge()
        if self._merged is None or self._merged.height == 0 or self._most is not None:
            return
        numbered = self._merged.with_columns((pl.col("value").hash() % PARTITIONS).alias("partition"))
        self._merged = None
        for (number,), part in numbered.partition_by("partition", as_dict=True, include_key=False).items():
            folder = self._spill / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            part.write_ipc(folder / f"{self._spills}.arrow")
        self._spills += 1

    def counts(self, min_count: int = 1) -> pl.DataFrame:
        """Values that occur at least `min_count` times, with their counts, by (-count, value).

        Returns:
            Columns value and count (int64).
        """
        if not self._spills:
            self._merge()
            return _ordered([] if self._merged is None else [_frequent(self._merged, min_count)])
        self.spill()
        kept: list[pl.DataFrame] = []
        for number in range(PARTITIONS):
            files = sorted((self._spill / str(number)).glob("*.arrow"))
            if files:
                kept.append(_frequent(_summed(pl.read_ipc(file) for file in files), min_count))
        return _ordered(kept)


class Counters:
    """The counters of all columns, under one budget.

    Args:
        folder: for what does not fit in memory.
        budget_rows: rows held in memory, in all counters together.
    """

    def __init__(self, folder: Path, budget_rows: int = BUDGET_ROWS) -> None:
        self._folder = folder
        self._budget = budget_rows
        self._counters: dict[str, ValueCounter] = {}

    def add(self, name: str, most: int | None = None) -> None:
        """Open a column's counter."""
        self._counters[name] = ValueCounter(self._folder / f"{len(self._counters):03d}", most)

    def __getitem__(self, name: str) -> ValueCounter:
        return self._counters[name]

    def keep_to_budget(self) -> None:
        """Spill the largest counters until half the budget is free again, if it is overdrawn."""
        if sum(counter.rows for counter in self._counters.values()) <= self._budget:
            return
        for counter in sorted(self._counters.values(), key=lambda counter: -counter.rows):
            counter.spill()
            if sum(other.rows for other in self._counters.values()) <= self._budget // 2:
                return

    def close(self, name: str) -> None:
        """Forget a column's counts."""
        del self._counters[name]


def round_down(values: pl.Series) -> pl.Series:
    """Float64 values, each rounded down to the grid of numbers with 12 binary digits after the first.

    An edge that lies on the grid parts the rounded values as it parts the values themselves. Integers up to 8,192 stay.
    """
    bits = values.to_numpy().astype(np.float64).view(np.uint64)
    sign, size = bits & np.uint64(1 << 63), bits & np.uint64((1 << 63) - 1)
    low = np.uint64((1 << 40) - 1)
    # Downwards is away from zero where negative; there the carry may run into the exponent, as it should.
    size = np.where(sign != 0, size + low, size) & ~low
    rounded = (sign | size).view(np.float64)
    return pl.Series(values.name, np.maximum(rounded, -np.finfo(np.float64).max))


def _summed(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(list(parts)).group_by("value").agg(pl.col("count").sum())


def _frequent(counts: pl.DataFrame, min_count: int) -> pl.DataFrame:
    return counts.filter(pl.col("count") >= min_count)


def _ordered(parts: list[pl.DataFrame]) -> pl.DataFrame:
    if not parts:
        return pl.DataFrame(schema={"value": pl.String, "count": pl.Int64})
    return pl.concat(parts).sort(["count", "value"], descending=[True, False])
