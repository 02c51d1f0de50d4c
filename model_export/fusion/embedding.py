"""Folds projections into tables, T_f = E_f M_f, for the fields where the cost model says that it is cheaper."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from model_export.fusion.cost import BYTES, CostModel, Counts, count
from model_export.fusion.layout import SIDES
from model_export.fusion.tower import FoldingChoice

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from model_export.fusion.tower import FusedField, FusedTower


def fold(field: FusedField) -> FusedField:
    """Return the field with its projection in its table; the pad row stays zero."""
    if field.projection is None:
        return field
    return replace(field, table=np.asarray(field.table.astype(np.float64) @ field.projection), projection=None)


def fold_embeddings(tower: FusedTower, names: Collection[str]) -> FusedTower:
    """Return the tower with the named fields folded."""
    return replace(tower, fields=tuple(fold(field) if field.name in names else field for field in tower.fields))


def fold_where_cheaper(tower: FusedTower, cost: CostModel) -> FusedTower:
    """Return the tower with the fields folded that `choose_folding` chose; the reasons stay with it."""
    choices = choose_folding(tower, cost)
    folded = fold_embeddings(tower, {choice.name for choice in choices if choice.folded})
    return replace(folded, folding=choices)


def choose_folding(tower: FusedTower, cost: CostModel) -> tuple[FoldingChoice, ...]:
    """Choose per field whether to fold, under a cost model.

    A field's cost depends on its neighbours (one look-up and one product serve all that share a piece), so the search
    goes downhill from both ends, all kept and all folded, one field or one whole dimension at a time.
    """
    choices = []
    for side in SIDES:
        fields = tower.side(side)
        search = _Search(fields, tower.width, cost, cost.rows(side))
        kept = frozenset[str]()
        chosen = min((search.descend(start) for start in (kept, search.foldable)), key=search.price)
        if search.price(chosen) > (1.0 - cost.margin) * search.price(kept):
            chosen = kept
        for field in fields:
            folded_us = search.microseconds(chosen | {field.name})
            kept_us = search.microseconds(chosen - {field.name})
            choices.append(FoldingChoice(field.name, field.name in chosen, kept_us, folded_us))
    return tuple(choices)


class _Search:
    """One side's search.

    Args:
        fields: Its fields, none folded yet.
        width: H_0.
        cost: The prices.
        rows: Rows of the side's id matrix.
    """

    def __init__(self, fields: Sequence[FusedField], width: int, cost: CostModel, rows: int) -> None:
        self._width, self._cost, self._rows = width, cost, rows
        # Shapes are all that counting needs: the stand-ins hold no values.
        self._kept = {field.name: field for field in fields}
        self._folded = {
            field.name: replace(field, table=np.broadcast_to(0.0, (field.rows, width)), projection=None)
            for field in fields
        }
        self.foldable = frozenset(
            field.name
            for field in fields
            if field.dim >= width or BYTES * width * field.rows <= cost.largest_folded_bytes
        )
        dims = {field.dim for field in fields}
        by_dim = [frozenset(field.name for field in fields if field.dim == dim) for dim in sorted(dims)]
        self._moves = [frozenset([name]) for name in self._kept] + by_dim

    def microseconds(self, folded: frozenset[str]) -> float:
        """Time with these fields folded; infinite where one must not be."""
        if not folded <= self.foldable:
            return float("inf")
        return self._cost.microseconds(self._count(folded), self._rows)

    def price(self, folded: frozenset[str]) -> float:
        """Microseconds with these fields folded, growth included."""
        return self._cost.price(self._count(folded), self._count(frozenset()), self._rows)

    def _count(self, folded: frozenset[str]) -> Counts:
        fields = [self._folded[name] if name in folded else field for name, field in self._kept.items()]
        return count(fields, self._width)

    def descend(self, folded: frozenset[str]) -> frozenset[str]:
        """Take the best move until none is cheaper."""
        best = self.price(folded)
        while True:
            moves = [folded | (move & self.foldable) for move in self._moves] + [folded - move for move in self._moves]
            price, chosen = min(
                ((self.price(move), move) for move in moves), key=lambda item: item[0], default=(best, folded)
            )
            if price >= best:
                return folded
            best, folded = price, chosen
