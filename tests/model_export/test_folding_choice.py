"""How folding and padding are chosen: against every way there is, within any budget of parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from forms import SLOTS, random_form, slots, widths
from hypothesis import given, settings
from hypothesis import strategies as st
from test_folding import ANY, candidates, sided

from model_export.errors import BudgetError
from model_export.fusion import CostModel, ParameterBudget, dense_flops, fuse_towers
from model_export.fusion.bias import absorb_bias
from model_export.fusion.budget import parse_budget
from model_export.fusion.counts import count, parameters
from model_export.fusion.embedding import fold, fold_where_cheaper, pad
from model_export.fusion.knapsack import fill_knapsack
from model_export.fusion.layout import SIDES
from training.models.base import FieldSlot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from model_export.fusion import FusedTower

COSTS = {
    "default": CostModel(),
    "dear products": CostModel(flop_ns=0.1),
    "dear misses": CostModel(miss_ns=100.0, cache_bytes=1000),
    "dear nodes": CostModel(node_us=20.0),
    "dear growth": CostModel(growth_us=2000.0),
    "large requests": CostModel(few_rows=1000, many_weight=0.0),
    "small requests": CostModel(many_weight=0.0),
}


def every_way(tower: FusedTower) -> Iterator[FusedTower]:
    """The tower with each field as it is, folded, or padded to another d of its side, in every combination."""
    options = []
    for field in tower.fields:
        dims = {other.dim for other in tower.side(field.side) if other.pad_id is None and field.pad_id is None}
        options.append([field, fold(field), *(pad(field, dim) for dim in dims if dim > field.dim)])
    for fields in product(*options):
        yield replace(tower, fields=fields)


@dataclass(frozen=True)
class Rated:
    """What a way to serve a tower costs, and how many parameters it stores."""

    price: float
    parameters: int


def rated(way: FusedTower, tower: FusedTower, cost: CostModel) -> Rated:
    """The sum of both sides' prices; infinite past the limit on products, or for a side that saves too little."""
    total = 0.0
    for side in SIDES:
        kept, counts = count(tower, side), count(way, side)
        before, after = (cost.price(number, kept, side) for number in (kept, counts))
        alike = [field.dim for field in way.side(side)] == [field.dim for field in tower.side(side)]
        total += after if alike or after <= (1.0 - cost.margin) * before else np.inf
    fits = dense_flops(way) <= dense_flops(tower)
    return Rated(total if fits else np.inf, parameters(absorb_bias(way)).total)


def check_choices(tower: FusedTower, cost: CostModel, budgets: Iterable[ParameterBudget]) -> None:
    """Compare choices with the best of every way within the same budget."""
    every = [rated(way, tower, cost) for way in every_way(tower)]
    for budget in budgets:
        limit = budget.limit(parameters(tower).total)
        found = rated(fold_where_cheaper(tower, cost, budget), tower, cost)
        fitting = [way for way in every if limit is None or way.parameters <= limit]
        assert limit is None or found.parameters <= limit
        assert found.price == pytest.approx(min(way.price for way in fitting)), budget


CASES = [
    candidates((2, 2, 4, 8, 32)),
    candidates((16, 16, 16)),
    candidates((40, 4, 4, 40)),
    candidates((1,)),
    candidates((3, 5, 7, 11)),
    sided((2, 4, 8, 2, 4, 8)),
    sided((8, 8, 2, 16)),
    SLOTS,
]


@pytest.mark.parametrize("price", COSTS)
@pytest.mark.parametrize("slots", CASES, ids=lambda slots: "-".join(str(slot.dim) for slot in slots))
def test_the_choice_is_the_cheapest_of_all_ways_to_fold_and_pad_within_any_budget(
    slots: tuple[FieldSlot, ...], price: str
) -> None:
    tower = fuse_towers(random_form(slots, (24,)))
    check_choices(tower, COSTS[price], map(ParameterBudget, (None, 1.5, 1.1, 1.0)))


