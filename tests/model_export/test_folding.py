"""Folding projections into tables: changes no score, and is chosen by price."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from forms import SLOTS, random_form, random_ids, slots
from hypothesis import given, settings
from hypothesis import strategies as st

from model_export.fusion import CostModel, choose_folding, fold_embeddings, fuse_towers, logits
from model_export.fusion.cost import CostModelError, count, read_cost_model, write_cost_model
from model_export.fusion.embedding import fold, fold_where_cheaper
from model_export.fusion.layout import arrange, pieces
from model_export.measure import Sample, fit, random_tower
from training.models.base import FieldSlot

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

IDS = random_ids(SLOTS, 200)


def candidates(dims: tuple[int, ...], rows: int = 50) -> tuple[FieldSlot, ...]:
    """Fields of one column each on the candidate side."""
    return tuple(FieldSlot(f"field_{n}", "candidate", n, 1, rows, dim) for n, dim in enumerate(dims))


@settings(max_examples=40, deadline=None)
@given(slots(), st.sets(st.integers(0, 5)), st.integers(0, 100))
def test_folding_any_fields_keeps_every_logit(slots: tuple[FieldSlot, ...], which: set[int], seed: int) -> None:
    tower = fuse_towers(random_form(slots, (6, 3), seed))
    ids = random_ids(slots, 32, seed)
    folded = fold_embeddings(tower, {f"field_{number}" for number in which})
    assert {field.name for field in folded.fields if field.folded} == {
        slot.name for number, slot in enumerate(slots) if number in which
    }
    np.testing.assert_allclose(logits(folded, *ids), logits(tower, *ids), rtol=1e-9, atol=1e-9)


def test_a_folded_table_keeps_its_pad_row_at_zero() -> None:
    tags = fuse_towers(random_form()).fields[1]
    assert tags.pad_id is not None
    assert not fold(tags).table[tags.pad_id].any()
    assert fold(tags).table.any(axis=1).sum() == tags.rows - 1


def test_rearranging_fields_renumbers_their_columns_without_gaps_or_loss() -> None:
    tower = arrange(fold_embeddings(fuse_towers(random_form()), {"hour", "genres"}))
    for side in ("context", "candidate"):
        first = 0
        for field in tower.side(side):
            assert field.first == first
            first += field.width
    assert {field.name for field in tower.fields} == {slot.name for slot in SLOTS}
    assert arrange(tower) == tower or arrange(tower).fields == tower.fields


@pytest.mark.parametrize("dims", [(2, 2, 4, 8, 32), (16, 16, 16), (40, 4, 4, 40), (1,), (3, 5, 7, 11)])
@pytest.mark.parametrize(
    "cost",
    [CostModel(), CostModel(flop_ns=0.1), CostModel(miss_ns=1.0), CostModel(node_us=20.0), CostModel(growth_us=0)],
)
def test_the_choice_is_the_cheapest_of_all_subsets_if_it_saves_a_tenth_of_keeping_all(
    dims: tuple[int, ...], cost: CostModel
) -> None:
    tower = fuse_towers(random_form(candidates(dims), (24,)))
    names = [field.name for field in tower.fields]

    def price(folded: Collection[str]) -> float:
        counts = count(fold_embeddings(tower, folded).fields, tower.width)
        return cost.price(counts, count(tower.fields, tower.width), cost.candidate_rows)

    subsets = [set(subset) for size in range(len(names) + 1) for subset in combinations(names, size)]
    chosen = {choice.name for choice in choose_folding(tower, cost) if choice.folded}
    cheapest = min(map(price, subsets))
    expected = cheapest if cheapest <= 0.9 * price(()) else price(())
    assert price(chosen) == pytest.approx(expected)


def test_a_table_that_is_much_wider_than_the_layer_is_folded_and_shrinks() -> None:
    tower = fold_where_cheaper(fuse_towers(random_form(candidates((64, 64)), (8,))), CostModel())
    assert [field.folded for field in tower.fields] == [True, True]
    assert {field.dim for field in tower.fields} == {8}


def test_no_table_is_folded_past_the_limit_and_the_reason_is_kept() -> None:
    dear_products = CostModel(flop_ns=10.0, largest_folded_bytes=50 * 24 * 4 - 1)
    tower = fold_where_cheaper(fuse_towers(random_form(candidates((4, 4)), (24,))), dear_products)
    assert [field.folded for field in tower.fields] == [False, False]
    assert [choice.folded_us for choice in tower.folding] == [float("inf")] * 2
    allowed = replace(dear_products, largest_folded_bytes=50 * 24 * 4)
    assert all(choice.folded for choice in choose_folding(tower, allowed))


def test_a_large_table_is_not_folded_for_the_little_that_it_saves() -> None:
    cost = CostModel(flop_ns=0.03, miss_ns=0.0)
    small, large = (fuse_towers(random_form(candidates((8,) * 8, rows), (24,))) for rows in (50, 5000))
    assert all(choice.folded for choice in choose_folding(small, cost))
    assert not any(choice.folded for choice in choose_folding(large, cost))
    assert all(choice.folded for choice in choose_folding(large, replace(cost, growth_us=0.0)))


def test_the_counts_are_what_the_look_ups_do() -> None:
    tower = fuse_towers(random_form(candidates((4, 4, 8)), (24,)))
    kept = count(tower.fields, 24)
    assert (kept.lookups, kept.read, kept.summed, kept.flops, kept.table) == (3, 64, 0, 2 * 24 * 16, 50 * 64)
    folded = count(fold_embeddings(tower, {"field_0", "field_1", "field_2"}).fields, 24)
    assert (folded.lookups, folded.read, folded.summed, folded.add, folded.flops) == (3, 3 * 96, 3, 3 * 96, 0)
    assert [piece.kind for piece in pieces(tower.fields)] == ["stack", "stack"]


def test_prices_are_written_and_read_back_and_a_wrong_key_or_value_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    write_cost_model(file, CostModel(node_us=1.5))
    assert read_cost_model(file) == CostModel(node_us=1.5)
    file.write_text('{"flop_ns": 0.5}')
    assert read_cost_model(file) == CostModel(flop_ns=0.5)
    for text, message in (
        ('{"flops_ns": 0.5}', r"cost\.json: flops_ns: .*, got 0.5"),
        ('{"flop_ns": -1}', r"cost\.json: flop_ns: .*, got -1"),
        ('{"cache_bytes": "big"}', r"cost\.json: cache_bytes: .*, got 'big'"),
        ("{", r"cost\.json: : Invalid JSON"),
    ):
        file.write_text(text)
        with pytest.raises(CostModelError, match=message):
            read_cost_model(file)
    with pytest.raises(CostModelError, match=r"absent\.json: expected a file of prices, got No such file"):
        read_cost_model(tmp_path / "absent.json")


def test_fitting_recovers_the_prices_that_made_the_times() -> None:
    truth = CostModel(node_us=0.5, lookup_ns=7.0, read_ns=0.02, miss_ns=0.1, sum_ns=3.0, add_ns=0.03, flop_ns=0.01)
    generator = np.random.default_rng(0)
    samples = []
    sizes = product((2, 20), ((20, (4,)), (4000, (8,)), (300, (2, 4, 16)), (1500, (32,))), (16, 64))
    for fields, (ids, dims), width in sizes:
        tower = random_tower(fields, ids, dims, width, generator)
        for folded in ((), {field.name for field in tower.fields}):
            counts = count(fold_embeddings(tower, folded).fields, width)
            for rows in (1, 1000):
                own = 5.0 + 0.02 * rows  # a call's and a row's own cost, which no price stands for
                samples.append(Sample(counts, rows, truth.microseconds(counts, rows) + own))
    found, error = fit(samples)
    assert error < 1e-2
    for name in ("node_us", "lookup_ns", "miss_ns", "sum_ns", "add_ns", "flop_ns"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.05)
    assert found.cache_bytes == truth.cache_bytes
