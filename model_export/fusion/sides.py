"""One side's ways to be served, each with its price, products and parameters; `choice` searches among them.

A way says for every field of the side the d that its table is served with, or that it is folded.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations, product
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from model_export.fusion.counts import BYTES, Counts, count, lines
from model_export.fusion.layout import SIDES
from model_export.fusion.tower import FoldingChoice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_export.fusion.cost import CostModel
    from model_export.fusion.tower import FusedField, FusedTower, Side

FOLDED: Final = 0
"""In place of a field's served d."""

MOST_DIMS: Final = 6
"""Beyond so many different d on a side, not every set of them is tried."""

PRESSURES: Final = (1.0, 4.0, 32.0)
"""Times the price of a FLOP, so that some starts keep the limit on products."""

FEES: Final = (0.0, *(10.0 ** (power / 2) for power in range(-14, -2)))
"""Microseconds a parameter, so that some starts keep the budget: a knapsack's multiplier."""

SHOWN_DIGITS: Final = 2
"""Of a microsecond: what differs by less is the same."""

Served: TypeAlias = tuple[int, ...]
"""The d that each field of a side is served with."""


def may_fold(field: FusedField, width: int, cost: CostModel) -> bool:
    """Whether a field's table may be folded to H_0 columns: it does not grow, or not too large."""
    return field.dim >= width or BYTES * width * field.rows <= cost.largest_folded_bytes


