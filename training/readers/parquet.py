"""Parquet: typed columns, read in batches of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from training.preparation.rows import DataFileError, MissingColumnError, RawBatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from training.readers.paths import ReadFile

BATCH_ROWS = 262_144


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files with the same columns (their types may differ: a value's text counts).

    Attributes:
        parts: the files, in order.
        null_values: texts that mean missing in text columns, beside the empty one.
        batch_rows: rows a batch.
    """

    parts: tuple[ReadFile, ...]
    null_values: tuple[str, ...] = ()
    batch_rows: int = BATCH_ROWS

    @property
    def files(self) -> tuple[Path, ...]:
        """The files read."""
        return tuple(part.path for part in self.parts)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the first file's columns.

        Raises:
            DataFileError: it is no Parquet.
        """
        return tuple(_schema(self.parts[0].path))

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[RawBatch]:
        """Read the files.

        Raises:
            DataFileError: a file cannot be read.
            MissingColumnError: a file lacks a column.
        """
        wanted = self.columns if columns is None else tuple(columns)
        for part in self.parts:
            schema = _schema(part.path)
            for name in wanted:
                if name not in schema:
                    raise MissingColumnError(
                        f"{part.path}: expected a column {name!r}, got {', '.join(map(repr, schema))}"
                    )
            texts = [name for name in wanted if schema[name] == pl.String] if self.null_values else []
            missing = [pl.when(~pl.col(name).is_in(self.null_values)).then(pl.col(name)).alias(name) for name in texts]
            scan = pl.scan_parquet(part.path, glob=False).select(wanted).with_columns(missing)
            row = 0
            try:
                for frame in scan.collect_batches(chunk_size=self.batch_rows, maintain_order=True):
                    yield RawBatch(frame, str(part.path), row, None, part.split)
                    row += frame.height
            except pl.exceptions.PolarsError as error:
                raise DataFileError(f"{part.path}: expected Parquet, got {error}") from error


def _schema(path: Path) -> dict[str, pl.DataType]:
    try:
        return pl.read_parquet_schema(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataFileError(f"{path}: expected Parquet, got {error}") from error
