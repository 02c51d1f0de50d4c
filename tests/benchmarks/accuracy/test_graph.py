"""Baselines' graphs against the eager modules that they were made of."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.accuracy.baselines import BASELINES, EXTRAS, build
from benchmarks.accuracy.counts import exported_parameters, flops
from benchmarks.accuracy.graph.exporters import EXPORTERS, TOWER, check_parity, export, shake
from benchmarks.accuracy.graph.layers import block
from benchmarks.accuracy.graph.onehot import OneHot
from model_export.errors import GraphError, ParityValueError
from training.models.base import FieldSlot

# Sides take turns and multi-valued fields are in the middle, so that no order is right by chance.
SLOTS = (
    FieldSlot("hour", "candidate", 0, 1, 7, 1),
    FieldSlot("user", "context", 0, 1, 20, 1),
    FieldSlot("genres", "candidate", 1, 3, 9, 1, pooling="mean", pad_id=2),
    FieldSlot("tags", "context", 1, 2, 8, 1, pooling="sum", pad_id=2),
    FieldSlot("item", "candidate", 4, 1, 30, 1),
    FieldSlot("city", "context", 3, 1, 5, 1),
)
PLAIN = tuple(slot for slot in SLOTS if slot.pooling is None)
CONFIG: dict[str, Any] = {
    "embedding_dim": 4,
    "hidden_units": [16, 8],
    "dropout": 0.2,
    "batch_norm": True,
    "cross_layers": 3,
    "gate_units": [6],
    "heads": 2,
    "cin_units": [5, 3],
    "attention_layers": 2,
    "attention_heads": 2,
    "attention_width": 3,
}
ROWS = 60
NAMES = sorted([TOWER, *EXPORTERS])


def ids(slots: tuple[FieldSlot, ...] = SLOTS) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the prepared layout, with columns that no field of `slots` reads; some multi-valued fields are empty."""
    generator = np.random.default_rng(0)
    found = []
    for side in ("context", "candidate"):
        matrix = np.zeros((ROWS, 6), np.int32)
        for slot in (slot for slot in slots if slot.side == side):
            matrix[:, slot.first : slot.first + slot.width] = generator.integers(0, slot.rows, (ROWS, slot.width))
        found.append(matrix)
    found[0][:9, 1:3] = found[1][5:20, 1:4] = 2
    return found[0], found[1]


def baseline(name: str, slots: tuple[FieldSlot, ...] = SLOTS) -> Any:
    torch.manual_seed(0)
    if name == "OneHot":
        return shake(OneHot(slots, np.random.default_rng(0).normal(0, 0.5, sum(slot.rows for slot in slots)), 0.5))
    model = shake(build({"AutoInt": "AutoInt+", "XDeepFM": "xDeepFM"}.get(name, name), slots, CONFIG))
    if name == "FinalNet":  # gates start as the identity
        nn.init.normal_(model.gates.linear.weight)
    if name == "EDCN":  # and these as ones
        for regulation in model.regulations:
            nn.init.normal_(regulation.weights)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_every_graph_scores_as_its_module_does(name: str) -> None:
    model = baseline(name)
    exported = export(model)
    check_parity(exported, model, *ids())
    with torch.inference_mode():
        assert float(model(*map(torch.tensor, ids())).std()) > 0.05
    assert not {"BatchNormalization", "Dropout", "Identity"} & {
        node.op_type for node in exported.graph.model.graph.node
    }


def test_every_baseline_has_a_graph() -> None:
    assert set(NAMES) == {"OneHot"} | {made.__name__ for made in (*BASELINES.values(), *EXTRAS.values())}


@pytest.mark.parametrize("name", NAMES)
def test_plain_fields_take_one_look_up_a_side_in_one_stack_and_the_context_costs_once_a_request(name: str) -> None:
    model = baseline(name, PLAIN)
    exported = export(model)
    check_parity(exported, model, *ids(PLAIN))
    graph = exported.graph
    looked_up = [node.input[0] for node in graph.model.graph.node if node.op_type == "Gather"]
    stacks = 2 if name in {"DeepFM", "WideDeep", "XDeepFM", "AutoInt"} else 1  # a linear part has its own
    assert len(looked_up) == 2 * stacks
    assert set(looked_up) == set(graph.tables)
    # Both sides have the same number of columns here, and only first layers tell them apart.
    one, two, three = (flops(graph.model, rows) for rows in (1, 2, 3))
    assert three - two == two - one
    shared = one - (two - one)
    if name in {"OneHot", "FM"}:
        assert one == 0
    else:
        assert shared > 0
    if name in {"DCNv2", "FinalMLP"}:
        # A multiplication and an addition a weight, for one row of each side; of 8 context columns each first layer.
        sizes = [
            tensor.dims for tensor in graph.model.graph.initializer if len(tensor.dims) == 2 and tensor.dims[0] > 1
        ]
        assert one == 2 * sum(int(np.prod(size)) for size in sizes)
        assert shared == 2 * 8 * (16 + 16)


def test_another_score_is_no_parity() -> None:
    model = baseline("DNN")
    exported = export(model)
    model.mlp.mlp[-1].bias.data += 0.01
    with pytest.raises(ParityValueError, match="difference"):
        check_parity(exported, model, *ids())


def test_what_has_no_folded_form_is_refused_by_name() -> None:
    with pytest.raises(GraphError, match="LayerNorm"):
        block([nn.Linear(3, 3), nn.LayerNorm(3)])
    with pytest.raises(GraphError, match="after a batch norm"):
        block([nn.BatchNorm1d(3)])
    with pytest.raises(GraphError, match="got Linear"):
        export(nn.Linear(3, 3))


NORMED = {"DCNv2": 24, "FinalMLP": 48, "FM": 0, "FwFM": 0, "OneHot": 0}
"""Units with a batch norm: two parameters each that are gone."""


@pytest.mark.parametrize("name", sorted(NORMED))
def test_a_graph_stores_the_module_s_parameters_and_no_batch_norms(name: str) -> None:
    model = baseline(name)
    stored = exported_parameters(export(model))
    rows = sum(slot.rows for slot in SLOTS)
    assert stored.embedding == rows * {"FM": 5, "FwFM": 5, "OneHot": 1}.get(name, 4)
    gates = sum(value.numel() for value in model.fs_module.parameters()) if name == "FinalMLP" else 0  # constants
    # The bias of a linear part is in a table; FinalMLP's two biases of the logit are one.
    merged = int(name in {"FM", "FwFM", "OneHot", "FinalMLP"})
    held = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert stored.dense == held - stored.embedding - 2 * NORMED[name] - gates - merged
    assert stored.bytes == 4 * stored.total


def test_a_dnn_is_folded_as_ours_is_within_the_same_budget() -> None:
    model = baseline("DNN")
    stored = exported_parameters(export(model))
    unfolded = sum(value.numel() for value in model.parameters()) - 2 * 24
    assert stored.total <= 1.1 * unfolded
    assert stored.embedding > 4 * sum(slot.rows for slot in SLOTS)  # a small table took its projection in
    assert stored.dense < unfolded - 4 * sum(slot.rows for slot in SLOTS)