class Ways:
    """One side's ways to be served, and their prices.

    Args:
        tower: No field folded yet.
        side: The side.
        cost: The prices.
    """

    def __init__(self, tower: FusedTower, side: Side, cost: CostModel) -> None:
        self._tower, self._side, self._cost = tower, side, cost
        self.fields = tower.side(side)
        self._absorbs = side == SIDES[0] or not tower.side(SIDES[0])
        self._others = tuple(field for field in tower.fields if field.side != side)
        self.dims = sorted({field.dim for field in self.fields if field.pad_id is None})
        self.options = [tuple(self._options(field)) for field in self.fields]
        self.kept: Served = tuple(field.dim for field in self.fields)
        self.counts = cache(self._count)
        self.price = cache(self._price)
        self.alone = cache(self._alone)

    def _options(self, field: FusedField) -> Iterator[int]:
        yield field.dim
        width, most = self._tower.width, self._cost.largest_folded_bytes
        # Pooled fields are looked up on their own: they have no neighbour to be padded for.
        for dim in self.dims if field.pad_id is None else ():
            if dim > field.dim and BYTES * dim * field.rows <= most:
                yield dim
        if may_fold(field, width, self._cost):
            yield FOLDED

    def _count(self, served: Served) -> Counts:
        fields = tuple(_stand_in(field, dim, self._tower.width) for field, dim in zip(self.fields, served, strict=True))
        return count(replace(self._tower, fields=fields + self._others), self._side)

    def _price(self, served: Served) -> float:
        return self._cost.price(self.counts(served), self.counts(self.kept), self._side)

    def flops(self, served: Served) -> int:
        """FLOPs of its products, a row."""
        return self.counts(served).flops

    def parameters(self, served: Served) -> int:
        """Numbers in its tables and projections as they are stored, less a bias that a folded table takes in."""
        return sum(map(self.size, range(len(served)), served)) - self._absorbed(served)

    def _absorbed(self, served: Served) -> int:
        folded = any(dim == FOLDED and field.pad_id is None for field, dim in zip(self.fields, served, strict=True))
        return self._tower.width if self._absorbs and folded else 0

    def size(self, number: int, dim: int) -> int:
        """Numbers in one field's table and projection."""
        rows, width = self.fields[number].rows, self._tower.width
        return (rows + width) * dim if dim else rows * width

    def time(self, served: Served) -> float:
        """Microseconds, what growth must pay for left out."""
        return self._cost.weighed(self.counts(served), self._side)

    def leanest(self) -> Served:
        """The way with the fewest parameters."""
        sizes = [{dim: self.size(number, dim) for dim in options} for number, options in enumerate(self.options)]
        alone = tuple(min(options, key=options.__getitem__) for options in sizes)
        return min([alone, *self.moves(alone)], key=self.parameters)  # to take the bias in may be worth a fold

    def starts(self) -> list[Served]:
        """Ways to begin from, none better in price, products and parameters than another.

        One for each set of d that its look-ups may have, with folding and without, and each fee of a parameter.
        """
        if len(self.dims) <= MOST_DIMS:
            sets = [set(some) for size in range(len(self.dims) + 1) for some in combinations(self.dims, size)]
        else:
            sets = [set(self.dims[number:]) for number in range(len(self.dims) + 1)]
        found = {self.kept, self.leanest()}
        for dims, folding, pressure, fee in product(sets, (True, False), PRESSURES, FEES):
            allowed = dims | ({FOLDED} if folding else set())
            found.add(tuple(self._cheapest(number, allowed, pressure, fee) for number in range(len(self.fields))))
        return self._undominated(found)

    def _undominated(self, found: set[Served]) -> list[Served]:
        rated = sorted((self.price(way), self.flops(way), self.parameters(way), way) for way in found)
        front: list[tuple[int, int]] = []
        kept = []
        for _, flops, parameters, way in rated:
            if not any(flops >= less and parameters >= fewer for less, fewer in front):
                front.append((flops, parameters))
                kept.append(way)
        return kept

    def _cheapest(self, number: int, allowed: set[int], pressure: float, fee: float) -> int:
        """The option that costs a field least, neighbours aside."""
        options = [dim for dim in self.options[number] if dim in allowed] or [self.kept[number]]
        return min(options, key=lambda dim: self.alone(number, dim, pressure) + fee * self.size(number, dim))

    def _alone(self, number: int, dim: int, pressure: float) -> float:
        field, width = self.fields[number], self._tower.width
        row = BYTES * (dim or width)
        grown = max(0, row - BYTES * field.dim) * field.rows
        counts = Counts(
            lookups=self.counts(self.kept).lookups,  # the same for every option, and what a share of the cache goes by
            gathers=((field.width, lines(dim or width), row * field.rows),),
            summed=0 if dim else field.width,
            add=0 if dim else row * field.width,
            flops=int(pressure * 2 * width * dim),
        )
        return self._cost.weighed(counts, self._side) + self._cost.growth_us * grown / 2**20

    def moves(self, served: Served) -> set[Served]:
        """Every way that differs in one field, or in all fields of one d."""
        moved = {
            (*served[:number], dim, *served[number + 1 :])
            for number, options in enumerate(self.options)
            for dim in options
        }
        for old, new in product(set(served), (FOLDED, *self.dims)):
            moved.add(
                tuple(
                    new if dim == old and new in options else dim
                    for dim, options in zip(served, self.options, strict=True)
                )
            )
        return moved - {served}

    def explain(self, served: Served, number: int, flops: int, parameters: float) -> FoldingChoice:
        """What the choice for one field was, and what the others would cost.

        Args:
            served: The side as chosen.
            number: The field.
            flops: What the side's products may take.
            parameters: What its parameters may be.
        """
        field = self.fields[number]

        def ways(dims: tuple[int, ...]) -> list[Served]:
            every = [(*served[:number], dim, *served[number + 1 :]) for dim in dims if dim in self.options[number]]
            return [way for way in every if self.flops(way) <= flops]

        def microseconds(dims: tuple[int, ...]) -> float:
            return min(map(self.time, ways(dims)), default=float("inf"))

        wider = tuple(dim for dim in self.dims if dim > field.dim)
        chosen = served[number]
        faster = min(ways(self.options[number]), key=self.time)
        return FoldingChoice(
            name=field.name,
            dim=field.dim,
            served_dim=chosen or self._tower.width,
            folded=chosen == FOLDED,
            kept_us=microseconds((field.dim,)),
            padded_us=microseconds(wider),
            folded_us=microseconds((FOLDED,)),
            parameters=self.size(number, chosen),
            why=self._why(served, number, faster, parameters),
        )

    def _why(self, served: Served, number: int, faster: Served, parameters: float) -> str:
        """What spoke against a way that takes less time; nothing where none does, at the digits that are shown."""
        saved = self.time(served) - self.time(faster)
        if round(self.time(faster), SHOWN_DIGITS) >= round(self.time(served), SHOWN_DIGITS):
            return ""
        dim = faster[number]
        name = "folded" if dim == FOLDED else "kept" if dim == self.kept[number] else f"padded to {dim}"
        said = f"{name} it takes {saved:.2f} µs less"
        if self.parameters(faster) > parameters:
            more = self.parameters(faster) - self.parameters(served)
            left = max(0, int(parameters) - self.parameters(served))
            return f"{said}, but {more:,} parameters more, and the budget has {left:,} left"
        if self.price(faster) >= self.price(served):
            grown = (self.counts(faster).table - self.counts(served).table) / 2**20
            fee = self.price(faster) - self.price(served) + saved
            return f"{said}, but {grown:,.2f} MiB more, which have to save {fee:.2f} µs"
        if served == self.kept:
            return f"{said}, but no way that fits makes its side {self._cost.margin:.0%} cheaper: it stays as it was"
        return f"{said}, which fits only since the other side stays as it was"


def _stand_in(field: FusedField, dim: int, width: int) -> FusedField:
    """A field of the same shape: counting needs no values."""
    table = np.broadcast_to(np.float64(0.0), (field.rows, dim or width))
    projection = np.broadcast_to(np.float64(0.0), (dim, width)) if dim else None
    return replace(field, table=table, projection=projection)
