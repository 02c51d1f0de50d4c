"""The unmerged models as ONNX graphs, written as they are: what "before" means in the export's table.

The same runtime times them beside the merged graph, so that the difference is the merging and nothing else. They are
what an exporter would give: a look-up a field, pooling by mask, every branch's matrices, norms and mixes.

Shapes: N rows, d_f columns of a field's table, D = sum of d_f.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from model_export.graph import OUTPUT, Graph
from model_export.to_onnx import Builder
from training.models.base import embedding_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from model_export.fusion.tower import Side
    from training.models.base import FieldSlot
    from training.models.reaction import Branch, FusionForm, TowerPair


def unfused_form(form: FusionForm, columns: dict[Side, int]) -> Graph:
    """The fusion form as a graph.

    Args:
        form: In evaluation mode.
        columns: Columns of each side's id matrix on the prepared layout.
    """
    builder = Builder()
    branches: list[Branch] = list(form.branches)  # type: ignore[arg-type]
    x = _embed(builder, form.slots, list(form.tables))
    z = _sum(builder, [_mixed(builder, branch, _first(builder, branch, x)) for branch in branches])
    h = builder.add("Relu", [z])
    for layer in range(len(form.widths) - 1):
        parts = []
        for branch in branches:
            parts.append(_mixed(builder, branch, _hidden(builder, branch, layer, h)))
            parts.append(_linear(builder, branch.cross[layer], h))
        h = _relu_of_sum(builder, parts)
    return _finish(builder, [_mixed(builder, branch, _logit(builder, branch, h, z)) for branch in branches], columns)


def unfused_pair(pair: TowerPair, columns: dict[Side, int]) -> Graph:
    """The dual form as a graph: the mean of two towers.

    Args:
        pair: In evaluation mode.
        columns: Columns of each side's id matrix on the prepared layout.
    """
    builder = Builder()
    bodies = [pair.a.body, pair.b.body]
    first = [_first(builder, tower.body, _embed(builder, pair.slots, list(tower.tables))) for tower in (pair.a, pair.b)]
    hidden = [builder.add("Relu", [z]) for z in first]
    for layer in range(len(pair.widths) - 1):
        hidden = [
            builder.add("Relu", [_hidden(builder, body, layer, h)]) for body, h in zip(bodies, hidden, strict=True)
        ]
    half = builder.constant("half", np.array(0.5))
    logits = [_logit(builder, body, h, z) for body, h, z in zip(bodies, hidden, first, strict=True)]
    return _finish(builder, [builder.add("Mul", [logit, half]) for logit in logits], columns)


def _array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return tensor.detach().cpu().numpy().astype(np.float32, copy=False)


def _embed(builder: Builder, slots: Sequence[FieldSlot], tables: Sequence[Tensor]) -> str:
    """Look up and pool every slot, repeat the context's for every row, put all side by side: (N, D)."""
    rows = builder.add("Shape", ["candidate_ids"], start=0, end=1)
    one = builder.constant("one", np.array([1]))
    shape = builder.add("Concat", [rows, one], axis=0)
    axis = builder.constant("axis", np.array([1]))
    parts = []
    for index in embedding_order(slots):
        slot = slots[index]
        start, end = (builder.constant("column", np.array([slot.first + offset])) for offset in (0, slot.width))
        ids = builder.add("Slice", [f"{slot.side}_ids", start, end, axis])
        looked_up = builder.add("Gather", [builder.table("table", [_array(tables[index])]), ids], axis=0)
        if slot.pad_id is None:
            pooled = builder.add("Squeeze", [looked_up, axis])
        else:
            pad = builder.constant("pad", np.array(slot.pad_id, np.int32))
            mask = builder.add("Cast", [builder.add("Not", [builder.add("Equal", [ids, pad])])], to=TensorProto.FLOAT)
            wide = builder.add("Unsqueeze", [mask, builder.constant("axis", np.array([2]))])
            pooled = builder.add("ReduceSum", [builder.add("Mul", [looked_up, wide]), axis], keepdims=0)
            if slot.pooling == "mean":
                count = builder.add("ReduceSum", [mask, axis], keepdims=1)
                pooled = builder.add(
                    "Div", [pooled, builder.add("Max", [count, builder.constant("least", np.array(1.0))])]
                )
        parts.append(builder.add("Expand", [pooled, shape]) if slot.side == "context" else pooled)
    return builder.add("Concat", parts, axis=1)


def _first(builder: Builder, branch: Branch, x: str) -> str:
    product = builder.add("MatMul", [x, builder.constant("projection", _array(branch.weight()))])
    return _norm(builder, branch.norms[0], product)


def _hidden(builder: Builder, branch: Branch, layer: int, h: str) -> str:
    return _norm(builder, branch.norms[layer + 1], _linear(builder, branch.linears[layer], h))


def _linear(builder: Builder, linear: nn.Module, h: str) -> str:
    inputs = [h, builder.constant("weight", _array(linear.weight))]  # type: ignore[arg-type]
    if linear.bias is not None:
        inputs.append(builder.constant("bias", _array(linear.bias)))  # type: ignore[arg-type]
    return builder.add("Gemm", inputs, transB=1)


def _logit(builder: Builder, branch: Branch, h: str, z: str) -> str:
    """The output layer, and the squares of the projected units where they have weights."""
    logit = _linear(builder, branch.output, h)
    if not branch.quadratic.any():
        return logit
    squares = builder.add("Mul", [z, z])
    weight = builder.constant("quadratic", _array(branch.quadratic[:, None]))
    return builder.add("Add", [logit, builder.add("MatMul", [squares, weight])])


def _norm(builder: Builder, norm: nn.Module, x: str) -> str:
    tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    inputs = [builder.constant("norm", _array(tensor)) for tensor in tensors]  # type: ignore[arg-type]
    return builder.add("BatchNormalization", [x, *inputs], epsilon=float(norm.eps))  # type: ignore[arg-type]


def _mixed(builder: Builder, branch: Branch, x: str) -> str:
    return builder.add("Mul", [x, builder.constant("mix", _array(branch.mix))])


def _sum(builder: Builder, parts: list[str]) -> str:
    total = parts[0]
    for part in parts[1:]:
        total = builder.add("Add", [total, part])
    return total


def _relu_of_sum(builder: Builder, parts: list[str]) -> str:
    return builder.add("Relu", [_sum(builder, parts)])


def _finish(builder: Builder, logits: list[str], columns: dict[Side, int]) -> Graph:
    probability = builder.add("Sigmoid", [_sum(builder, logits)])
    builder.add("Reshape", [probability, builder.constant("shape", np.array([-1]))], output=OUTPUT)
    return builder.graph({f"{side}_ids": number for side, number in columns.items()})
