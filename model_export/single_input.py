"""The same model in the form that a general model server takes: one matrix of ids, every column for every row.

    ids (b, F) int64, global --one Gather--> ... --> p (b, 1) float32

A general server knows neither sides nor vocabularies, so that its client repeats the context in every row and numbers
all fields' ids in one space. This is for comparisons, and is written as well as that interface allows: one look-up
and no arithmetic on ids. Two forms, of which a comparison should take the faster on its machine:

    padded    tables padded with zero columns to the widest d, then one product
    folded    projections folded into the tables, then one sum over the columns
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from model_export.errors import GraphError
from model_export.fusion.embedding import fold
from model_export.graph import IR_VERSION, OPSET, Graph
from model_export.passes.clean import clean
from model_export.passes.optimise import optimise
from model_export.to_onnx import Builder, above

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    from model_export.fusion.tower import Float, FusedField, FusedTower, Table

IDS: Final = "ids"
PROBABILITY: Final = "p"


@dataclass(frozen=True)
class SingleInput:
    """A model of one input.

    Attributes:
        model: `ids` int64 (b, F) -> `p` float (b, 1), tables inside (2 GB at most).
        offsets: int64 (F,): a column's global id is its local id and this.
    """

    model: ModelProto
    offsets: NDArray[np.int64]


def to_single_input(
    tower: FusedTower,
    *,
    order: Sequence[str] | None = None,
    numbering: Mapping[str, Sequence[int]] | None = None,
    form: Literal["padded", "folded"] = "padded",
) -> SingleInput:
    """Build the graph.

    Args:
        tower: The merged model, no field folded yet.
        order: Fields in the order of the columns; the tower's own where not given. A field has as many neighbouring
            columns as in its side's id matrix.
        numbering: Field to the row of its table that each id of another encoder stands for; where not given, ids are
            the field's own.
        form: How look-ups are put together.

    Raises:
        GraphError: A field is folded, is pooled by its mean, or the order is not one of the tower's fields.
    """
    by_name = {field.name: field for field in tower.fields}
    names = list(by_name) if order is None else list(order)
    if sorted(names) != sorted(by_name):
        raise GraphError(f"order: expected the fields {sorted(by_name)}, each once, got {names}")
    fields = [by_name[name] for name in names]
    for field in fields:
        if field.projection is None or field.pooling == "mean":
            got = "a folded one" if field.projection is None else "a mean"
            raise GraphError(f"field {field.name!r}: expected a kept projection and a sum over columns, got {got}")
    rows = {field.name: _rows(field, (numbering or {}).get(field.name)) for field in fields}
    starts = np.cumsum([0, *(len(rows[field.name]) for field in fields[:-1])], dtype=np.int64)
    builder = Builder()
    first = (_padded if form == "padded" else _folded)(builder, tower, fields, rows)
    builder.add("Sigmoid", [above(builder, tower, first)], output=PROBABILITY)
    widths = [field.width for field in fields]
    return SingleInput(_finish(builder, sum(widths)), np.repeat(starts, widths))


def _rows(field: FusedField, numbering: Sequence[int] | None) -> NDArray[np.int64]:
    return np.arange(field.rows) if numbering is None else np.asarray(numbering, np.int64)


def _padded(
    builder: Builder, tower: FusedTower, fields: Sequence[FusedField], rows: Mapping[str, NDArray[np.int64]]
) -> str:
    """One look-up in rows of the widest d, one product: (b, H_0). A pooled field's block stands once a column."""
    widest = max(field.dim for field in fields)
    tables: list[Table] = []
    blocks: list[Float] = []
    for field in fields:
        table = field.table[rows[field.name]]
        tables.append(np.pad(table, ((0, 0), (0, widest - field.dim))))  # type: ignore[arg-type]
        projection: Float = np.zeros((0, tower.width)) if field.projection is None else field.projection
        blocks += [np.pad(projection, ((0, widest - field.dim), (0, 0)))] * field.width
    looked_up = builder.add("Gather", [builder.table("table", tables), IDS], axis=0)
    weight = np.concatenate(blocks)
    x = builder.add("Reshape", [looked_up, builder.constant("shape", np.array([-1, len(weight)]))])
    return builder.add("Gemm", [x, builder.constant("projection", weight), builder.constant("bias", tower.bias)])


def _folded(
    builder: Builder, tower: FusedTower, fields: Sequence[FusedField], rows: Mapping[str, NDArray[np.int64]]
) -> str:
    """One look-up in rows of H_0, one sum, the bias: (b, H_0)."""
    tables = [fold(field).table[rows[field.name]] for field in fields]
    looked_up = builder.add("Gather", [builder.table("table", tables), IDS], axis=0)
    total = builder.add("ReduceSum", [looked_up, builder.constant("axis", np.array([1]))], keepdims=0)
    return builder.add("Add", [total, builder.constant("bias", tower.bias)])


def _finish(builder: Builder, columns: int) -> ModelProto:
    """Optimise as a general server does at its start, put the tables in, and check."""
    inputs = [helper.make_tensor_value_info(IDS, TensorProto.INT64, ["b", columns])]
    inputs += [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(table.shape))
        for name, table in builder.tables.items()
    ]
    output = helper.make_tensor_value_info(PROBABILITY, TensorProto.FLOAT, ["b", 1])
    graph = helper.make_graph(builder.nodes, "single_input", inputs, [output], initializer=builder.constants)
    opset = helper.make_opsetid("", OPSET)
    unoptimised = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[opset])
    model = clean(optimise(Graph(unoptimised, builder.tables))).with_tables()
    onnx.checker.check_model(model)
    return model
