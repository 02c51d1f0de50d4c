"""Which split a row belongs to: decided batch by batch, the same in every pass, whatever the size of the batches.

Splits are numbered as in `SPLITS`: 0 train, 1 valid, 2 test.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl

from service.features import FieldValueError
from training.datasets.config import GivenSplit, RandomSplit, TimeSplit
from training.preparation.columns import NUMBER, describe, dictionary_encode, groups, located
from training.preparation.rows import SPLITS, DataError, MissingColumnError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.datasets.base import Table
    from training.preparation.rows import RawBatch
    from training.progress import Progress

_TRAIN, _VALID, _TEST = range(3)
_TIME = "a number, or ISO 8601 text"
MOST_INSTANTS = 1 << 22  # distinct times kept


class Assigner(Protocol):
    """Gives every row its split."""

    def assign(self, batch: RawBatch, first: int) -> NDArray[np.uint8]:
        """Splits of a batch's rows (N,); `first` is the number of its first row within the whole source."""


def make_assigner(split: RandomSplit | TimeSplit | GivenSplit, table: Table, seed: int, progress: Progress) -> Assigner:
    """The assigner of a split; a split by time reads the source once for it.

    Raises:
        DataError: a column is missing, a time cannot be read, or the data set has no order in time.
    """
    if isinstance(split, RandomSplit):
        return RandomAssigner(seed, split.valid, split.test, split.by)
    if isinstance(split, GivenSplit):
        if split.column is None:
            return FileAssigner()
        named = {split.train: _TRAIN, split.valid: _VALID}
        if split.test is not None:
            named[split.test] = _TEST
        return ColumnAssigner(split.column, {str(value): number for value, number in named.items()})
    column = table.spec.time if split.column is None else split.column
    if column is not None:
        return time_assigner(table, column, split, progress)
    if not table.spec.ordered:
        raise DataError(f"data.split: data set {table.spec.name!r} has no time: expected a random split, got kind time")
    progress.start("counting rows")
    rows = 0
    for batch in table.source.batches([table.spec.label_column]):
        rows += batch.frame.height
        progress.advance(batch.frame.height)
    test = round(rows * split.test)
    return OrderAssigner(rows - test - round(rows * split.valid), rows - test)


def split_columns(split: RandomSplit | TimeSplit | GivenSplit, table: Table) -> set[str]:
    """The columns that the assigner reads.

    Raises:
        MissingColumnError: one is not there.
    """
    if isinstance(split, RandomSplit):
        column, key = split.by, "data.split.by"
    elif isinstance(split, TimeSplit):
        column, key = (table.spec.time if split.column is None else split.column), "data.split.column"
    else:
        column, key = split.column, "data.split.column"
    if column is None:
        return set()
    if column not in table.source.columns:
        raise MissingColumnError(
            f"{key}: expected one of the columns {', '.join(table.source.columns)}, got {column!r}"
        )
    return {column}


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that scatters neighbours."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class RandomAssigner:
    """By a hash of seed and row number, or of seed and the value of a column whose rows stay together."""

    seed: int
    valid: float
    test: float
    by: str | None = None

    def assign(self, batch: RawBatch, first: int) -> NDArray[np.uint8]:
        """See `Assigner`."""
        if self.by is None:
            keys = np.arange(first, first + batch.frame.height, dtype=np.uint64)
        else:
            keys = groups(batch, self.by).view(np.uint64)
        start = splitmix64(np.array([self.seed], dtype=np.uint64))[0]
        uniform = (splitmix64(keys ^ start) >> np.uint64(11)) * 2.0**-53
        return _numbers(uniform >= self.valid + self.test, uniform < self.test)


@dataclass(frozen=True)
class OrderAssigner:
    """By the order of the rows."""

    valid_from: int
    test_from: int

    def assign(self, batch: RawBatch, first: int) -> NDArray[np.uint8]:
        """See `Assigner`."""
        rows = np.arange(first, first + batch.frame.height)
        return _numbers(rows < self.valid_from, rows >= self.test_from)


@dataclass(frozen=True)
class TimeAssigner:
    """By a column of times: numbers, or ISO 8601 text, which counts in seconds of UTC."""

    column: str
    valid_from: float
    test_from: float | None
    iso: bool = False

    def assign(self, batch: RawBatch, first: int) -> NDArray[np.uint8]:  # noqa: ARG002 - the interface's
        """See `Assigner`."""
        times, _ = _times(batch, self.column, iso=self.iso)
        late = np.zeros(times.len(), dtype=bool) if self.test_from is None else (times >= self.test_from).to_numpy()
        return _numbers((times < self.valid_from).to_numpy(), late)


@dataclass(frozen=True)
class FileAssigner:
    """By the file that a row is in."""

    def assign(self, batch: RawBatch, first: int) -> NDArray[np.uint8]:  # noqa: ARG002 - the interface's
        """See `Assigner`.

        Raises:
            DataError: the source does not say which split its files are.
        """
        if batch.split is None:
            raise DataError(f"{batch.origin}: data.split: expected split.column, got a data set without files a split")
        return np.full(batch.frame.height, SPLITS.index(batch.split), dtype=np.uint8)


