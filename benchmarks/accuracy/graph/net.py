"""What baselines' graphs are made of: the embedded row, the split first layer, towers, crosses and gates.

The first layer is split where the algebra allows, W [e_c; e_i] + b = (W_c e_c + b) + W_i e_i: the context's part is
one row a request, and is the C of the candidates' Gemm.

Shapes: N candidates, D = D_c + D_i columns of the embedded row, H outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.accuracy.graph.lookups import Lookups
from model_export.graph import OUTPUT, Graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.accuracy.graph.layers import Layer
    from benchmarks.accuracy.graph.lookups import Tables
    from training.models.base import FieldSlot


@dataclass(frozen=True)
class Row:
    """The embedded row in two parts.

    Attributes:
        context: (1|N, D_c).
        candidate: (N, D_i).
        places: For each column of both, context first, its place in the model's own order: (D,).
        split: D_c.
        extra: A third part, a row a candidate: (N, D_e); "" for none.
        extra_places: Its columns' places: (D_e,).
    """

    context: str
    candidate: str
    places: NDArray[np.int64]
    split: int
    extra: str = ""
    extra_places: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


class Net(Lookups):
    """A graph in the making.

    Args:
        slots: The fields, in the order in which the model has them side by side.

    Attributes:
        expanded: Stored numbers that are copies made for speed, and no parameters of the model.
    """

    def __init__(self, slots: Sequence[FieldSlot]) -> None:
        super().__init__(slots)
        self.expanded = 0

    def add(self, op: str, *inputs: str | NDArray[np.floating], **attributes: Any) -> str:
        """Add a node; arrays become constants."""
        names = [name if isinstance(name, str) else self.builder.constant("value", name) for name in inputs]
        return self.builder.add(op, names, **attributes)

    def axes(self, *axes: int) -> str:
        """A constant of axes or of a shape."""
        return self.builder.constant("axes", np.array(axes))

    def embed(self, tables: Tables) -> Row:
        """Look the whole row up."""
        context, candidate = (side.flat(tables) for side in self.sides)
        return self.row(context, candidate, tables.dim)

    def row(self, context: str, candidate: str, dim: int) -> Row:
        """A row of parts that have `dim` values a field, in the order of each side's fields."""
        places = [self.places(side, dim) for side in self.sides]
        return Row(context, candidate, np.concatenate(places), len(places[0]))

    def first(self, row: Row, layer: Layer) -> str:
        """A dense layer over the whole row, the context's part once a request: (N, H)."""
        weight = layer.weight[row.places]
        start = self.add("Gemm", row.context, weight[: row.split], layer.bias)
        total = self.add("Gemm", row.candidate, weight[row.split :], start)
        if row.extra:
            total = self.add("Gemm", row.extra, layer.weight[row.extra_places], total)
        return self._activated(total, layer)

    def dense(self, x: str, layer: Layer) -> str:
        """A dense layer: (N, H)."""
        return self._activated(self.add("Gemm", x, layer.weight, layer.bias), layer)

    def tower(self, row: Row, layers: Sequence[Layer]) -> str:
        """Dense layers, the first one split."""
        h = self.first(row, layers[0])
        for layer in layers[1:]:
            h = self.dense(h, layer)
        return h

    def whole(self, row: Row) -> str:
        """Both parts side by side: (N, D), in the order of `places`."""
        count = self.add("Shape", row.candidate, start=0, end=1)
        shape = self.add("Concat", count, self.axes(row.split), axis=0)
        return self.add("Concat", self.add("Expand", row.context, shape), row.candidate, axis=1)

    def crosses(self, row: Row, whole: str, layers: Sequence[Layer]) -> str:
        """DCN-V2's cross layers, x_l+1 = x_l + x_0 * (W_l x_l + b_l): (N, D), in the order of `places`.

        x_0 + x_0 * (W x_0 + b) = x_0 * (W x_0 + b + 1), and W x_0 is split.
        """
        x = whole
        for number, layer in enumerate(layers):
            weight, bias = layer.weight[:, row.places], layer.bias[row.places]
            if number == 0:
                x = self.add("Mul", whole, self.first(row, type(layer)(weight, bias + 1.0)))
            else:
                product = self.add("Gemm", x, weight[row.places], bias)
                x = self.add("Add", x, self.add("Mul", whole, product))
        return x

    def sum(self, logits: Sequence[str]) -> str:
        """Add (N, 1) up."""
        whole = logits[0]
        for logit in logits[1:]:
            whole = self.add("Add", whole, logit)
        return whole

    def finish(self, logit: str) -> Graph:
        """The graph that ends in the sigmoid of (N, 1) logits."""
        probability = self.add("Sigmoid", logit)
        self.builder.add("Reshape", [probability, self.axes(-1)], output=OUTPUT)
        return self.builder.graph(self.columns)

    def _activated(self, x: str, layer: Layer) -> str:
        return self.add(layer.activation, x) if layer.activation else x
