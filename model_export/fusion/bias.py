"""What serving knows in advance goes into a bias: constants of training-only fields, and negative sampling.

And the first layer's bias itself goes into a folded table, where one is: a node less.
"""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np

from model_export.fusion.tower import Dense, FusedField, FusedTower, Side, first_layer


def fold_serving_constants(tower: FusedTower) -> FusedTower:
    """Remove training-only fields: each reads one id when serving, so it adds the same row to every first layer."""
    bias = tower.bias
    for field in tower.fields:
        if field.serving_constant_id is not None:
            bias = bias + first_layer(field, _serving_ids(field, field.serving_constant_id))[0]
    fields = tuple(field for field in tower.fields if field.serving_constant_id is None)
    return replace(tower, fields=fields, bias=bias)


def _serving_ids(field: FusedField, constant: int) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """The constant in the first column, pads in a multi-valued field's others: (1, w_f)."""
    ids = np.full((1, field.width), constant if field.pad_id is None else field.pad_id, np.int32)
    ids[0, 0] = constant
    return ids


def correct_negative_sampling(tower: FusedTower, rate: float) -> FusedTower:
    """Undo the thinning of negatives: with a share `rate` of them kept, true odds = odds * rate.

    Args:
        tower: Trained on thinned negatives.
        rate: The share of negatives that was kept, in (0, 1].

    Raises:
        ValueError: The rate is not in (0, 1].
    """
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"negative_sampling_rate: expected a share in (0, 1], got {rate}")
    return replace(tower, output=Dense(tower.output.weight, tower.output.bias + log(rate)))


def drop_silent_fields(tower: FusedTower) -> FusedTower:
    """Remove fields that add exactly nothing: a gate closed in every branch makes the whole M_f zero."""

    def speaks(field: FusedField) -> bool:
        return bool(np.any(field.table if field.projection is None else field.projection))

    return replace(tower, fields=tuple(field for field in tower.fields if speaks(field)))


def absorbs(tower: FusedTower) -> FusedField | None:
    """The folded field whose table can take the first layer's bias in: every row of its side reads it exactly once.

    The context's, where it has fields: its one row starts the sum. The candidates' otherwise. The smallest, for the
    table is copied.
    """
    side: Side = "context" if tower.side("context") else "candidate"
    fitting = [field for field in tower.side(side) if field.folded and field.pad_id is None]
    return min(fitting, key=lambda field: field.rows, default=None)


def absorb_bias(tower: FusedTower) -> FusedTower:
    """Add the first layer's bias to the rows of a folded table, if there is a fitting one: the same sum."""
    absorber = absorbs(tower)
    if absorber is None or not np.any(tower.bias):
        return tower
    table = absorber.table.astype(np.float64) + tower.bias
    fields = tuple(replace(field, table=table) if field is absorber else field for field in tower.fields)
    return replace(tower, fields=fields, bias=np.zeros_like(tower.bias))
