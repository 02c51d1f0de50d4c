"""Equal rows of tables are stored once, and no score changes by a bit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from forms import SLOTS, random_form, random_ids, served_ids, slots, widths
from hypothesis import given, settings
from hypothesis import strategies as st

from model_export.facts import graph_parameters
from model_export.fusion import fold_embeddings, fuse_towers
from model_export.fusion.bias import fold_serving_constants
from model_export.fusion.layout import arrange
from model_export.graph import save, serialise
from model_export.latency import session
from model_export.passes import TABLE_PASSES, apply_passes, apply_table_pass
from model_export.passes.check import check
from model_export.passes.clean import clean
from model_export.passes.optimise import optimise
from model_export.passes.share_rows import WORTH, distinct
from model_export.to_onnx import to_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.fusion import FusedTower
    from model_export.graph import Graph
    from training.models.base import FieldSlot


def repeating(tower: FusedTower, kinds: int, seed: int) -> FusedTower:
    """The tower with tables of few different rows; a pad's stays its own."""
    draw = np.random.default_rng(seed)
    fields = []
    for field in tower.fields:
        rows = draw.integers(0, min(kinds, field.rows), field.rows)
        if field.pad_id is not None:
            rows[field.pad_id] = field.pad_id
        fields.append(replace(field, table=field.table[rows]))
    return replace(tower, fields=tuple(fields))


def merged(
    slots: tuple[FieldSlot, ...], widths: tuple[int, ...], folded: set[str], kinds: int, seed: int
) -> FusedTower:
    plain = fold_serving_constants(fuse_towers(random_form(slots, widths)))
    return arrange(fold_embeddings(repeating(plain, kinds, seed), folded))


def scores(graph: Graph, ids: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return session(serialise(graph)).run(None, {"context_ids": ids[0], "candidate_ids": ids[1]})[0]


@settings(max_examples=20, deadline=None)
@given(slots(), widths, st.sets(st.integers(0, 5)), st.integers(1, 6), st.integers(0, 99))
def test_a_graph_that_stores_equal_rows_once_scores_the_same_bit_by_bit(
    slots: tuple[FieldSlot, ...], widths: tuple[int, ...], folded: set[int], kinds: int, seed: int
) -> None:
    tower = merged(slots, widths, {f"field_{number}" for number in folded}, kinds, seed)
    plain, shared = check(clean(optimise(to_onnx(tower)))), apply_passes(to_onnx(tower))
    ids = served_ids(slots, tower, random_ids(slots, 30))
    for context_ids in (ids[0], ids[0][:1]):
        assert np.array_equal(scores(plain, (context_ids, ids[1])), scores(shared, (context_ids, ids[1])))
    tables = {name: table for name, table in shared.tables.items() if table.ndim > 1}
    assert sum(table.size for table in tables.values()) == graph_parameters(shared).embedding
    for name, table in plain.tables.items():
        # By hand: how many different rows there are, and whether that is worth a look-up.
        different = len({row.tobytes() for row in table})
        small = table.size < 0.02 * sum(t.size for t in plain.tables.values())
        saves = different * 4 * table.shape[1] + 4 * len(table) <= (1.0 - WORTH) * table.nbytes
        assert len(shared.tables[name]) == (different if saves and not small else len(table))
        assert (f"{name}_rows" in shared.tables) == (saves and not small)


@pytest.mark.parametrize("precision", sorted(TABLE_PASSES))
def test_the_rows_that_are_left_are_what_is_stored_in_another_precision(precision: str, tmp_path: Path) -> None:
    tower = merged(SLOTS, (12, 8), set(), 3, 1)
    plain, shared = clean(optimise(to_onnx(tower))), apply_passes(to_onnx(tower))
    ids = served_ids(SLOTS, tower, random_ids(SLOTS, 64))
    found = apply_table_pass(shared, precision)  # type: ignore[arg-type]
    assert np.array_equal(scores(apply_table_pass(plain, precision), ids), scores(found, ids))  # type: ignore[arg-type]
    assert any(table.dtype == np.int32 for table in found.tables.values())
    assert graph_parameters(found).bytes < graph_parameters(apply_table_pass(plain, precision)).bytes  # type: ignore[arg-type]
    # Beside the graph, as large tables are.
    save(found, tmp_path / "model.onnx", 0)
    beside = session(str(tmp_path / "model.onnx")).run(None, {"context_ids": ids[0], "candidate_ids": ids[1]})[0]
    assert np.array_equal(beside, scores(found, ids))


def test_rows_that_differ_in_one_bit_are_two() -> None:
    table = np.ones((400, 3), np.float32)
    table[7, 2] = np.nextafter(np.float32(1.0), np.float32(2.0))
    table[9, 0] = -0.0
    table[11, 0] = 0.0
    found = distinct(table)
    assert found is not None
    first, rows = found
    assert list(first) == [0, 7, 9, 11]
    assert np.array_equal(table[first][rows].view(np.uint32), table.view(np.uint32))


def test_a_table_whose_rows_all_differ_stays_as_it_is() -> None:
    assert distinct(np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)) is None
