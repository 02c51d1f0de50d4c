"""Folding projections into tables: changes no score, and is chosen by price."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from forms import SLOTS, random_form, random_ids, slots, widths
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from model_export.fusion import (
    CostModel,
    ParameterBudget,
    choose_folding,
    dense_flops,
    fold_embeddings,
    fuse_towers,
    logits,
)
from model_export.fusion.bias import absorb_bias, fold_serving_constants
from model_export.fusion.cost import PRICES, CostModelError, read_cost_model, write_cost_model
from model_export.fusion.counts import count, count_call
from model_export.fusion.embedding import fold, fold_all, fold_where_cheaper, pad
from model_export.fusion.layout import arrange, pieces
from model_export.measure import Sample, fit, random_tower, ways
from model_export.passes import apply_passes
from model_export.to_onnx import to_onnx
from training.models.base import FieldSlot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from model_export.fusion import FusedTower

IDS = random_ids(SLOTS, 200)
ANY = ParameterBudget(None)


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


def sided(dims: tuple[int, ...]) -> tuple[FieldSlot, ...]:
    """Fields of one column each on both sides in turns, with more and more ids."""
    sides = ("candidate", "context")
    return tuple(FieldSlot(f"field_{n}", sides[n % 2], n // 2, 1, 20 + 30 * n, dim) for n, dim in enumerate(dims))


def test_padding_is_paid_for_by_folding_and_never_makes_more_products_than_the_tower_came_with() -> None:
    few_nodes = CostModel(node_us=5.0, many_weight=0.0, few_rows=1)
    alone = fuse_towers(random_form(candidates((2, 4, 8, 2, 4, 8)), (24,)))
    assert dense_flops(fold_where_cheaper(alone, few_nodes, ANY)) <= dense_flops(alone)
    both = fuse_towers(random_form(sided((2, 2, 4, 4, 8, 8, 4, 4)), (24,)))
    served = fold_where_cheaper(both, replace(few_nodes, flop_ns=1e-6), ANY)
    assert [field.folded for field in served.side("context")] == [True] * 4
    assert {field.dim for field in served.side("candidate")} == {8}
    assert {choice.served_dim for choice in served.folding if not choice.folded} == {8}
    assert dense_flops(served) <= dense_flops(both)


@settings(max_examples=40, deadline=None)
@given(slots(), st.integers(1, 16), st.integers(0, 100))
def test_padding_any_fields_keeps_every_logit_to_the_bit(slots: tuple[FieldSlot, ...], dim: int, seed: int) -> None:
    tower = fuse_towers(random_form(slots, (6, 3), seed))
    padded = replace(tower, fields=tuple(pad(field, dim) for field in tower.fields))
    for field, own in zip(padded.fields, tower.fields, strict=True):
        assert field.dim == max(dim, own.dim)
        assert not field.table[:, own.dim :].any()  # a table's scales must not see the padding either
        assert field.projection is not None
        assert not field.projection[own.dim :].any()
    ids = random_ids(slots, 32, seed)
    np.testing.assert_allclose(logits(padded, *ids), logits(tower, *ids), rtol=1e-14, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(slots(), st.sets(st.integers(0, 5)), st.integers(0, 100))
def test_a_folded_table_takes_the_bias_in_where_every_row_reads_it_once(
    slots: tuple[FieldSlot, ...], which: set[int], seed: int
) -> None:
    tower = fold_embeddings(fuse_towers(random_form(slots, (6, 3), seed)), {f"field_{number}" for number in which})
    absorbed = absorb_bias(tower)
    side = "context" if tower.side("context") else "candidate"
    fitting = [field.name for field in tower.side(side) if field.folded and field.pad_id is None]
    assert np.any(absorbed.bias) == (not fitting)
    ids = random_ids(slots, 32, seed)
    np.testing.assert_allclose(logits(absorbed, *ids), logits(tower, *ids), rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(slots(), st.sets(st.integers(0, 5)), st.booleans(), widths)
def test_the_nodes_that_are_priced_are_the_nodes_of_the_graph(
    slots: tuple[FieldSlot, ...], which: set[int], absorbed: bool, widths: tuple[int, ...]
) -> None:
    tower = fold_embeddings(fuse_towers(random_form(slots, widths)), {f"field_{number}" for number in which})
    tower = fold_serving_constants(tower)
    assume(tower.side("context") and tower.side("candidate"))
    tower = arrange(absorb_bias(tower))
    nodes = apply_passes(to_onnx(tower)).model.graph.node
    assert sum(counts.nodes for counts, _ in count_call(tower, 1)) == len(nodes)


def test_a_table_that_is_much_wider_than_the_layer_is_folded_and_shrinks() -> None:
    tower = fold_where_cheaper(fuse_towers(random_form(candidates((256, 256)), (8,))), CostModel())
    assert [field.folded for field in tower.fields] == [True, True]
    assert {field.dim for field in tower.fields} == {8}


def test_no_table_is_folded_or_padded_past_the_limit_and_the_reason_is_kept() -> None:
    dear_products = CostModel(flop_ns=10.0, largest_folded_bytes=50 * 24 * 4 - 1)
    tower = fold_where_cheaper(fuse_towers(random_form(candidates((4, 4)), (24,))), dear_products, ANY)
    assert [field.folded for field in tower.fields] == [False, False]
    assert [choice.folded_us for choice in tower.folding] == [float("inf")] * 2
    assert [choice.padded_us for choice in tower.folding] == [float("inf")] * 2
    allowed = replace(dear_products, largest_folded_bytes=50 * 24 * 4)
    assert all(choice.folded for choice in choose_folding(tower, allowed, ANY)[0])
    assert {field.dim for field in fold_all(tower, allowed).fields} == {24}
    assert {field.dim for field in fold_all(tower, dear_products).fields} == {4}
    wide = fuse_towers(random_form(sided((8, 8, 2, 2)), (24,)))
    no_nodes = CostModel(node_us=50.0, largest_folded_bytes=170 * 4)
    assert {choice.served_dim for choice in choose_folding(wide, no_nodes, ANY)[0]} == {2, 8}


def test_a_large_table_is_not_folded_for_the_little_that_it_saves() -> None:
    cost = CostModel(flop_ns=0.1, miss_ns=0.0, line_ns=0.0, growth_us=20.0)
    small, large = (fuse_towers(random_form(candidates((8,) * 8, rows), (24,))) for rows in (50, 5000))
    assert all(choice.folded for choice in choose_folding(small, cost, ANY)[0])
    assert not any(choice.folded for choice in choose_folding(large, cost, ANY)[0])
    assert all(choice.folded for choice in choose_folding(large, replace(cost, growth_us=0.0), ANY)[0])


def test_the_counts_are_what_the_look_ups_do() -> None:
    tower = fuse_towers(random_form(candidates((4, 4, 8)), (24,)))
    kept = count(tower, "candidate")
    assert (kept.lookups, kept.summed, kept.flops) == (3, 0, 2 * 24 * 16)
    assert (kept.add, kept.table) == (2 * 96 + 64, 50 * 64)  # the sum, and a ReLU of its own
    assert kept.gathers == ((1, 1, 50 * 16), (1, 1, 50 * 16), (1, 1, 50 * 32))
    folded = count(fold_embeddings(tower, {"field_0", "field_1", "field_2"}), "candidate")
    assert (folded.lookups, folded.summed, folded.flops) == (3, 3, 0)
    assert (folded.add, folded.table) == (3 * 96 + 2 * 96, 50 * 3 * 96)
    assert folded.gathers == ((1, 2, 50 * 96),) * 3
    assert [piece.kind for piece in pieces(tower.fields)] == ["stack", "stack"]


@pytest.mark.parametrize("way", [lambda tower: tower, lambda tower: fold_embeddings(tower, {"field_1", "field_3"})])
def test_the_context_is_looked_up_once_whatever_the_number_of_candidates(
    way: Callable[[FusedTower], FusedTower],
) -> None:
    tower = way(fuse_towers(random_form(sided((4, 4, 8, 8)), (24,))))
    wider = replace(tower, fields=(*tower.fields, *(replace(field, name="more") for field in tower.side("context"))))
    for parts in (count_call(wider, 1000), count_call(wider, 1)):
        assert parts[0] == (count(wider, "context"), 1)
    cost = CostModel()
    added = [cost.call(wider, rows) - cost.call(tower, rows) for rows in (1, 1000)]
    assert added[0] == pytest.approx(added[1])
    steps = np.diff([cost.call(tower, rows) for rows in (1, 101, 201, 301)])
    np.testing.assert_allclose(steps, steps[0])


def test_a_choice_weighs_two_requests_and_the_context_is_one_row_of_both() -> None:
    tower = fuse_towers(random_form(sided((4, 4, 8, 8)), (24,)))
    cost = CostModel(few_rows=3, many_rows=500, many_weight=0.5)
    context, candidate = (count(tower, side) for side in ("context", "candidate"))
    assert cost.weighed(context, "context") == pytest.approx(cost.microseconds(context, 1))
    expected = (cost.microseconds(candidate, 3) + 0.5 * cost.microseconds(candidate, 500)) / 1.5
    assert cost.weighed(candidate, "candidate") == pytest.approx(expected)
    grown = replace(candidate, table=candidate.table + (3 << 20))
    own = CostModel(growth_us=7.0)
    assert own.price(grown, candidate, "candidate") == pytest.approx(own.weighed(candidate, "candidate") + 21.0)


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
    truth = CostModel(
        call_us=3.0, node_us=0.5, weight_ns=0.03, lookup_ns=7.0, miss_ns=2.0, line_ns=1.0, sum_ns=3.0, walk_ns=4.0,
        add_ns=0.03, flop_ns=0.01, cache_bytes=1 << 18,
    )  # fmt: skip
    generator = np.random.default_rng(0)
    samples = []
    sizes = product(((2, 3), (0, 20)), ((20, (4,)), (4000, (8,)), (300, (2, 4, 16)), (1500, (32,))), ((16,), (64, 8)))
    for fields, (ids, dims), hidden in sizes:
        for tower in ways(random_tower(fields, ids, dims, hidden, generator)).values():
            samples += [Sample(tuple(count_call(tower, n)), n, truth.call(tower, n)) for n in (1, 1000)]
    found, errors = fit(samples)
    assert max(errors.values()) < 1e-2
    for name in PRICES:
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.05), name
    assert found.cache_bytes == truth.cache_bytes
