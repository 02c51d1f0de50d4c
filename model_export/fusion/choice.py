"""Chooses for each field whether its table is folded, padded to another field's d, or left, under a cost model.

A field's cost depends on its neighbours: one look-up and one product serve all that share a piece, and a piece more
costs nodes. So the search starts from every set of d that a side's look-ups may have, puts each field where it is
cheapest, and goes downhill from the best of these, one field or one whole d at a time.

Padding and folding together never make more products than the tower came with: what the zeros of padding cost is
counted like any other FLOP, so that it has to be paid for by folding.
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
    from collections.abc import Callable, Iterator

    from model_export.fusion.cost import CostModel
    from model_export.fusion.tower import FusedField, FusedTower, Side

FOLDED: Final = 0
"""In place of a field's served d."""

STARTS: Final = 4
MOST_DIMS: Final = 6
"""Beyond so many different d on a side, not every set of them is tried."""

PRESSURES: Final = (1.0, 4.0, 32.0)
"""Times the price of a FLOP, so that some starts keep the limit on products."""

SHOWN_DIGITS: Final = 2
"""Of a microsecond: what differs by less is the same."""

Served: TypeAlias = tuple[int, ...]
"""The d that each field of a side is served with."""


def choose_folding(tower: FusedTower, cost: CostModel) -> tuple[FoldingChoice, ...]:
    """Choose for every field.

    Args:
        tower: No field folded yet.
        cost: The prices. A side is left as it was where it would save less than the model's margin.
    """
    sides = [_Side(tower, side, cost) for side in SIDES]
    limit = sum(side.flops(side.kept) for side in sides)
    best = _with_margin(sides, _search(sides, limit), limit, cost.margin)
    choices = []
    for index, side in enumerate(sides):
        room = limit - sides[1 - index].flops(best[1 - index])
        choices += [side.explain(best[index], number, room) for number in range(len(side.fields))]
    return tuple(choices)


def may_fold(field: FusedField, width: int, cost: CostModel) -> bool:
    """Whether a field's table may be folded to H_0 columns: it does not grow, or not too large."""
    return field.dim >= width or BYTES * width * field.rows <= cost.largest_folded_bytes


class _Side:
    """One side's ways to be served, and their prices.

    Args:
        tower: No field folded yet.
        side: The side.
        cost: The prices.
    """

    def __init__(self, tower: FusedTower, side: Side, cost: CostModel) -> None:
        self._tower, self._side, self._cost = tower, side, cost
        self.fields = tower.side(side)
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

    def starts(self) -> set[Served]:
        """Ways to be served, one for each set of d that its look-ups may have, with folding and without."""
        if len(self.dims) <= MOST_DIMS:
            sets = [set(some) for size in range(len(self.dims) + 1) for some in combinations(self.dims, size)]
        else:
            sets = [set(self.dims[number:]) for number in range(len(self.dims) + 1)]
        return {
            tuple(self._cheapest(number, allowed, pressure) for number in range(len(self.fields)))
            for dims, folding, pressure in product(sets, (True, False), PRESSURES)
            for allowed in (dims | ({FOLDED} if folding else set()),)
        }

    def _cheapest(self, number: int, allowed: set[int], pressure: float) -> int:
        """The option that costs a field least, neighbours aside."""
        options = [dim for dim in self.options[number] if dim in allowed] or [self.kept[number]]
        return min(options, key=lambda dim: self.alone(number, dim, pressure))

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

    def explain(self, served: Served, number: int, room: int) -> FoldingChoice:
        """What the choice for one field was, and what the others would cost."""
        field = self.fields[number]

        def ways(dims: tuple[int, ...]) -> list[Served]:
            every = [(*served[:number], dim, *served[number + 1 :]) for dim in dims if dim in self.options[number]]
            return [way for way in every if self.flops(way) <= room]

        def microseconds(dims: tuple[int, ...]) -> float:
            return min(map(self._time, ways(dims)), default=float("inf"))

        wider = tuple(dim for dim in self.dims if dim > field.dim)
        chosen = served[number]
        return FoldingChoice(
            name=field.name,
            dim=field.dim,
            served_dim=chosen or self._tower.width,
            folded=chosen == FOLDED,
            kept_us=microseconds((field.dim,)),
            padded_us=microseconds(wider),
            folded_us=microseconds((FOLDED,)),
            why=self._why(served, number, min(ways(self.options[number]), key=self._time)),
        )

    def _time(self, served: Served) -> float:
        return self._cost.weighed(self.counts(served), self._side)

    def _why(self, served: Served, number: int, faster: Served) -> str:
        """What spoke against a way that takes less time; nothing where none does, at the digits that are shown."""
        saved = self._time(served) - self._time(faster)
        if round(self._time(faster), SHOWN_DIGITS) >= round(self._time(served), SHOWN_DIGITS):
            return ""
        dim = faster[number]
        name = "folded" if dim == FOLDED else "kept" if dim == self.kept[number] else f"padded to {dim}"
        said = f"{name} it takes {saved:.2f} µs less"
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


Pair: TypeAlias = tuple[Served, Served]


def _search(sides: list[_Side], limit: int) -> Pair:
    """The cheapest way to serve both sides that the search finds within the limit on FLOPs."""
    context, candidate = sides

    def price(pair: Pair) -> float:
        if context.flops(pair[0]) + candidate.flops(pair[1]) > limit:
            return float("inf")
        return context.price(pair[0]) + candidate.price(pair[1])

    pairs = sorted(product(context.starts(), candidate.starts()), key=price)
    starts = [*pairs[:STARTS], (context.kept, candidate.kept)]
    return min((_descend(sides, start, price) for start in starts), key=price)


def _descend(sides: list[_Side], pair: Pair, price: Callable[[Pair], float]) -> Pair:
    """Take the best move until none is cheaper."""
    context, candidate = sides
    best = price(pair)
    while True:
        moves = [(way, pair[1]) for way in context.moves(pair[0])]
        moves += [(pair[0], way) for way in candidate.moves(pair[1])]
        least, chosen = min(((price(move), move) for move in moves), default=(best, pair))
        if least >= best:
            return pair
        best, pair = least, chosen


def _with_margin(sides: list[_Side], best: Pair, limit: int, margin: float) -> Pair:
    """Leave a side as it was where it saves less than the margin."""

    def worth(side: _Side, served: Served) -> bool:
        return served == side.kept or side.price(served) <= (1.0 - margin) * side.price(side.kept)

    context, candidate = sides
    pairs = product((best[0], context.kept), (best[1], candidate.kept))
    fitting = [
        pair
        for pair in pairs
        if sum(side.flops(served) for side, served in zip(sides, pair, strict=True)) <= limit
        and all(worth(side, served) for side, served in zip(sides, pair, strict=True))
    ]
    return min(fitting, key=lambda pair: context.price(pair[0]) + candidate.price(pair[1]))
