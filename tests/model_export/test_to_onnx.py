"""The graph computes what the merged tower computes, whatever its fields, rows and sides."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from forms import SLOTS, form_logits, random_form, random_ids, random_pair, served_ids, slots, widths
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from model_export.errors import GraphError
from model_export.facts import check_cost, graph_parameters, tower_flops
from model_export.fusion import (
    CostModel,
    FusionFacts,
    ParameterBudget,
    dense_flops,
    fold_embeddings,
    fuse,
    fuse_towers,
    logits,
)
from model_export.fusion.bias import absorb_bias, fold_serving_constants
from model_export.fusion.counts import parameters
from model_export.fusion.layout import arrange
from model_export.graph import ALIGNMENT, save, serialise
from model_export.graph import dense_flops as graph_flops
from model_export.latency import interleaved_medians, session
from model_export.parity import sigmoid
from model_export.passes import PASSES, apply_passes, apply_table_pass
from model_export.passes.check import check
from model_export.passes.clean import clean
from model_export.to_onnx import to_onnx
from model_export.unfused import unfused_form, unfused_pair

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from forms import Ids

    from model_export.fusion import FusedTower
    from training.models.base import FieldSlot

IDS = random_ids(SLOTS, 64)
ALL = {slot.name for slot in SLOTS}


def merged(
    folded: Collection[str] = (),
    widths: tuple[int, ...] = (12, 8),
    slots: tuple[FieldSlot, ...] = SLOTS,
    seed: int = 0,
) -> FusedTower:
    tower = fold_serving_constants(fuse_towers(random_form(slots, widths, seed)))
    return arrange(fold_embeddings(tower, folded))


def run(runner: ort.InferenceSession, ids: tuple[Ids, Ids]) -> np.ndarray:
    return runner.run(None, {"context_ids": ids[0], "candidate_ids": ids[1]})[0]


@settings(max_examples=50, deadline=None)
@given(slots(), widths, st.sets(st.integers(0, 5)), st.integers(1, 40), st.integers(0, 1000))
def test_onnx_runtime_equals_the_merged_tower_for_any_fields_folding_and_rows(
    slots: tuple[FieldSlot, ...], widths: tuple[int, ...], folded: set[int], rows: int, seed: int
) -> None:
    tower = merged({f"field_{number}" for number in folded}, widths, slots, seed)
    ids = served_ids(slots, tower, random_ids(slots, rows, seed))
    runner = session(serialise(apply_passes(to_onnx(tower))))
    expected = sigmoid(logits(tower, *ids))
    found = run(runner, ids)
    assert found.dtype == np.float32
    assert found.shape == (rows,)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    one = (ids[0][:1], ids[1])
    np.testing.assert_allclose(run(runner, one), sigmoid(logits(tower, *one)), rtol=0, atol=1e-6)


PRICES = {
    "default": CostModel(),
    "nodes only": CostModel(node_us=50.0, flop_ns=1e-6, weight_ns=0.0),
    "dear products": CostModel(flop_ns=10.0),
    "dear growth": CostModel(growth_us=1e6),
}


@settings(max_examples=50, deadline=None)
@given(slots(), widths, st.sampled_from(sorted(PRICES)), st.integers(1, 20), st.integers(0, 1000))
def test_onnx_runtime_equals_the_fusion_form_after_every_rule_whatever_the_prices(
    slots: tuple[FieldSlot, ...], widths: tuple[int, ...], prices: str, rows: int, seed: int
) -> None:
    slots = tuple(replace(slot, serving_constant_id=None) for slot in slots)
    form = random_form(slots, widths, seed)
    tower = fuse(fuse_towers(form), FusionFacts(cost=PRICES[prices]))
    ids = random_ids(slots, rows, seed)
    graph = apply_passes(to_onnx(tower))
    check_cost(graph, form)
    found = run(session(serialise(graph)), served_ids(slots, tower, ids))
    np.testing.assert_allclose(found, sigmoid(form_logits(form, ids)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("folded", [(), {"hour", "genres"}, ALL])
def test_the_graph_before_the_passes_equals_the_standards_reference_implementation(folded: Collection[str]) -> None:
    tower = merged(folded)
    ids = served_ids(SLOTS, tower, IDS)
    evaluator = ReferenceEvaluator(onnx.load_from_string(serialise(to_onnx(tower))))
    found = evaluator.run(None, {"context_ids": ids[0], "candidate_ids": ids[1]})[0]
    np.testing.assert_allclose(found, sigmoid(logits(tower, *ids)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("folded", [(), {"hour", "genres"}, ALL])
def test_one_context_row_gives_the_very_scores_of_the_same_row_repeated(folded: Collection[str]) -> None:
    tower = merged(folded)
    context_ids, candidate_ids = served_ids(SLOTS, tower, IDS)
    runner = session(serialise(apply_passes(to_onnx(tower))))
    repeated = np.repeat(context_ids[:1], len(candidate_ids), axis=0)
    shared, alike = run(runner, (context_ids[:1], candidate_ids)), run(runner, (repeated, candidate_ids))
    np.testing.assert_allclose(shared, alike, rtol=0, atol=2e-7)


@pytest.mark.parametrize("folded", [(), {"hour", "genres"}, ALL])
def test_what_depends_on_the_context_alone_is_computed_for_one_row_whatever_the_number_of_candidates(
    folded: Collection[str],
) -> None:
    tower = arrange(absorb_bias(merged(folded)))
    graph = apply_passes(to_onnx(tower))
    shared, every = {"context_ids"}, {"candidate_ids"}
    model = onnx.load_from_string(serialise(graph))
    for node in model.graph.node:
        (every if every & set(node.input) else shared).update(node.output)
    for name in sorted((shared | every) - {"context_ids", "candidate_ids", "pctr"}):
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    runner = session(model.SerializeToString())
    context_ids, candidate_ids = served_ids(SLOTS, tower, IDS)
    names = [node.name for node in runner.get_outputs()]
    found = runner.run(names, {"context_ids": context_ids[:1], "candidate_ids": candidate_ids})
    rows = {name: len(value) for name, value in zip(names, found, strict=True)}
    assert {rows[name] for name in shared & set(names)} == {1}
    assert {rows[name] for name in every & set(names)} == {len(candidate_ids)}


@pytest.mark.parametrize("folded", [(), ALL])
@pytest.mark.parametrize("gone", [{"context"}, {"candidate"}, {"context", "candidate"}])
def test_a_side_without_columns_still_exports(gone: Collection[str], folded: Collection[str]) -> None:
    tower = merged(folded)
    tower = replace(tower, fields=tuple(field for field in tower.fields if field.side not in gone))
    runner = session(serialise(apply_passes(to_onnx(tower))))
    context_ids, candidate_ids = served_ids(SLOTS, tower, IDS)
    assert [node.shape[1] for node in runner.get_inputs()] == [context_ids.shape[1], candidate_ids.shape[1]]
    expected = sigmoid(logits(tower, context_ids, candidate_ids))
    np.testing.assert_allclose(run(runner, (context_ids, candidate_ids)), expected, rtol=0, atol=1e-6)
    expected = sigmoid(logits(tower, context_ids[:1], candidate_ids))
    np.testing.assert_allclose(run(runner, (context_ids[:1], candidate_ids)), expected, rtol=0, atol=1e-6)


def test_every_id_of_every_field_reads_its_own_row() -> None:
    tower = merged({"item"})
    runner = session(serialise(apply_passes(to_onnx(tower))))
    base = tuple(np.zeros((1, tower.columns(side)), np.int32) for side in ("context", "candidate"))
    for field in tower.fields:
        side = ("context", "candidate").index(field.side)
        for row in (0, field.rows - 1):
            ids = tuple(own.copy() for own in base)
            ids[side][0, field.first : field.first + field.width] = row
            np.testing.assert_allclose(run(runner, ids), sigmoid(logits(tower, *ids)), rtol=0, atol=1e-6)


def test_an_id_past_the_last_table_is_an_error_and_no_score() -> None:
    tower = merged()
    runner = session(serialise(apply_passes(to_onnx(tower))))
    ids = tuple(np.full((1, tower.columns(side)), 10_000, np.int32) for side in ("context", "candidate"))
    with pytest.raises(Exception, match="out of data bounds"):
        run(runner, ids)


def test_big_tables_are_written_beside_the_model_page_aligned_and_score_the_same(tmp_path: Path) -> None:
    tower = merged({"item"})
    graph = apply_passes(to_onnx(tower))
    save(graph, tmp_path / "inline.onnx")
    save(graph, tmp_path / "model.onnx", external_above=0)
    assert not (tmp_path / "inline.onnx.data").exists()
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    facts = [{e.key: e.value for e in t.external_data} for t in model.graph.initializer if t.external_data]
    assert len(facts) == len(graph.tables)
    assert {fact["location"] for fact in facts} == {"model.onnx.data"}
    assert all(int(fact["offset"]) % ALIGNMENT == 0 for fact in facts)
    last = max(facts, key=lambda fact: int(fact["offset"]))
    assert (tmp_path / "model.onnx.data").stat().st_size == int(last["offset"]) + int(last["length"])
    ids = served_ids(SLOTS, tower, IDS)
    expected = run(session(str(tmp_path / "inline.onnx")), ids)
    np.testing.assert_array_equal(run(session(str(tmp_path / "model.onnx")), ids), expected)


def test_the_same_tower_gives_the_same_bytes() -> None:
    first, second = (serialise(apply_passes(to_onnx(merged({"item"})))) for _ in range(2))
    assert first == second
    model = onnx.load_from_string(first)
    assert (model.producer_name, model.producer_version, model.doc_string) == ("reaction", "", "")


def test_cleaning_shares_equal_constants_drops_unused_ones_and_says_nothing_of_who_or_when() -> None:
    graph = to_onnx(merged())
    marked = onnx.ModelProto()
    marked.CopyFrom(graph.model)
    marked.producer_version = marked.doc_string = "today"
    marked.metadata_props.add(key="when", value="today")
    marked.graph.node[0].doc_string = "today"
    marked.opset_import.add(domain="unused", version=1)
    unused = marked.graph.initializer.add()
    unused.CopyFrom(marked.graph.initializer[0])
    unused.name = "unused"
    unused.raw_data = b"\0" * len(unused.raw_data)
    cleaned = clean(graph.with_model(marked))
    assert cleaned.model == clean(graph).model
    content = [constant.raw_data for constant in cleaned.model.graph.initializer]
    assert b"today" not in cleaned.model.SerializeToString()
    assert len(content) < len(graph.model.graph.initializer)
    assert {node.name for node in cleaned.model.graph.node}.isdisjoint({""})
    ids = served_ids(SLOTS, merged(), IDS)
    np.testing.assert_array_equal(run(session(serialise(cleaned)), ids), run(session(serialise(graph)), ids))


def test_passes_leave_only_operators_that_any_cpu_runs() -> None:
    graph = apply_passes(to_onnx(merged({"item"})))
    assert {node.domain for node in graph.model.graph.node} <= {"", "com.microsoft"}
    assert {node.op_type for node in graph.model.graph.node if node.domain} <= {"FusedGemm"}
    assert [opset.domain for opset in graph.model.opset_import] == ["", "com.microsoft"]


def test_passes_change_no_graph_in_place() -> None:
    graph = to_onnx(merged())
    before = graph.model.SerializeToString(deterministic=True)
    for transform in PASSES.values():
        transform(graph)
    assert graph.model.SerializeToString(deterministic=True) == before


def test_the_checker_refuses_machine_bound_operators_other_names_and_broken_graphs() -> None:
    graph = to_onnx(merged())
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(graph.model)
    spoiled.graph.node[0].domain = "com.microsoft.nchwc"
    spoiled.opset_import.add(domain="com.microsoft.nchwc", version=1)
    with pytest.raises(GraphError, match="expected an operator that any CPU runs"):
        check(graph.with_model(spoiled))
    spoiled.CopyFrom(graph.model)
    spoiled.graph.node[-1].output[0] = spoiled.graph.output[0].name = "score"
    with pytest.raises(GraphError, match=r"outputs \['pctr'\], got .*\['score'\]"):
        check(graph.with_model(spoiled))
    spoiled.CopyFrom(graph.model)
    del spoiled.graph.node[2]
    with pytest.raises(GraphError, match="not valid ONNX"):
        check(graph.with_model(spoiled))


def test_a_tower_whose_fields_are_not_arranged_is_refused() -> None:
    with pytest.raises(GraphError, match="call arrange first"):
        to_onnx(fuse_towers(random_form()))


def test_the_graph_costs_no_more_than_one_tower_and_a_wider_one_is_refused() -> None:
    form = random_form()
    graph = apply_passes(to_onnx(fuse(fuse_towers(form), FusionFacts())))
    check_cost(graph, form)
    assert graph_flops(graph) <= tower_flops(form)
    kept = arrange(fuse_towers(form))
    assert graph_flops(apply_passes(to_onnx(kept))) == dense_flops(kept) == tower_flops(form)
    narrower = random_form(widths=(11, 8))
    with pytest.raises(GraphError, match=r"expected at most the \d+ dense FLOPs a row of one tower, got"):
        check_cost(to_onnx(kept), narrower)


@settings(max_examples=12, deadline=None)
@given(slots(), widths, st.sampled_from(list(PRICES)), st.floats(1.0, 3.0))
def test_parameters_are_counted_as_they_are_stored(
    slots: tuple[FieldSlot, ...], widths: tuple[int, ...], prices: str, factor: float
) -> None:
    tower = fuse(fuse_towers(random_form(slots, widths)), FusionFacts(1.0, PRICES[prices], ParameterBudget(factor)))
    assume(tower.side("context") and tower.side("candidate"))
    graph = apply_passes(to_onnx(tower))
    found = graph_parameters(graph)
    assert found == parameters(tower)
    assert found.embedding == sum(field.table.size for field in tower.fields)
    dense = sum(field.projection.size for field in tower.fields if field.projection is not None)
    dense += sum(layer.weight.size + layer.bias.size for layer in (*tower.layers, tower.output))
    dense += 0 if tower.quadratic is None else tower.quadratic.size
    assert found.dense == dense + tower.bias.size * bool(tower.bias.any())
    assert found.bytes == 4 * found.total
    int8 = graph_parameters(apply_table_pass(graph, "int8"))
    assert (int8.embedding, int8.dense) == (found.embedding, found.dense)
    assert graph_parameters(apply_table_pass(graph, "float16")).bytes <= found.bytes


@settings(max_examples=20, deadline=None)
@given(slots(), widths, st.integers(0, 100))
def test_the_unmerged_graphs_that_are_timed_equal_their_torch_models(
    slots: tuple[FieldSlot, ...], widths: tuple[int, ...], seed: int
) -> None:
    ids = random_ids(slots, 16, seed)
    columns = {"context": ids[0].shape[1], "candidate": ids[1].shape[1]}
    form, pair = random_form(slots, widths, seed), random_pair(slots, widths, seed)
    found = run(session(serialise(unfused_form(form, columns))), ids)
    np.testing.assert_allclose(found, sigmoid(form_logits(form, ids)), rtol=0, atol=1e-6)
    one = (ids[0][:1], ids[1])
    with torch.no_grad():
        expected = torch.sigmoid(pair(*(torch.from_numpy(side) for side in one))).numpy()
    found = run(session(serialise(unfused_pair(pair, columns))), one)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=0, atol=1e-6)


def test_timing_takes_turns_and_reports_microseconds() -> None:
    tower = merged()
    runner = session(serialise(apply_passes(to_onnx(tower))))
    ids = served_ids(SLOTS, tower, IDS)
    feed = {"context_ids": ids[0], "candidate_ids": ids[1]}
    times = interleaved_medians({"a": (runner, [feed]), "b": (runner, [feed, feed])}, seconds=0.05)
    assert set(times) == {"a", "b"}
    assert all(1.0 < time < 1e6 for time in times.values())


def test_the_exported_opset_is_read_by_the_oldest_runtime_that_is_allowed() -> None:
    graph = apply_passes(to_onnx(merged()))
    assert {opset.domain: opset.version for opset in graph.model.opset_import}[""] == 17
    assert graph.model.ir_version <= 8
    assert ort.__version__ >= "1.20"