@dataclass(frozen=True)
class ColumnAssigner:
    """By the value of a column."""

    column: str
    named: dict[str, int]

    def assign(self, batch: RawBatch, first: int) -> NDArray[np.uint8]:  # noqa: ARG002 - the interface's
        """See `Assigner`.

        Raises:
            DataValueError: a value that names no split.
        """
        coded = dictionary_encode(batch.frame.get_column(self.column))
        known = np.array([self.named.get(str(value), 255) for value in coded.values.to_list()], dtype=np.uint8)
        out = known[coded.codes]
        if (out == 255).any():  # noqa: PLR2004 - no split
            row = int((out == 255).argmax())  # noqa: PLR2004
            got = describe(batch.frame.get_column(self.column)[row])
            raise located(batch, self.column, row, f"a split, one of {', '.join(map(repr, self.named))}", got)
        return out


def time_assigner(
    table: Table, column: str, split: TimeSplit, progress: Progress, most: int = MOST_INSTANTS
) -> TimeAssigner:
    """Find the instants at which validation and test begin: the nearest to the shares asked for.

    The distinct times are kept with their counts; too many are rounded down to multiples of a power of two, the
    smallest that makes them few. Text is a number or ISO 8601, with offsets or in UTC; other text need not sort.

    Raises:
        DataValueError: a missing time, other text, or a mixture of both.
    """
    progress.start(f"reading {column}")
    counts: pl.DataFrame | None = None
    grid: float | None = None
    iso: bool | None = None
    for batch in table.source.batches([column]):
        times, iso = _times(batch, column, iso=iso)
        part = pl.DataFrame([times.rename("time"), pl.Series("rows", np.ones(times.len(), dtype=np.int64))])
        counts = _instants(part if counts is None else pl.concat([counts, part]), grid)
        while counts.height > most:
            grid = 2.0**-20 if grid is None else 2.0 * grid
            counts = _instants(counts, grid)
        progress.advance(batch.frame.height)
    if counts is None:
        raise DataError(f"{table.origin}: expected rows, got none")
    counts = counts.sort("time")
    instants = counts.get_column("time")
    # before[i]: share of the rows that are older than instant i
    before = np.concatenate([[0.0], np.cumsum(counts.get_column("rows").to_numpy())])
    before /= before[-1]
    last = instants.len()
    test = int(np.abs(before - (1.0 - split.test)).argmin()) if split.test else last
    valid = int(np.abs(before - (1.0 - split.test - split.valid)).argmin())
    valid = min(valid, test, last - 1)
    return TimeAssigner(column, instants[valid], instants[test] if test < last else None, bool(iso))


def _instants(times: pl.DataFrame, grid: float | None) -> pl.DataFrame:
    """Sum up the rows of each instant; with a grid, of each of its steps."""
    key = pl.col("time") if grid is None else (pl.col("time") / grid).floor() * grid
    return times.group_by(key).agg(pl.col("rows").sum())


def _times(batch: RawBatch, column: str, *, iso: bool | None) -> tuple[pl.Series, bool]:
    """A batch's times as float64, and whether they are ISO 8601 text, which then are seconds of UTC.

    Args:
        batch: the rows.
        column: of the times.
        iso: what they are in other rows; None where these are the first.

    Raises:
        DataValueError: a missing time, text that is neither, or both in one column.
    """
    values = batch.frame.get_column(column)
    missing = (values.is_null() | (values == "")) if values.dtype == pl.String else values.is_null()
    if missing.any():
        row = int(missing.arg_max() or 0)
        raise located(batch, column, row, f"a time ({_TIME})", describe(values[row]))
    if values.dtype.is_temporal():
        return values.to_physical().cast(pl.Float64), False
    if values.dtype.is_numeric():
        return values.cast(pl.Float64), False
    coded = dictionary_encode(values)
    distinct = coded.values.to_list()
    if iso is None:
        iso = _number(distinct[int(coded.codes[0])]) is None
    read = _seconds if iso else _number
    found = [read(value) for value in distinct]
    out = np.array([np.nan if value is None else value for value in found])[coded.codes]
    if np.isnan(out).any():
        row = int(np.isnan(out).argmax())
        other = (_number if iso else _seconds)(values[row]) is not None
        expected = (
            f"{'ISO 8601 text' if iso else 'a number'}, as in other rows" if other or row else f"a time ({_TIME})"
        )
        raise located(batch, column, row, expected, describe(values[row]))
    return pl.Series(column, out), iso


def _seconds(value: object) -> float | None:
    """ISO 8601 text as seconds since 1970, UTC where it names no offset; None of other text."""
    try:
        time = datetime.fromisoformat(str(value).strip())
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _number(value: object) -> float | None:
    try:
        return NUMBER.number(value)
    except FieldValueError:
        return None


def _numbers(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(train, _TRAIN, np.where(test, _TEST, _VALID)).astype(np.uint8)
