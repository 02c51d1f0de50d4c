"""MovieLens latest (33 million ratings in 2023). Label: a rating of 4 and more.

Where from and terms: see `_movielens.py`. `path` is the directory with ratings and movies, as .csv (the
release) or .parquet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from training.datasets._movielens import directory, field, year_of
from training.datasets.base import BuildContext, DerivedSource, Table, TableSpec, no_options, override_fields
from training.datasets.config import LabelRule
from training.readers import DelimitedSource, ParquetSource, ReadFile, TextFormat, find

if TYPE_CHECKING:
    from pathlib import Path

    from training.datasets.base import RawBatch, RowSource
    from training.datasets.config import DataConfig, FieldConfig


def fields() -> tuple[FieldConfig, ...]:
    """The published fields."""
    return (
        field("user_id", "context").model_copy(update={"column": "userId"}),
        field("item_id", "candidate").model_copy(update={"column": "movieId"}),
        field("year", "candidate"),
        field("genres", "candidate", "multi_valued"),
    )


def open_table(root: Path, name: str) -> RowSource:
    """One of the release's tables, from CSV or Parquet."""
    path = find(root, (f"{name}.csv", f"{name}.parquet"))
    parts = (ReadFile(path),)
    return ParquetSource(parts) if path.suffix == ".parquet" else DelimitedSource(parts, TextFormat())


def build(config: DataConfig, context: BuildContext) -> Table:
    """The table.

    Raises:
        DataError: a file is missing or has another layout.
    """
    no_options(config)
    root = directory(config, context)
    listed = open_table(root, "movies")
    movies = pl.concat([batch.frame for batch in listed.batches(["movieId", "title", "genres"])]).select(
        pl.col("movieId").cast(pl.String).alias("key"),
        year_of("title"),
        pl.when(pl.col("genres") != "(no genres listed)").then(pl.col("genres")).alias("genres"),
    )

    def derive(batch: RawBatch) -> pl.DataFrame:
        keyed = batch.frame.with_columns(pl.col("movieId").cast(pl.String).alias("key"))
        return keyed.join(movies, on="key", how="left", maintain_order="left")

    made = {"year": ("movieId",), "genres": ("movieId",)}
    source = DerivedSource(open_table(root, "ratings"), made, derive, listed.files)
    spec = TableSpec(
        "movielens_latest",
        override_fields(fields(), config.fields),
        label=LabelRule(column="rating", at_least=4),
        group="userId",
        time="timestamp",
    )
    return Table(spec, source)
