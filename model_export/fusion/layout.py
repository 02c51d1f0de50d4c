"""How one side's look-ups are put together, and the order of fields that lets the graph do it without copies.

A side's id matrix is cut into pieces of neighbouring columns; fields that can share a piece are made neighbours:

    stack    unfolded fields with one column each and one d: one look-up in their stacked tables, one product
    summed   folded fields that are added up: one look-up in their stacked tables, one sum over the columns
    pooled   one multi-valued field that is pooled on its own (unfolded, or a mean)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model_export.fusion.tower import FusedField, FusedTower, Side

Kind: TypeAlias = Literal["stack", "summed", "pooled"]

SIDES: Final[tuple[Side, ...]] = ("context", "candidate")


@dataclass(frozen=True)
class Piece:
    """Neighbouring fields that are looked up together.

    Attributes:
        kind: How they are put together.
        fields: At least one; exactly one where the kind is "pooled".
    """

    kind: Kind
    fields: tuple[FusedField, ...]

    @property
    def columns(self) -> int:
        """Columns of the id matrix."""
        return sum(field.width for field in self.fields)

    @property
    def dim(self) -> int:
        """Columns of the stacked tables."""
        return self.fields[0].dim

    @property
    def rows(self) -> int:
        """Rows of the stacked tables."""
        return sum(field.rows for field in self.fields)

    @property
    def folded(self) -> bool:
        """Whether the rows are H_0 wide already."""
        return self.fields[0].folded

    @property
    def mean(self) -> bool:
        """Whether the piece is a mean over used columns."""
        return self.kind == "pooled" and self.fields[0].pooling == "mean"


def kind(field: FusedField) -> Kind:
    """How a field is put together with others. The pad row is zero, so one column needs no pooling."""
    if field.width > 1 and (field.pooling == "mean" or not field.folded):
        return "pooled"
    return "summed" if field.folded else "stack"


def pieces(fields: Iterable[FusedField]) -> list[Piece]:
    """Cut one side's fields into pieces, in the order in which `arrange` puts them."""
    ordered = sorted(enumerate(fields), key=lambda item: _key(item[1], item[0]))
    cut = []
    for (which, _, number), members in groupby(ordered, key=lambda item: _key(item[1], item[0])[:3]):
        del number
        cut.append(Piece(_KINDS[which], tuple(field for _, field in members)))
    return cut


def arrange(tower: FusedTower) -> FusedTower:
    """Return the tower with its fields in the order of its pieces, and its id columns numbered anew."""
    fields = []
    for side in SIDES:
        first = 0
        for piece in pieces(tower.side(side)):
            for field in piece.fields:
                fields.append(replace(field, first=first))
                first += field.width
    return replace(tower, fields=tuple(fields))


_KINDS: Final[tuple[Kind, ...]] = ("stack", "summed", "pooled")


def _key(field: FusedField, position: int) -> tuple[int, int, int, int]:
    which = _KINDS.index(kind(field))
    dim = field.dim if which == 0 else 0
    alone = position if _KINDS[which] == "pooled" else 0
    return which, dim, alone, position
