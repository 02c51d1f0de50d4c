"""MovieLens 100K (1998): 100,000 ratings with users' and movies' data. Label: a rating of 4 or 5.

Where from and terms: see `_movielens.py`. `path` is the directory with u.data, u.user, u.item, u.genre.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from training.datasets._movielens import directory, field, read_separated
from training.datasets.base import BuildContext, DerivedSource, Table, TableSpec, no_options, override_fields
from training.datasets.config import FieldConfig, LabelRule
from training.readers import DelimitedSource, ReadFile, TextFormat, find

if TYPE_CHECKING:
    from pathlib import Path

    from training.datasets.base import RawBatch
    from training.datasets.config import DataConfig

GENRES = 19
USER = ("user_id", "age", "gender", "occupation", "zip")
ITEM = ("item_id", "title", "release", "video_release", "url")
AGES = (18.0, 25.0, 35.0, 45.0, 50.0, 56.0)  # the age groups of MovieLens 1M


def fields() -> tuple[FieldConfig, ...]:
    """The published fields."""
    return (
        field("user_id", "context"),
        FieldConfig(name="age", kind="numeric", side="context", edges=AGES),
        field("gender", "context"),
        field("occupation", "context"),
        field("zip", "context"),
        field("item_id", "candidate"),
        field("year", "candidate"),
        field("genres", "candidate", "multi_valued"),
    )


def read_items(root: Path) -> pl.DataFrame:
    """item_id, year and genres (`Action|Comedy`) of every movie."""
    names = [line.split("|")[0] for line in find(root, ("u.genre",)).read_text("latin-1").splitlines() if line][:GENRES]
    items = read_separated(find(root, ("u.item",)), "|", (*ITEM, *names))
    picked = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in names]
    return items.select(
        "item_id",
        pl.col("release").str.extract(r"(\d{4})$").alias("year"),
        pl.concat_str(picked, separator="|", ignore_nulls=True).alias("genres"),
    )


def build(config: DataConfig, context: BuildContext) -> Table:
    """The table.

    Raises:
        DataError: a file is missing or has another layout.
    """
    no_options(config)
    root = directory(config, context)
    users, items = read_separated(find(root, ("u.user",)), "|", USER), read_items(root)

    def derive(batch: RawBatch) -> pl.DataFrame:
        joined = batch.frame.join(users, on="user_id", how="left", maintain_order="left")
        return joined.join(items, on="item_id", how="left", maintain_order="left")

    ratings = DelimitedSource(
        (ReadFile(find(root, ("u.data",))),), TextFormat("\t", "", ("user_id", "item_id", "rating", "timestamp"))
    )
    keys = ("user_id", "item_id")
    made = dict.fromkeys((*USER[1:], "year", "genres"), keys)
    source = DerivedSource(ratings, made, derive, tuple(root / name for name in ("u.user", "u.item", "u.genre")))
    spec = TableSpec(
        "movielens_100k",
        override_fields(fields(), config.fields),
        label=LabelRule(column="rating", at_least=4),
        group="user_id",
        time="timestamp",
    )
    return Table(spec, source)
