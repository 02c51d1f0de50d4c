"""MovieLens 1M (2003) as implicit feedback: what a user rated is a positive, two movies never seen are its negatives.

Where from and terms: see `_movielens.py`. `path` is the directory with users.dat, movies.dat, and
ratings.dat or interactions_user_item.parquet (pairs alone: no split by time then). Negatives are drawn by a seed of
their own (options.seed) from the movies that anybody rated, without replacement within a user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from training.datasets._movielens import directory, field, read_separated, year_of
from training.datasets._negatives import NegativeOptions, with_negatives
from training.datasets.base import BuildContext, FrameSource, Table, TableSpec, override_fields
from training.readers import find

if TYPE_CHECKING:
    from pathlib import Path

    from training.datasets.config import DataConfig, FieldConfig

RATINGS = ("user_id", "item_id", "rating", "timestamp")
USER = ("user_id", "gender", "age", "occupation", "zip")


def fields() -> tuple[FieldConfig, ...]:
    """The published fields (age and occupation are codes of groups)."""
    return (
        *(field(name, "context") for name in USER),
        field("item_id", "candidate"),
        field("year", "candidate"),
        field("genres", "candidate", "multi_valued"),
    )


def read_pairs(path: Path) -> pl.DataFrame:
    """user_id, item_id and, where known, timestamp of every pair, as text; each pair once."""
    if path.suffix == ".parquet":
        pairs = pl.read_parquet(path).select(
            pl.col("userID").cast(pl.String).alias("user_id"), pl.col("movieID").cast(pl.String).alias("item_id")
        )
    else:
        pairs = read_separated(path, "::", RATINGS).drop("rating")
    return pairs.unique(["user_id", "item_id"], keep="first", maintain_order=True)


def build(config: DataConfig, context: BuildContext) -> Table:
    """The table.

    Raises:
        DataError: a file is missing or has another layout.
    """
    options = NegativeOptions.model_validate(config.options)
    root = directory(config, context)
    files = (
        find(root, ("ratings.dat", "interactions_user_item.parquet")),
        find(root, ("users.dat",)),
        find(root, ("movies.dat",)),
    )
    rows = with_negatives(read_pairs(files[0]), ["user_id"], "item_id", options)
    users = read_separated(files[1], "::", USER)
    movies = read_separated(files[2], "::", ("item_id", "title", "genres")).with_columns(year_of("title")).drop("title")

    def derive(frame: pl.DataFrame) -> pl.DataFrame:
        joined = frame.join(users, on="user_id", how="left", maintain_order="left")
        return joined.join(movies, on="item_id", how="left", maintain_order="left")

    spec = TableSpec(
        "movielens_1m",
        override_fields(fields(), config.fields),
        label="label",
        group="user_id",
        time="timestamp" if "timestamp" in rows.columns else None,
        ordered=False,
    )
    return Table(spec, FrameSource(rows, origin="movielens_1m, positives and negatives", files=files, derive=derive))
