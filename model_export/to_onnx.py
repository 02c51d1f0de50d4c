"""Writes the merged tower as an ONNX graph, node by node, in the form that ONNX Runtime runs fastest.

    context_ids (1|N, Cc) int32 --look-ups--> (1|N, H_0) --+   one context row is summed once and broadcast
    candidate_ids (N, Ci) int32 --look-ups--> (N, H_0) ----+--> ReLU --> Gemm --> ReLU .. Gemm --> sigmoid --> pctr (N,)
                                                           +--> squares, where they count --> Gemm --^

Choices, each timed against its alternatives on ONNX Runtime, one thread, 39 fields, H_0 = 64:

- one Gather a group of tables stacked by width, with row offsets added in the graph, once a side: a Gather a field
  costs four times as much at one row;
- unfolded groups go Gather -> Reshape -> Gemm, because the rows lie side by side already;
- folded rows are summed by ReduceSum: a product with a row of ones is 3 to 8% slower from 100 rows on;
- the first layer's bias is in a folded table where there is one, which saves the Add of a sum's start;
- the context's sum is the C of the candidates' Gemm: a node less than Add; without squares, which read its result too,
  it takes the ReLU in as well, which is 7% at one row for both;
- a mean's count is held to one by Clip: Max takes five times as long;
- ids stay int32: int64 is no faster and twice the bytes.

The product of squares is the C of the output's Gemm (of its pieces', if calibrated by some), so that no Add is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from model_export.errors import GraphError
from model_export.fusion.layout import arrange, pieces
from model_export.graph import INPUTS, IR_VERSION, OPSET, OUTPUT, Graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_export.fusion.layout import Piece
    from model_export.fusion.tower import FusedTower, Side


def to_onnx(tower: FusedTower, columns: dict[Side, int] | None = None) -> Graph:
    """Build the graph of a merged tower.

    Args:
        tower: With its fields arranged (`fusion.layout.arrange`).
        columns: Columns of each side's id matrix; the tower's own where not given.

    Raises:
        GraphError: The tower's fields are not arranged.
    """
    if arrange(tower).fields != tower.fields:
        raise GraphError("expected the tower's fields in the order of their pieces, got another; call arrange first")
    builder = Builder()
    context = _context(builder, tower)
    probability = builder.add("Sigmoid", [above(builder, tower, _candidates(builder, tower, context))])
    builder.add("Reshape", [probability, builder.constant("shape", np.array([-1]))], output=OUTPUT)
    return builder.graph({name: (columns or {}).get(side, tower.columns(side)) for name, side in _SIDES.items()})


def above(builder: Builder, tower: FusedTower, first: str) -> str:
    """Add the layers above the first layer's pre-activations (N, H_0); the name of the logits (N, 1)."""
    pre = first
    for layer, quadratic in tower.above:
        h = builder.add("Relu", [pre])
        added = builder.constant("bias", layer.bias)
        if quadratic is not None:
            squares = builder.add("Mul", [first, first])
            added = builder.add("Gemm", [squares, builder.constant("quadratic", quadratic), added])
        pre = builder.add("Gemm", [h, builder.constant("weight", layer.weight), added])
    return pre


_SIDES: dict[str, Side] = {"context_ids": "context", "candidate_ids": "candidate"}


class Builder:
    """Collects nodes, constants and tables under unique names."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.tables: dict[str, NDArray[np.float32]] = {}
        self._used: dict[str, int] = {}

    def add(self, op: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        """Add a node with one output and return the output's name."""
        return self.add_many(op, inputs, [output or self._name(op.lower())], **attributes)[0]

    def add_many(self, op: str, inputs: list[str], outputs: list[str], **attributes: object) -> list[str]:
        """Add a node and return its outputs' names."""
        self.nodes.append(helper.make_node(op, inputs, outputs, name=f"{op}_{len(self.nodes)}", **attributes))  # type: ignore[arg-type]
        return outputs

    def constant(self, stem: str, value: NDArray[np.generic]) -> str:
        """Add a constant: float64 is stored as float32, other types as they are.

        Raises:
            GraphError: A value is beyond float32.
        """
        name = self._name(stem)
        stored = in_float32(f"constant {name!r}", value) if value.dtype == np.float64 else value
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(stored), name))
        return name

    def table(self, stem: str, values: Sequence[NDArray[np.floating]]) -> str:
        """Add a table of tables, one below the other, and return its name.

        Raises:
            GraphError: A value is beyond float32.
        """
        name = self._name(stem)
        stored = [in_float32(f"table {name!r}", value) for value in values]
        self.tables[name] = stored[0] if len(stored) == 1 else np.concatenate(stored)
        return name

    def graph(self, columns: dict[str, int]) -> Graph:
        """Return the graph with these id inputs; every table is an input too."""
        dims = dict(zip(INPUTS, ("context_rows", "rows"), strict=True))
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT32, [dims[name], columns[name]]) for name in INPUTS
        ]
        inputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(table.shape))
            for name, table in self.tables.items()
        ]
        output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows"])
        graph = helper.make_graph(self.nodes, "reaction", inputs, [output], initializer=self.constants)
        opset = helper.make_opsetid("", OPSET)
        return Graph(helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[opset]), self.tables)

    def _name(self, stem: str) -> str:
        self._used[stem] = self._used.get(stem, -1) + 1
        return f"{stem}_{self._used[stem]}"


