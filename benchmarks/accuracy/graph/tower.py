"""DNN is a tower as ours is, once merged: it goes through our own rules, folding within the same budget included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.accuracy.graph.layers import block, tables
from model_export.fusion import FusionFacts, fuse
from model_export.fusion.tower import Dense, FusedField, FusedTower
from model_export.to_onnx import to_onnx

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model_export.graph import Graph
    from training.models.base import FieldSlot


def dnn_graph(module: Any) -> tuple[Graph, dict[str, list[int]]]:
    """The graph of a DNN, and which columns of the prepared layout each of its inputs holds, in order.

    Args:
        module: Its fields are side by side in the order of its slots, `mlp` holds its layers.
    """
    first, *hidden, output = block(module.mlp.mlp)
    found = tables(module.embedding_layer, module.slots)
    parts = np.split(first.weight, len(module.slots))
    fields = tuple(
        FusedField(
            name=slot.name,
            side=slot.side,
            first=slot.first,
            width=slot.width,
            table=found.values[slot.name],
            projection=part,
            pooling=found.pooling.get(slot.name),
            pad_id=slot.pad_id,
        )
        for slot, part in zip(module.slots, parts, strict=True)
    )
    layers = tuple(Dense(layer.weight, layer.bias) for layer in hidden)
    tower = FusedTower(fields, first.bias, layers, Dense(output.weight, output.bias))
    served = fuse(tower, FusionFacts())
    return to_onnx(served), columns_of(served, module.slots)


def columns_of(served: FusedTower, slots: Iterable[FieldSlot]) -> dict[str, list[int]]:
    """Side to the columns of the prepared layout that a tower reads, in its order."""
    known = {slot.name: slot for slot in slots}
    return {
        side: [known[field.name].first + column for field in served.side(side) for column in range(field.width)]
        for side in ("context", "candidate")
    }
