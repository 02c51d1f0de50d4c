"""MovieLens latest as tag prediction: which tags a user gives a movie; (user, item, tag) are all the fields.

The task of AFN (Cheng, Shen, Huang, AAAI 2020) and of the BARS leaderboard: a tag given is a positive; two tags that
the user did not give this movie are its negatives, drawn uniformly by a seed of their own (options.seed), without
replacement within the user and movie, at the positive's time. Where from and terms: see `_movielens.py`.
`path` is the directory with tags.csv (the release) or tags.parquet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from training.datasets._movielens import directory, field
from training.datasets._negatives import NegativeOptions, with_negatives
from training.datasets.base import BuildContext, FrameSource, Table, TableSpec, override_fields
from training.datasets.movielens_latest import open_table

if TYPE_CHECKING:
    from training.datasets.config import DataConfig, FieldConfig

KEYS = ("user_id", "item_id", "tag")


def fields() -> tuple[FieldConfig, ...]:
    """The published fields."""
    return (field("user_id", "context"), field("item_id", "candidate"), field("tag", "candidate"))


def build(config: DataConfig, context: BuildContext) -> Table:
    """The table.

    Raises:
        DataError: a file is missing or has another layout.
    """
    options = NegativeOptions.model_validate(config.options)
    tags = open_table(directory(config, context), "tags")
    given = pl.concat([batch.frame for batch in tags.batches(["userId", "movieId", "tag", "timestamp"])]).select(
        pl.col("userId").cast(pl.String).alias("user_id"),
        pl.col("movieId").cast(pl.String).alias("item_id"),
        "tag",
        "timestamp",
    )
    tagged = given.filter(pl.col("tag").is_not_null() & (pl.col("tag") != ""))
    rows = with_negatives(tagged.unique(list(KEYS), keep="first", maintain_order=True), KEYS[:2], "tag", options)
    spec = TableSpec(
        "movielens_latest_tags",
        override_fields(fields(), config.fields),
        label="label",
        group="user_id",
        time="timestamp",
        ordered=False,
    )
    return Table(spec, FrameSource(rows, origin="movielens_latest_tags, positives and negatives", files=tags.files))
