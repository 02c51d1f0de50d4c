"""What every data set hands to `prepare`: a `Table`, which is a description (`TableSpec`) and rows (`RowSource`).

A data set is one module with a builder `(DataConfig, BuildContext) -> Table` and one line in `DATASETS`. A source can
be gone through several times and yields the same batches, in the same order, each time.

Values of a column are text (`pl.String`) wherever they came from a text format or a generator, and integers, floats or
lists where the file format is typed (Parquet). Missing is null or the empty text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from training.datasets.config import DataConfig, FieldConfig, LabelRule

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")


class DataError(ValueError):
    """The data is not what its description says; the message says where, expected and got.

    DataError
    +-- DataFileError       a file is missing or cannot be read
    +-- MissingColumnError  a column that the description names is not in the file
    +-- DataValueError      a value that its column may not hold
    +-- SplitError          a split is empty or has one class
    """


class DataFileError(DataError):
    """A file is missing, or is not in the format that it should be in."""


class MissingColumnError(DataError):
    """The description names a column that the file does not have."""


class DataValueError(DataError):
    """A value that its column may not hold: says file, line or row, column, expected, got."""


class SplitError(DataError):
    """A split is empty, or holds one class."""


@dataclass(frozen=True)
class RawBatch:
    """Some rows in file order.

    Attributes:
        frame: the rows, all columns of the source (or those asked for).
        origin: where the rows come from, for messages (a file's path).
        first: number of the first row within the origin, from 0.
        place: row within the batch -> how people find it (`line 18`, `row 17`); rows counted from `first` if None.
        split: the split that all rows belong to, where the files themselves are the splits.
    """

    frame: pl.DataFrame
    origin: str
    first: int = 0
    place: Callable[[int], str] | None = None
    split: SplitName | None = None

    def where(self, row: int) -> str:
        """Name the place of one row of the batch, for messages."""
        place = f"row {self.first + row}" if self.place is None else self.place(row)
        return f"{self.origin}: {place}"


class RowSource(Protocol):
    """Rows in batches, the same ones at every call."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files read, for the record of digests; empty for a generator."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[RawBatch]:
        """Go through the rows; with `columns`, only those need be in the frames."""


@dataclass(frozen=True)
class TableSpec:
    """What the columns mean.

    Attributes:
        name: the data set's name.
        fields: the model's input fields, in order (context fields and candidate fields may be mixed).
        label: a column of 0 and 1, or a rule.
        weight, group, time: columns, or None. `time` is what a split by time goes by.
        ordered: the order of the rows is their order in time (used by a split by time where `time` is None).
        null_values: texts that mean missing, beside the empty one.
    """

    name: str
    fields: tuple[FieldConfig, ...]
    label: str | LabelRule
    weight: str | None = None
    group: str | None = None
    time: str | None = None
    ordered: bool = True
    null_values: tuple[str, ...] = ()

    @property
    def label_column(self) -> str:
        """The column that the label is read from."""
        return self.label if isinstance(self.label, str) else self.label.column


@dataclass(frozen=True)
class Table:
    """One data set, ready to be prepared."""

    spec: TableSpec
    source: RowSource


@dataclass(frozen=True)
class BuildContext:
    """What a builder may know beside its section.

    Attributes:
        base: directory of the TOML file, for relative paths.
        seed: the experiment's seed.
    """

    base: Path
    seed: int


DatasetBuilder = Callable[[DataConfig, BuildContext], Table]


@dataclass(frozen=True)
class FrameSource:
    """Rows that are in memory: a generator's, or small files joined.

    Attributes:
        frame: the rows.
        origin: what messages call it.
        files: the files it was made of, if any.
        batch_rows: rows a batch.
        derive: applied to each batch: columns that are cheaper to make than to keep. It must keep rows and their order.
    """

    frame: pl.DataFrame
    origin: str
    files: tuple[Path, ...] = ()
    batch_rows: int = 262_144
    derive: Callable[[pl.DataFrame], pl.DataFrame] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, derived ones included."""
        head = self.frame.head(0)
        return tuple((head if self.derive is None else self.derive(head)).columns)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[RawBatch]:
        """Slice the frame."""
        for first in range(0, self.frame.height, self.batch_rows):
            part = self.frame.slice(first, self.batch_rows)
            if self.derive is not None:
                part = self.derive(part)
            yield RawBatch(part if columns is None else part.select(columns), self.origin, first)


def override_fields(defaults: Iterable[FieldConfig], changes: Sequence[FieldConfig]) -> tuple[FieldConfig, ...]:
    """A published data set's fields with the experiment's own in place of those of the same name; new ones appended."""
    by_name = {field.name: field for field in defaults}
    by_name.update({field.name: field for field in changes})
    return tuple(by_name.values())
