"""What the passes over tables share: finding every look-up, and putting other nodes in its place.

Both run after the others, on a graph that is optimised already, and tables are graph inputs while passes run: nothing
can compute a table in float32 ahead of a request, which would undo them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from model_export.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_export.graph import Array, Graph

SMALL_SHARE: Final = 0.02
"""Tables that hold less than this share of all values stay in float32: they would save little and cost nodes."""

LookUp = tuple[list[NodeProto], list[TensorProto]]
"""Nodes that stand for a Gather, and the constants that they need."""


@dataclass(frozen=True)
class Place:
    """A look-up that is to be replaced.

    Attributes:
        table: Name of the table.
        ids: Name of the ids, (rows, columns).
        output: Name of what is looked up, (rows, columns, d).
        columns: Columns of ids.
        dim: d.
        reshaped: Whether all that reads the output brings it to another shape: then any shape of it does.
    """

    table: str
    ids: str
    output: str
    columns: int
    dim: int
    reshaped: bool


def replace_tables(
    graph: Graph,
    tables: Callable[[str, Array], Mapping[str, Array]],
    look_up: Callable[[Place], LookUp],
) -> Graph:
    """Return the graph with other tables, and with other nodes for every look-up in them; small ones are left.

    Args:
        graph: Its tables in float32, each read by Gather over rows alone.
        tables: Name and values of a table to what is stored instead, the first under the same name.
        look_up: What computes the output of a look-up.

    Raises:
        GraphError: A table is read by another operator.
    """
    # What has one dimension is no table: it says which row of one an id reads.
    large = {name: table.size for name, table in graph.tables.items() if table.ndim > 1}
    least = SMALL_SHARE * sum(large.values())
    changed = {name for name, size in large.items() if size >= least}
    stored: dict[str, Array] = {}
    for name, table in graph.tables.items():
        stored.update(tables(name, table) if name in changed else {name: table})
    shapes = _shapes(graph.model)
    model = ModelProto()
    model.CopyFrom(graph.model)
    nodes: list[NodeProto] = []
    for node in graph.model.graph.node:
        read = [name for name in node.input if name in changed]
        if not read:
            nodes.append(node)
            continue
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        if node.op_type != "Gather" or list(node.input[:1]) != read or axis != 0:
            raise GraphError(f"table {read[0]!r}: expected a Gather over its rows to read it, got {node.op_type}")
        (output,) = node.output
        columns, dim = shapes[output][-2:]
        reshaped = all(other.op_type == "Reshape" for other in graph.model.graph.node if output in other.input)
        made, constants = look_up(Place(read[0], node.input[1], output, columns, dim, reshaped))
        nodes.extend(made)
        model.graph.initializer.extend(constants)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    others = [value for value in model.graph.input if value.name not in graph.tables]
    del model.graph.input[:]
    model.graph.input.extend(others)
    model.graph.input.extend(
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(table.dtype), list(table.shape))
        for name, table in stored.items()
    )
    return replace(graph, model=model, tables=stored)


def node(op: str, inputs: list[str], output: str, **attributes: object) -> NodeProto:
    """A node with one output, called after it."""
    return helper.make_node(op, inputs, [output], name=output, **attributes)  # type: ignore[arg-type]


def constant(name: str, *values: int) -> TensorProto:
    """A list of int64."""
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Shape of every value, -1 where it depends on the request."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim
        )
        for value in inferred.graph.value_info
    }
