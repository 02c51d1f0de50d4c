"""Chooses for each field whether its table is folded, padded to another field's d, or left, under a cost model.

A field's cost depends on its neighbours: one look-up and one product serve all that share a piece, and a piece more
costs nodes. So the search starts from every set of d that a side's look-ups may have, puts each field where it is
cheapest, and goes downhill from the best of these, one field or one whole d at a time.

Two things are limited. Padding and folding together never make more products than the tower came with: what the
zeros of padding cost is counted like any other FLOP, so that it has to be paid for by folding. And folding buys
microseconds with parameters, so the whole stays within a budget of them: a knapsack. Its starts are those of a fee on
every parameter, at many fees, and where no move helps, it is filled anew as if fields did not share nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final, TypeAlias

from model_export.errors import BudgetError
from model_export.fusion.counts import parameters
from model_export.fusion.knapsack import fill_knapsack
from model_export.fusion.layout import SIDES
from model_export.fusion.sides import Served, Ways
from model_export.fusion.tower import FoldingTrade

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from model_export.fusion.budget import ParameterBudget
    from model_export.fusion.cost import CostModel
    from model_export.fusion.tower import FoldingChoice, FusedTower

STARTS: Final = 4

UNLIMITED: Final = float("inf")

Pair: TypeAlias = tuple[Served, Served]
"""How the context's and the candidates' fields are served."""


def choose_folding(
    tower: FusedTower, cost: CostModel, budget: ParameterBudget
) -> tuple[tuple[FoldingChoice, ...], FoldingTrade]:
    """Choose for every field.

    Args:
        tower: No field folded yet.
        cost: The prices. A side is left as it was where it would save less than the model's margin.
        budget: What the parameters of the whole served tower may be.

    Raises:
        BudgetError: No way to serve the tower keeps the budget.
    """
    ways = (Ways(tower, SIDES[0], cost), Ways(tower, SIDES[1], cost))
    kept = parameters(tower).total
    layers = kept - sum(side.parameters(side.kept) for side in ways)
    limit = budget.limit(kept)
    flops = sum(side.flops(side.kept) for side in ways)
    free = _Search(ways, flops, UNLIMITED, cost.margin)
    search = free if limit is None else _Search(ways, flops, limit - layers, cost.margin)
    best = search.best()
    if best is None:
        least = layers + sum(side.parameters(side.leanest()) for side in ways)
        raise BudgetError(f"parameter budget: expected at least {least:,}, the fewest for this model, got {limit:,}")
    unlimited = best if search is free else free.best() or best
    choices = []
    for index, side in enumerate(ways):
        other = ways[1 - index], best[1 - index]
        room = flops - other[0].flops(other[1])
        numbers = search.parameters - other[0].parameters(other[1])
        choices += [side.explain(best[index], number, room, numbers) for number in range(len(side.fields))]

    def seen(pair: Pair) -> tuple[int, float]:
        return layers + search.sizes(pair), sum(side.time(way) for side, way in zip(ways, pair, strict=True))

    keep = (ways[0].kept, ways[1].kept)
    return tuple(choices), FoldingTrade(limit, kept=seen(keep), chosen=seen(best), unlimited=seen(unlimited))


@dataclass(frozen=True)
class _Search:
    """Looks for the cheapest pair within two limits.

    Attributes:
        ways: The context's and the candidates'.
        flops: Most FLOPs a row, both sides together.
        parameters: Most parameters of both sides' tables and projections.
        margin: Leave a side as it was where it saves less than this share.
    """

    ways: tuple[Ways, Ways]
    flops: int
    parameters: float
    margin: float

    def best(self) -> Pair | None:
        """The cheapest pair whose every side is as it was, or saves the margin; None where nothing fits."""
        context, candidate = (side.starts() for side in self.ways)
        keep = tuple(side.kept for side in self.ways)
        found = [
            self._from(product(context, candidate), None),
            self._from(product(context, [keep[1]]), 1),
            self._from(product([keep[0]], candidate), 0),
            (keep[0], keep[1]),
        ]
        fitting = [pair for pair in found if self.price(pair) < UNLIMITED]
        # Where not even the tower as it came fits, there is nothing that a side could save by.
        worth = [pair for pair in fitting if self._worth(pair)] or fitting
        return min(worth, key=self.price, default=None)

    def price(self, pair: Pair) -> float:
        """What both sides cost; infinite past a limit."""
        if sum(side.flops(way) for side, way in zip(self.ways, pair, strict=True)) > self.flops:
            return UNLIMITED
        if self.sizes(pair) > self.parameters:
            return UNLIMITED
        return sum(side.price(way) for side, way in zip(self.ways, pair, strict=True))

    def sizes(self, pair: Pair) -> int:
        """Parameters of both sides."""
        return sum(side.parameters(way) for side, way in zip(self.ways, pair, strict=True))

    def _worth(self, pair: Pair) -> bool:
        return all(
            way == side.kept or side.price(way) <= (1.0 - self.margin) * side.price(side.kept)
            for side, way in zip(self.ways, pair, strict=True)
        )

    def _from(self, pairs: Iterable[Pair], frozen: int | None) -> Pair:
        """The best that is downhill from the best of some pairs; one side may have to stay."""
        starts = sorted(pairs, key=self.price)[:STARTS]
        return min((self._descend(start, frozen) for start in starts), key=self.price)

    def _descend(self, pair: Pair, frozen: int | None) -> Pair:
        """Take the best move until none is cheaper, and fill the budget anew where no move is."""
        while True:
            for moves in (self._moves(pair, frozen), self._filled(pair, frozen)):
                better = min(moves, key=self.price, default=pair)
                if self.price(better) < self.price(pair):
                    pair = better
                    break
            else:
                return pair

    def _moves(self, pair: Pair, frozen: int | None) -> Iterator[Pair]:
        for index, side in enumerate(self.ways):
            if index != frozen:
                yield from (_replaced(pair, index, way) for way in side.moves(pair[index]))

    def _filled(self, pair: Pair, frozen: int | None) -> Iterator[Pair]:
        """The budget filled anew: a knapsack of what each option of each field costs beside the others as they are."""
        if self.parameters == UNLIMITED:
            return
        items = [
            (index, number)
            for index, side in enumerate(self.ways)
            if index != frozen
            for number in range(len(side.fields))
        ]
        prices, sizes = [], []
        for index, number in items:
            side, way = self.ways[index], pair[index]
            ways = [(*way[:number], dim, *way[number + 1 :]) for dim in side.options[number]]
            prices.append([side.price(other) for other in ways])
            sizes.append([side.size(number, dim) for dim in side.options[number]])
        chosen = fill_knapsack(
            prices,
            sizes,
            self.parameters
            - self.sizes(pair)
            + sum(self.ways[index].size(number, pair[index][number]) for index, number in items),
        )
        if chosen is not None:
            served = [list(way) for way in pair]
            for (index, number), option in zip(items, chosen, strict=True):
                served[index][number] = self.ways[index].options[number][option]
            yield tuple(served[0]), tuple(served[1])


def _replaced(pair: Pair, index: int, way: Served) -> Pair:
    return (way, pair[1]) if index == 0 else (pair[0], way)
