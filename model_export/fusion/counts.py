"""What a call of the merged tower's graph does, counted as `to_onnx` builds it and ONNX Runtime's optimiser leaves it.

A call has three parts, each with its own number of rows: the context side (one row in a ranking request, whatever the
number of candidates), the candidate side, and the layers above. A test compares the nodes with those of real graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from model_export.fusion.bias import absorbs
from model_export.fusion.layout import SIDES, pieces
from training.parameters import InferenceParameters, StoredTable, inference_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_export.fusion.layout import Piece
    from model_export.fusion.tower import FusedTower, Side

BYTES: Final = 4  # float32
LINE: Final = 64  # bytes that the processor fetches at once
MEAN_NODES: Final = 6  # compare, negate, cast, count, clamp, divide


@dataclass(frozen=True)
class Counts:
    """What one part of a call does.

    Attributes:
        nodes: Graph nodes.
        lookups: Rows gathered, a row of the id matrix.
        gathers: For each field its look-ups, a row; cache lines of a look-up; and bytes of its table.
        summed: Gathered rows that are summed up, a row.
        add: Bytes added up or copied, a row.
        flops: Multiplications and additions of matrix products, a row; half as many weights are read once a call.
        table: Bytes of all tables.
    """

    nodes: int = 0
    lookups: int = 0
    gathers: tuple[tuple[int, int, int], ...] = ()
    summed: int = 0
    add: int = 0
    flops: int = 0
    table: int = 0


def count(tower: FusedTower, side: Side) -> Counts:
    """Count what one side's look-ups do, up to the first layer's activation on the candidate side.

    Args:
        tower: With any of its fields folded or padded; its bias is taken to be absorbed where it can be.
        side: The side.
    """
    fields = tower.side(side)
    cut = pieces(fields)
    parts = [piece for piece in cut if not piece.folded]
    sums = len(cut) - len(parts)
    row = BYTES * tower.width
    candidate = side == "candidate"
    if not fields:
        return Counts(nodes=4, add=3 * row) if candidate else Counts()  # the context's row repeated, and its ReLU
    # What is added to the sums: the context's row or the bias, unless a table has taken the bias in.
    adds = sums
    absorber = absorbs(tower)
    if sums and absorber is not None and (absorber.side == side):
        adds -= 1
    nodes = sum(_nodes(piece) for piece in cut) + adds
    nodes += (_offsets(cut)) + (len(cut) > 1) + (len(parts) > 1)
    # A product takes the ReLU in, unless what is before the ReLU is squared too.
    relu = candidate and (not parts or tower.quadratic is not None)
    nodes += bool(parts) + relu
    summed = [piece for piece in cut if piece.kind != "stack" and piece.columns > 1]
    return Counts(
        nodes=nodes,
        lookups=sum(piece.columns for piece in cut),
        gathers=tuple((field.width, lines(field.dim), BYTES * field.dim * field.rows) for field in fields),
        summed=sum(piece.columns for piece in summed),
        add=sum(BYTES * piece.dim * piece.columns for piece in summed)
        + row * (adds + candidate + relu)
        + (sum(BYTES * piece.dim * len(piece.fields) for piece in parts) if len(parts) > 1 else 0),
        flops=sum(2 * tower.width * piece.dim * len(piece.fields) for piece in parts),
        table=sum(BYTES * piece.dim * piece.rows for piece in cut),
    )


def count_layers(tower: FusedTower) -> Counts:
    """Count what the layers above the first do: a product each, squares and theirs, the output's change of shape."""
    weights = [matrix for layer, quadratic in tower.above for matrix in (layer.weight, quadratic) if matrix is not None]
    squares = tower.quadratic is not None
    return Counts(
        nodes=len(weights) + squares + 1,
        add=sum(BYTES * weight.shape[1] for weight in weights) + squares * BYTES * tower.width,
        flops=sum(2 * weight.size for weight in weights),
    )


def count_call(tower: FusedTower, rows: int) -> list[tuple[Counts, int]]:
    """The parts of a call with one context and `rows` candidates, each with its number of rows."""
    context, candidate = (count(tower, side) for side in SIDES)
    return [(context, 1), (candidate, rows), (count_layers(tower), rows)]


def parameters(tower: FusedTower) -> InferenceParameters:
    """Count what is stored of a tower with any of its fields folded or padded, in float32."""
    tables = [StoredTable(field.rows, field.dim, folded=field.folded) for field in tower.fields]
    widths = [tower.width, *(layer.weight.shape[1] for layer in tower.layers)]
    first_bias = absorbs(tower) is None or bool(tower.bias.any())
    squares = 0 if tower.quadratic is None else tower.quadratic.size
    return inference_parameters(tables, widths, first_bias=first_bias, squares=squares)


def lines(dim: int) -> int:
    """Cache lines that a table's row lies in, if it starts with one."""
    return -(-BYTES * dim // LINE)


def _nodes(piece: Piece) -> int:
    """A look-up, and a sum or a change of shape; a mean's division."""
    return 2 + MEAN_NODES * piece.mean


def _offsets(cut: Sequence[Piece]) -> bool:
    return any(len(piece.fields) > 1 for piece in cut)