def in_float32(what: str, value: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return values as float32.

    Args:
        what: What messages call them.
        value: float32, which stays as it is, or float64.

    Raises:
        GraphError: A value is beyond float32.
    """
    if value.dtype == np.float32:
        return value.view(np.float32)
    with np.errstate(over="ignore"):
        stored = value.astype(np.float32)
    if not np.isfinite(stored).all():
        worst = value.ravel()[int(np.argmin(np.isfinite(stored)))]
        raise GraphError(f"{what}: expected values in the range of float32, got {worst!s}")
    return stored


def _context(builder: Builder, tower: FusedTower) -> str:
    """The context's sum with the bias: (1|N, H_0)."""
    parts, sums = _look_up(builder, tower, "context")
    if not sums or tower.bias.any():  # else a table has taken the bias in
        sums = [builder.constant("start", tower.bias[None, :]), *sums]
    return _first_layer(builder, tower, "context", parts, sums)


def _candidates(builder: Builder, tower: FusedTower, context: str) -> str:
    """The first layer's pre-activations: (N, H_0)."""
    if not tower.side("candidate"):
        rows = builder.add("Shape", ["candidate_ids"], start=0, end=1)
        shape = builder.add("Concat", [rows, builder.constant("shape", np.array([tower.width]))], axis=0)
        return builder.add("Expand", [context, shape])
    parts, sums = _look_up(builder, tower, "candidate")
    if tower.side("context") or tower.bias.any() or not sums:
        sums = [context, *sums]
    return _first_layer(builder, tower, "candidate", parts, sums)


def _first_layer(builder: Builder, tower: FusedTower, side: Side, parts: list[str], sums: list[str]) -> str:
    """Add up what is H_0 wide, and what a product makes so."""
    total = sums[0]
    for name in sums[1:]:
        total = builder.add("Add", [total, name])
    if not parts:
        return total
    x = parts[0] if len(parts) == 1 else builder.add("Concat", parts, axis=1)
    blocks = [field.projection for piece in pieces(tower.side(side)) for field in piece.fields]
    weight = builder.constant("projection", np.concatenate([block for block in blocks if block is not None]))
    return builder.add("Gemm", [x, weight, total])


def _look_up(builder: Builder, tower: FusedTower, side: Side) -> tuple[list[str], list[str]]:
    """Look one side up: what is to be multiplied (N, n d), and what is H_0 wide already (N, H_0)."""
    cut = pieces(tower.side(side))
    ids = [f"{side}_ids"]
    offsets = np.concatenate([_offsets(piece) for piece in cut] or [np.empty(0, np.int32)])
    if offsets.any():
        ids = [builder.add("Add", [*ids, builder.constant("offset", offsets)])]
    if len(cut) > 1:
        sizes = builder.constant("split", np.array([piece.columns for piece in cut]))
        outputs = [f"{side}_ids_{number}" for number in range(len(cut))]
        ids = builder.add_many("Split", [*ids, sizes], outputs, axis=1)
    parts: list[str] = []
    sums: list[str] = []
    for piece, name in zip(cut, ids, strict=bool(cut)):
        (sums if piece.folded else parts).append(_piece(builder, piece, name))
    return parts, sums


def _offsets(piece: Piece) -> NDArray[np.int32]:
    """Where each column's table starts in the piece's stack."""
    starts = np.cumsum([0, *(field.rows for field in piece.fields[:-1])])
    return np.repeat(starts, [field.width for field in piece.fields]).astype(np.int32)


def _piece(builder: Builder, piece: Piece, ids: str) -> str:
    table = builder.table("table", [field.table for field in piece.fields])
    rows = builder.add("Gather", [table, ids], axis=0)
    if piece.kind == "stack" or piece.columns == 1:
        shape = builder.constant("shape", np.array([-1, piece.dim * piece.columns]))
        return builder.add("Reshape", [rows, shape])
    axis = builder.constant("axis", np.array([1]))
    total = builder.add("ReduceSum", [rows, axis], keepdims=0)
    return _mean(builder, piece, ids, total) if piece.mean else total


def _mean(builder: Builder, piece: Piece, ids: str, total: str) -> str:
    """Divide by the number of used columns, at least one."""
    pad = builder.constant("pad", np.array(piece.fields[0].pad_id, np.int32))
    used = builder.add("Not", [builder.add("Equal", [ids, pad])])
    counted = builder.add("Cast", [used], to=TensorProto.FLOAT)
    axis = builder.constant("axis", np.array([1]))
    count = builder.add("ReduceSum", [counted, axis], keepdims=1)
    one = builder.constant("one", np.array(1.0, np.float32))
    return builder.add("Div", [total, builder.add("Clip", [count, one])])
