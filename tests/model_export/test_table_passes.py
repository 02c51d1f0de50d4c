"""Tables in float16 and int8 give the scores of the merged tower with rounded rows, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from forms import SLOTS, random_form, random_ids, served_ids, slots, widths
from hypothesis import given, settings
from hypothesis import strategies as st

from model_export.errors import GraphError
from model_export.fusion import fold_embeddings, fuse_towers, logits
from model_export.fusion.bias import fold_serving_constants
from model_export.fusion.layout import arrange, pieces
from model_export.graph import save, serialise
from model_export.latency import session
from model_export.parity import sigmoid
from model_export.passes import TABLE_PASSES, apply_passes, apply_table_pass
from model_export.passes.int8 import quantise
from model_export.to_onnx import to_onnx

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from model_export.fusion import FusedTower
    from service.bundle import ReducedPrecision
    from training.models.base import FieldSlot

PRECISIONS = sorted(TABLE_PASSES)
ALL = {slot.name for slot in SLOTS}


def merged(
    folded: Collection[str], slots: tuple[FieldSlot, ...] = SLOTS, widths: tuple[int, ...] = (12, 8)
) -> FusedTower:
    return arrange(fold_embeddings(fold_serving_constants(fuse_towers(random_form(slots, widths))), folded))


def rounded_row(row: np.ndarray, precision: str) -> np.ndarray:
    """A row as it is to be stored, one value after the other."""
    if precision == "float16":
        return np.array([float(np.float16(np.float32(value))) for value in row])
    largest = max((abs(float(np.float32(value))) for value in row), default=0.0)
    if largest == 0.0:
        return np.zeros(len(row))
    scale = np.float32(largest / 127)
    return np.array([float(np.rint(np.float32(value) / scale)) * float(scale) for value in row])


def rounded(tower: FusedTower, precision: str) -> FusedTower:
    """The tower with all rows rounded but those of look-ups that hold less than a fiftieth of all values."""
    cut = [piece for side in ("context", "candidate") for piece in pieces(tower.side(side))]
    total = sum(piece.rows * piece.dim for piece in cut)
    large = {field.name for piece in cut if piece.rows * piece.dim * 50 >= total for field in piece.fields}
    fields = [
        replace(field, table=np.array([rounded_row(row, precision) for row in field.table]))
        if field.name in large
        else field
        for field in tower.fields
    ]
    return replace(tower, fields=tuple(fields))


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=25, deadline=None)
@given(slots(), widths, st.sets(st.integers(0, 5)), st.integers(1, 20))
def test_the_graph_scores_as_the_merged_tower_does_whose_table_rows_are_rounded(
    precision: ReducedPrecision, slots: tuple[FieldSlot, ...], widths: tuple[int, ...], folded: set[int], rows: int
) -> None:
    tower = merged({f"field_{number}" for number in folded}, slots, widths)
    runner = session(serialise(apply_table_pass(apply_passes(to_onnx(tower)), precision)))
    ids = served_ids(slots, tower, random_ids(slots, rows))
    for context_ids in (ids[0], ids[0][:1]):
        found = runner.run(None, {"context_ids": context_ids, "candidate_ids": ids[1]})[0]
        expected = sigmoid(logits(rounded(tower, precision), context_ids, ids[1]))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("folded", [(), {"hour", "genres"}, ALL])
def test_the_pad_row_stays_zero_and_the_dense_layers_stay_as_they_are(
    precision: ReducedPrecision, folded: Collection[str]
) -> None:
    graph = apply_passes(to_onnx(merged(folded)))
    other = apply_table_pass(graph, precision)
    large = sum(table.size for table in graph.tables.values()) / 50
    for name, table in graph.tables.items():
        empty = ~np.asarray(table).any(axis=1)
        assert not other.tables[name][empty].any()
        assert other.tables[name].dtype == np.dtype(precision if table.size >= large else "float32")
    constants = {c.name: c.raw_data for c in other.model.graph.initializer if c.data_type == c.FLOAT}
    assert constants == {c.name: c.raw_data for c in graph.model.graph.initializer if c.data_type == c.FLOAT}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_runtime_keeps_the_tables_as_they_are_stored(precision: ReducedPrecision, tmp_path: Path) -> None:
    import onnxruntime as ort

    graph = apply_table_pass(apply_passes(to_onnx(merged({"hour", "genres"}))), precision)
    save(graph, tmp_path / "model.onnx")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(tmp_path / "model.onnx"), options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(tmp_path / "optimised.onnx")
    kept = {c.name: onnx.numpy_helper.to_array(c) for c in loaded.graph.initializer}
    for name, table in graph.tables.items():
        np.testing.assert_array_equal(kept[name], table)
    largest = max(int(np.prod(table.shape)) for name, table in graph.tables.items())
    dense = {c.name for c in graph.model.graph.initializer}
    others = [c for name, c in kept.items() if name not in graph.tables and name not in dense]
    assert all(constant.size < largest for constant in others)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_external_tables_score_the_same_as_inline_ones(precision: ReducedPrecision, tmp_path: Path) -> None:
    tower = merged({"item"})
    graph = apply_table_pass(apply_passes(to_onnx(tower)), precision)
    ids = served_ids(SLOTS, tower, random_ids(SLOTS, 64))
    scores = []
    for name, above in (("inline.onnx", 1 << 30), ("external.onnx", 0)):
        save(graph, tmp_path / name, above)
        runner = session(str(tmp_path / name))
        scores.append(runner.run(None, {"context_ids": ids[0], "candidate_ids": ids[1]})[0])
    assert (tmp_path / "external.onnx.data").is_file()
    np.testing.assert_array_equal(*scores)


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=20))
def test_a_quantised_value_is_off_by_half_a_step_of_its_row_at_most(row: list[float]) -> None:
    values = np.array([row], np.float32)
    quantised, scales = quantise(values)
    step = float(scales[0])
    off = np.abs(quantised[0].astype(np.float64) * step - values[0].astype(np.float64))
    assert (off <= step * 0.5 * (1 + 1e-5)).all()
    assert step <= max(np.abs(values).max() / 127 * (1 + 1e-6), np.finfo(np.float32).tiny) or not values.any()


def test_more_rows_than_a_chunk_are_quantised_alike() -> None:
    table = np.random.default_rng(0).standard_normal(((1 << 16) + 3, 2)).astype(np.float32)
    values, scales = quantise(table)
    for row in (0, (1 << 16) - 1, 1 << 16, (1 << 16) + 2):
        one_value, one_scale = quantise(table[row : row + 1])
        np.testing.assert_array_equal(values[row], one_value[0])
        assert scales[row] == one_scale[0]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_table_that_is_a_small_part_of_all_stays_in_float32_and_is_looked_up_as_before(
    precision: ReducedPrecision,
) -> None:
    tower, draw = merged(()), np.random.default_rng(0)
    fields = [
        replace(field, table=draw.normal(size=(500 * field.rows, field.dim))) if field.name == "item" else field
        for field in tower.fields
    ]
    graph = apply_passes(to_onnx(replace(tower, fields=tuple(fields))))
    other = apply_table_pass(graph, precision)
    assert len(graph.tables) > 2
    dtypes = {table.dtype.name: table.size for name, table in other.tables.items() if not name.endswith("_scale")}
    assert set(dtypes) == {"float32", precision}
    small = [name for name, table in other.tables.items() if table.dtype == np.float32 and not name.endswith("_scale")]
    reads = [[n.op_type for n in g.model.graph.node if small[0] in n.input] for g in (graph, other)]
    assert reads == [["Gather"], ["Gather"]]
    for name in small:
        np.testing.assert_array_equal(other.tables[name], graph.tables[name])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_table_that_something_else_reads_is_refused(precision: ReducedPrecision) -> None:
    graph = to_onnx(merged({"item"}))
    name = max(graph.tables, key=lambda name: graph.tables[name].size)
    graph.model.graph.node.append(onnx.helper.make_node("ReduceSum", [name], ["total"]))
    with pytest.raises(GraphError, match=f"table '{name}': expected a Gather over its rows to read it, got ReduceSum"):
        apply_table_pass(graph, precision)