@settings(max_examples=15, deadline=None)
@given(slots(), st.sampled_from(list(COSTS)), st.floats(0.5, 3.0), widths)
def test_no_budget_is_passed_and_one_that_no_way_keeps_is_refused_with_the_fewest_parameters(
    slots: tuple[FieldSlot, ...], price: str, factor: float, widths: tuple[int, ...]
) -> None:
    tower = fuse_towers(random_form(slots, widths))
    sizes = [parameters(absorb_bias(way)).total for way in every_way(tower)]
    most = int(factor * parameters(tower).total)
    if min(sizes) > most:
        with pytest.raises(BudgetError, match=f"at least {min(sizes):,}, the fewest for this model, got {most:,}"):
            fold_where_cheaper(tower, COSTS[price], ParameterBudget(None, most))
        return
    found = fold_where_cheaper(tower, COSTS[price], ParameterBudget(None, most))
    assert parameters(absorb_bias(found)).total <= most
    assert found.trade is not None
    assert found.trade.limit == most
    assert found.trade.kept[0] == parameters(tower).total
    assert found.trade.chosen[0] == parameters(absorb_bias(found)).total
    assert found.trade.unlimited[0] == parameters(absorb_bias(fold_where_cheaper(tower, COSTS[price], ANY))).total


def test_a_knapsack_whose_densest_fields_do_not_fill_it_is_filled_otherwise() -> None:
    # Folding saves each field the same products, whatever its ids: with free nodes, as many fields as fit are folded.
    cost = CostModel(node_us=0.0, walk_ns=0.0, margin=0.0, growth_us=0.0, cache_bytes=1 << 30, flop_ns=1.0)
    rows = (100, 104, 108, 230, 236, 248)
    slots = tuple(FieldSlot(f"field_{n}", "candidate", n, 1, ids, 4 * (1 + n // 3)) for n, ids in enumerate(rows))
    tower = fuse_towers(random_form(slots, (24,)))
    kept = parameters(tower).total
    check_choices(tower, cost, [ParameterBudget(None, kept + more) for more in range(0, 16_000, 1000)])


@given(st.data(), st.integers(1, 5), st.integers(0, 60))
def test_the_knapsack_is_the_best_of_all_choices_and_rounding_never_breaks_its_capacity(
    data: st.DataObject, items: int, capacity: int
) -> None:
    options = st.lists(st.tuples(st.floats(0, 9), st.integers(0, 30)), min_size=1, max_size=3)
    drawn = [data.draw(options) for _ in range(items)]
    prices, sizes = ([[option[part] for option in item] for item in drawn] for part in (0, 1))
    every = [(sum(p for p, _ in way), sum(size for _, size in way)) for way in product(*drawn)]
    fitting = [price for price, size in every if size <= capacity]
    found = fill_knapsack(prices, sizes, capacity)
    coarse = fill_knapsack(prices, sizes, capacity, grains=3)
    assert (found is None) == (coarse is None) == (not fitting)
    if found is not None and coarse is not None:
        assert sum(p[option] for p, option in zip(prices, found, strict=True)) == pytest.approx(min(fitting))
        for way in (found, coarse):
            assert sum(size[option] for size, option in zip(sizes, way, strict=True)) <= capacity


def test_a_field_that_is_smaller_folded_and_no_slower_is_folded_under_any_budget() -> None:
    # 20 d + 24 d > 20 x 24 from d = 11 on.
    cost, budget = CostModel(flop_ns=0.1), ParameterBudget(1.0)
    wide, narrow = (fuse_towers(random_form(candidates((dim,) * 3, 20), (24,))) for dim in (11, 10))
    assert all(field.folded for field in fold_where_cheaper(wide, cost, budget).fields)
    assert all(field.folded for field in fold_where_cheaper(narrow, cost, ANY).fields)
    assert not all(field.folded for field in fold_where_cheaper(narrow, cost, budget).fields)


@pytest.mark.parametrize(
    ("text", "limit"), [("400", 400), ("1.5x", 150), (" 2X ", 200), ("none", None), ("0.5x", 50), ("1_000", 1000)]
)
def test_a_budget_is_a_number_a_factor_or_none(text: str, limit: int | None) -> None:
    assert parse_budget(text).limit(100) == limit


@pytest.mark.parametrize("text", ["", "x", "0", "-5", "0x", "-1x", "nanx", "infx", "1.5", "many", "1e9999x"])
def test_any_other_budget_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match=r"expected a number such as 40000, a factor such as 1\.1x, or none, got"):
        parse_budget(text)
