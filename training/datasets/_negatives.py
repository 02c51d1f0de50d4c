"""Sampled negatives for logs that hold positives alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import polars as pl
from pydantic import Field

from training.datasets.config import StrictModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class NegativeOptions(StrictModel):
    """`[data] options` of a data set of positives.

    Attributes:
        negatives: drawn for each positive.
        seed: of the draw; its own, so that the experiments of several seeds learn from the same rows.
    """

    negatives: Annotated[int, Field(ge=1, le=100)] = 2
    seed: Annotated[int, Field(ge=0)] = 0


def with_negatives(positives: pl.DataFrame, owner: Sequence[str], item: str, options: NegativeOptions) -> pl.DataFrame:
    """The rows with label 1, each followed by its sampled negatives: label 0, another item, all else the same.

    Args:
        positives: rows that differ in owner and item.
        owner: the columns that say who had the item.
        item: the column of the item.
        options: how many a positive, and the seed.
    """
    items = positives.get_column(item).unique().sort()
    owners = positives.select(pl.struct(owner).rank("dense")).to_series().to_numpy().astype(np.int64)
    codes = positives.get_column(item).rank("dense").to_numpy().astype(np.int64) - 1
    place, drawn = sample_negatives(owners, codes, items.len(), options)
    negatives = positives[place].with_columns(items.gather(drawn).alias(item), pl.lit("0").alias("label"))
    order = pl.Series("order", np.concatenate([np.arange(positives.height), place]))
    both = pl.concat([positives.with_columns(pl.lit("1").alias("label")), negatives]).with_columns(order)
    return both.sort("order", maintain_order=True).drop("order")


def sample_negatives(
    owners: NDArray[np.integer], items: NDArray[np.integer], universe: int, options: NegativeOptions
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw items that their owner never had, all equally likely, without replacement within an owner.

    Args:
        owners: (P,) codes of who had what (a user, or a user with an item where tags are drawn).
        items: (P,) codes from 0 to universe - 1 of what they had; each pair once.
        universe: number of items.
        options: how many a positive, and the seed.

    Returns:
        The place in `owners` of the positive that each negative is drawn for, ascending, and its item. An owner who had
        so much that too little is left gets all that is left.
    """
    if owners.size == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    rng = np.random.default_rng([options.seed, 0x4E])
    order = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(owners[order]) != 0])
    had = np.zeros(universe, dtype=bool)
    places: list[NDArray[np.int64]] = []
    drawn: list[NDArray[np.int64]] = []
    for start, end in zip(starts, np.r_[starts[1:], order.size], strict=True):
        mine = order[start:end]
        wanted = options.negatives * mine.size
        had[items[mine]] = True
        picked = _draw(rng, had, universe, int(mine.size), wanted)
        had[items[mine]] = False
        drawn.append(picked)
        places.append(np.repeat(mine, options.negatives)[: picked.size])
    place, item = np.concatenate(places), np.concatenate(drawn)
    sort = np.argsort(place, kind="stable")
    return place[sort], item[sort]


def _draw(
    rng: np.random.Generator, had: NDArray[np.bool_], universe: int, owned: int, wanted: int
) -> NDArray[np.int64]:
    """Distinct items outside `had`, as many as wanted or as there are."""
    if 4 * (owned + wanted) > universe:
        free = np.flatnonzero(~had)
        return rng.choice(free, size=min(wanted, free.size), replace=False)
    # Few of many: draw until enough differ. The first `wanted` distinct ones of a uniform stream are a uniform draw.
    picked = np.zeros(0, dtype=np.int64)
    while picked.size < wanted:
        more = rng.integers(0, universe, size=2 * (wanted - picked.size))
        picked = np.concatenate([picked, more[~had[more]]])
        _, first = np.unique(picked, return_index=True)
        picked = picked[np.sort(first)]
    return picked[:wanted]
