"""Raw rows in batches, whatever file or generator they come from, and the errors of data that is not as described.

Values of a column are text (`pl.String`) wherever they came from a text format or a generator, and integers, floats or
lists where the file format is typed (Parquet). Missing is null or the empty text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
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
