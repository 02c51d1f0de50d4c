"""The serving side of a merged model: which columns its encoder writes, and ids of one layout on the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model_export.fusion.layout import SIDES
from service.features import FeatureEncoder

if TYPE_CHECKING:
    from model_export.fusion.tower import FusedTower, Ids, Side


def serving_encoder(training: FeatureEncoder, tower: FusedTower) -> FeatureEncoder:
    """Return the encoder that writes exactly the columns that the tower reads, in its order.

    Fields that the tower does not read are accepted in requests and ignored; training-only ones are refused.
    """
    read = [field.name for field in tower.fields]
    dropped = [field.name for field in training.fields if field.name not in set(read)]
    serving = training.for_serving(dropped)
    return FeatureEncoder(
        [serving.field(name) for name in read],
        {name: serving.vocabulary(name) for name in read},
        ignored=serving.ignored,
        refused=serving.refused,
    )


def serving_ids(training: FeatureEncoder, serving: FeatureEncoder, ids: tuple[Ids, Ids]) -> tuple[Ids, Ids]:
    """Return context and candidate ids (N, C) of the training layout on the serving layout."""
    context, candidate = (_columns(training, serving, side, own) for side, own in zip(SIDES, ids, strict=True))
    return context, candidate


def _columns(training: FeatureEncoder, serving: FeatureEncoder, side: Side, ids: Ids) -> Ids:
    where = {column.name: column for column in training.columns(side)}
    picked = [where[column.name] for column in serving.columns(side)]
    numbers = [number for column in picked for number in range(column.first, column.first + column.width)]
    return np.ascontiguousarray(ids[:, numbers])
