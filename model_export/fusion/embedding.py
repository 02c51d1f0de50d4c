"""Folds projections into tables, T_f = E_f M_f, or pads tables with zero columns, where that is said to be cheaper."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from model_export.fusion.budget import DEFAULT_BUDGET
from model_export.fusion.choice import choose_folding
from model_export.fusion.sides import may_fold

if TYPE_CHECKING:
    from collections.abc import Collection

    from model_export.fusion.budget import ParameterBudget
    from model_export.fusion.cost import CostModel
    from model_export.fusion.tower import FoldingChoice, FoldingTrade, FusedField, FusedTower, Table

CHUNK_ROWS: Final = 1 << 16


def fold(field: FusedField) -> FusedField:
    """Return the field with its projection in its table; the pad row stays zero."""
    if field.projection is None:
        return field
    folded = np.empty((field.rows, field.projection.shape[1]), np.float64)
    for start in range(0, field.rows, CHUNK_ROWS):  # a large table in float64 need not stand beside what it becomes
        rows = field.table[start : start + CHUNK_ROWS].astype(np.float64)
        np.matmul(rows, field.projection, out=folded[start : start + CHUNK_ROWS])
    return replace(field, table=folded, projection=None)


def fold_embeddings(tower: FusedTower, names: Collection[str]) -> FusedTower:
    """Return the tower with the named fields folded."""
    return replace(tower, fields=tuple(fold(field) if field.name in names else field for field in tower.fields))


def pad(field: FusedField, dim: int) -> FusedField:
    """Return the field with `dim` columns in its table; the new ones are zero, and so are their rows of M_f.

    So that it shares one look-up with wider fields. What it adds to the first layer is the same to the bit.
    """
    wider = dim - field.dim
    if field.projection is None or wider <= 0:
        return field
    table: Table = np.concatenate([field.table, np.zeros((field.rows, wider), field.table.dtype)], axis=1)
    return replace(field, table=table, projection=np.pad(field.projection, ((0, wider), (0, 0))))


def serve(tower: FusedTower, choices: Collection[FoldingChoice], trade: FoldingTrade) -> FusedTower:
    """Return the tower with its fields folded and padded as chosen; the reasons stay with it."""
    chosen = {choice.name: choice for choice in choices}
    fields = [
        fold(field) if chosen[field.name].folded else pad(field, chosen[field.name].served_dim)
        for field in tower.fields
    ]
    return replace(tower, fields=tuple(fields), folding=tuple(choices), trade=trade)


def fold_where_cheaper(tower: FusedTower, cost: CostModel, budget: ParameterBudget = DEFAULT_BUDGET) -> FusedTower:
    """Return the tower with its fields folded and padded as `choose_folding` says.

    Raises:
        BudgetError: No way to serve the tower keeps the budget.
    """
    return serve(tower, *choose_folding(tower, cost, budget))


def fold_all(tower: FusedTower, cost: CostModel) -> FusedTower:
    """Return the tower with every field folded whose table may grow that large."""
    return fold_embeddings(tower, {field.name for field in tower.fields if may_fold(field, tower.width, cost)})
