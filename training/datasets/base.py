"""What every data set hands to `prepare`: a `Table`, which is a description (`TableSpec`) and rows (`RowSource`).

A data set is one module with a builder `(DataConfig, BuildContext) -> Table` and one line in `DATASETS`. A source can
be gone through several times and yields the same batches, in the same order, each time.

Rows, and the errors about them, are in `training.preparation.rows`, so that readers of files know nothing of data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from training.datasets.config import DataConfig, FieldConfig, LabelRule
from training.preparation.rows import (
    SPLITS,
    DataError,
    DataFileError,
    DataValueError,
    MissingColumnError,
    RawBatch,
    RowSource,
    SplitError,
    SplitName,
)

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

__all__ = [
    "SPLITS",
    "BuildContext",
    "DataError",
    "DataFileError",
    "DataValueError",
    "DatasetBuilder",
    "DerivedSource",
    "FrameSource",
    "MissingColumnError",
    "RawBatch",
    "RowSource",
    "SplitError",
    "SplitName",
    "Table",
    "TableSpec",
    "no_options",
    "override_fields",
]


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


_SHOWN_FILES = 3


@dataclass(frozen=True)
class Table:
    """One data set, ready to be prepared."""

    spec: TableSpec
    source: RowSource

    @property
    def origin(self) -> str:
        """Where its rows are from, for messages: its files (the first few of many), or its name if it has none."""
        files = [str(path) for path in self.source.files]
        shown, more = files[:_SHOWN_FILES], len(files) - _SHOWN_FILES
        return ", ".join(shown) + (f" and {more} more" if more > 0 else "") or self.spec.name


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


@dataclass(frozen=True)
class DerivedSource:
    """Another source's rows with columns made from theirs.

    Attributes:
        source: where the rows come from.
        made: new column -> the columns it is made from.
        derive: adds the new columns to a batch's frame (those whose inputs are there); it keeps rows and their order.
        read: more files that were read for it.
    """

    source: RowSource
    made: Mapping[str, tuple[str, ...]]
    derive: Callable[[RawBatch], pl.DataFrame]
    read: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files read."""
        return (*self.source.files, *self.read)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, new ones last."""
        return (*self.source.columns, *self.made)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[RawBatch]:
        """Read and derive; what is only needed for making a column is left out again."""
        wanted = self.columns if columns is None else tuple(columns)
        needed = {name for column in wanted for name in self.made.get(column, (column,))}
        for batch in self.source.batches([name for name in self.source.columns if name in needed]):
            frame = self.derive(batch) if any(column in self.made for column in wanted) else batch.frame
            yield replace(batch, frame=frame.select(wanted))


def no_options(config: DataConfig) -> None:
    """Refuse options of a data set that has none.

    Raises:
        DataError: there are some.
    """
    if config.options:
        raise DataError(f"data.options: expected none for {config.dataset!r}, got {', '.join(config.options)}")


def override_fields(defaults: Iterable[FieldConfig], changes: Sequence[FieldConfig]) -> tuple[FieldConfig, ...]:
    """A published data set's fields with the experiment's own in place of those of the same name; new ones appended."""
    by_name = {field.name: field for field in defaults}
    by_name.update({field.name: field for field in changes})
    return tuple(by_name.values())
