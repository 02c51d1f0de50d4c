"""The merged model as plain float64 arrays (tables stay as they are stored), and the slow, obvious way to score it.

Shapes: N rows, V_f ids and d_f columns of field f's table, w_f columns of field f in its side's id matrix,
H_0..H_{L-1} hidden widths.

    pre_0   = bias + sum_f pool(E_f[ids_f]) M_f          h = relu(pre_0)
    pre_l+1 = h W_l + b_l                                h = relu(pre_l+1)
    logit   = h w + b + pre_0^2 q

A folded field has no M_f: its table T_f = E_f M_f is (V_f, H_0) and its rows are added as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float: TypeAlias = NDArray[np.float64]
Table: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
Ids: TypeAlias = NDArray[np.int32]
Side: TypeAlias = Literal["context", "candidate"]


@dataclass(frozen=True)
class FusedField:
    """One field of the merged model.

    Attributes:
        name: The field's name.
        side: The id matrix it reads.
        first: Its first column there.
        width: w_f, its number of columns.
        table: (V_f, d_f) as the run stores it, or (V_f, H_0) in float64 once folded.
        projection: M_f (d_f, H_0); None once folded.
        pooling: "sum" or "mean" over the columns of a multi-valued field.
        pad_id: The id whose row is zero and that a mean does not count.
        serving_constant_id: The id that a training-only field reads when serving.
    """

    name: str
    side: Side
    first: int
    width: int
    table: Table
    projection: Float | None
    pooling: Literal["sum", "mean"] | None = None
    pad_id: int | None = None
    serving_constant_id: int | None = None

    @property
    def folded(self) -> bool:
        """Whether the table's rows are added to the first layer as they are."""
        return self.projection is None

    @property
    def rows(self) -> int:
        """V_f."""
        return int(self.table.shape[0])

    @property
    def dim(self) -> int:
        """Columns of the table: d_f, or H_0 once folded."""
        return int(self.table.shape[1])


@dataclass(frozen=True)
class Dense:
    """An affine layer: x W + b.

    Attributes:
        weight: (inputs, outputs).
        bias: (outputs,).
    """

    weight: Float
    bias: Float


@dataclass(frozen=True)
class FoldingChoice:
    """Why a field's projection was folded into its table, its table padded, or both left as they were.

    Times are predicted microseconds of the field's side at the weighed requests, the other fields as chosen; infinite
    where a choice is not open: its table would grow too large, or products past those of the tower as it came.

    Attributes:
        name: The field.
        dim: d_f as the run trained it.
        served_dim: Columns of its table as chosen: d_f, a neighbour's d, or H_0 once folded.
        folded: Whether it is folded.
        kept_us: Time with this field as it was.
        padded_us: Time with it padded to the best of the other d of its side.
        folded_us: Time with it folded.
        parameters: Numbers in its table as it is stored, and in its projection where that remains.
        why: What spoke against another choice that takes less time; empty where none does.
    """

    name: str
    dim: int
    served_dim: int
    folded: bool
    kept_us: float
    padded_us: float
    folded_us: float
    parameters: int
    why: str = ""


@dataclass(frozen=True)
class FoldingTrade:
    """What folding and padding buy, and with how many parameters.

    Each is the parameters of the whole tower as it is stored, and the microseconds of both sides' look-ups, predicted
    at the weighed requests.

    Attributes:
        limit: Most parameters that were allowed; None for any number.
        kept: With no field folded or padded.
        chosen: As chosen.
        unlimited: As it would have been chosen without the limit.
    """

    limit: int | None
    kept: tuple[int, float]
    chosen: tuple[int, float]
    unlimited: tuple[int, float]


@dataclass(frozen=True)
class FusedTower:
    """One tower.

    Attributes:
        fields: In the order of the id matrices' columns, context side first.
        bias: (H_0,), what every row's first layer starts from.
        layers: Hidden layers 1..L-1.
        output: (H_{L-1}, 1).
        quadratic: q (H_0, O), what squares of the first layer's pre-activations add to those of layer `squared_into`,
            O units wide; None for nothing.
        squared_into: Number of that layer among `layers` and the output; the output, or a calibration's hinges.
        folding: Why each field was folded or not, once that was chosen.
        trade: What that buys, and with how many parameters.
    """

    fields: tuple[FusedField, ...]
    bias: Float
    layers: tuple[Dense, ...]
    output: Dense
    quadratic: Float | None = None
    squared_into: int = -1
    folding: tuple[FoldingChoice, ...] = ()
    trade: FoldingTrade | None = None

    @property
    def width(self) -> int:
        """H_0."""
        return len(self.bias)

    @property
    def above(self) -> tuple[tuple[Dense, Float | None], ...]:
        """The layers above the first, the output last; each with what squares add to it."""
        layers = (*self.layers, self.output)
        into = self.squared_into % len(layers)
        return tuple((layer, self.quadratic if place == into else None) for place, layer in enumerate(layers))

    def side(self, side: Side) -> tuple[FusedField, ...]:
        """The fields that read one side's id matrix."""
        return tuple(field for field in self.fields if field.side == side)

    def columns(self, side: Side) -> int:
        """Columns of one side's id matrix."""
        return max((field.first + field.width for field in self.side(side)), default=0)


def logits(tower: FusedTower, context_ids: Ids, candidate_ids: Ids) -> Float:
    """Score rows in float64, one field after the other.

    Args:
        tower: The merged model.
        context_ids: (1, Cc) or (N, Cc).
        candidate_ids: (N, Ci).

    Returns:
        (N,).
    """
    h = tower.bias + np.zeros((len(candidate_ids), 1))
    for field in tower.fields:
        ids = context_ids if field.side == "context" else candidate_ids
        h = h + first_layer(field, ids[:, field.first : field.first + field.width])
    pre_0 = pre = h
    for layer, quadratic in tower.above:
        pre = np.maximum(pre, 0.0) @ layer.weight + layer.bias
        if quadratic is not None:
            pre = pre + np.square(pre_0) @ quadratic
    return np.asarray(pre[:, 0])


def first_layer(field: FusedField, ids: Ids) -> Float:
    """What a field adds to the first layer: (N, H_0) for its ids (N, w_f)."""
    rows = field.table[ids].astype(np.float64)
    if field.pad_id is None:
        pooled = rows.sum(1)
    else:
        used = (ids != field.pad_id)[:, :, None]
        pooled = (rows * used).sum(1)
        if field.pooling == "mean":
            pooled = pooled / np.maximum(used.sum(1), 1)
    return np.asarray(pooled if field.projection is None else pooled @ field.projection)


def dense_flops(tower: FusedTower) -> int:
    """Multiplications and additions of all matrix products for one row; look-ups and their sums are not counted."""
    products = [field.projection.size for field in tower.fields if field.projection is not None]
    products += [layer.weight.size + (0 if q is None else q.size) for layer, q in tower.above]
    return 2 * sum(products)
