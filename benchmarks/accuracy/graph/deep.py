"""The fusing and gating parts of FinalMLP and FinalNet.

Shapes: N candidates, F fields, d columns of a table, H outputs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from benchmarks.accuracy.graph.layers import Layer, array, batch_norm, linear
from model_export.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from benchmarks.accuracy.graph.lookups import Tables
    from benchmarks.accuracy.graph.net import Net, Row
    from model_export.fusion.batch_norm import Affine


def bilinear_logit(net: Net, x: str, y: str, fusion: Any) -> str:
    """FinalMLP's aggregation (Mao et al., AAAI 2023, eq. 9-11): w_x x + w_y y + sum_h x_h^T W_h y_h: (N, 1).

    (x^T W + w_y) y + w_x x + b: with w_y as the product's bias, one product a head.
    """
    over_x, over_y = linear(fusion.w_x), linear(fusion.w_y)
    heads, wide, high = fusion.num_heads, fusion.head_x_dim, fusion.head_y_dim
    weight = array(fusion.w_xy).reshape(heads, wide, high)  # output_dim is 1
    bias = over_y.weight.reshape(heads, high)
    parts = [x]
    if heads > 1:
        outputs = [f"{x}_{head}" for head in range(heads)]
        parts = net.builder.add_many("Split", [x, net.axes(*[wide] * heads)], outputs, axis=1)
    products = [net.add("Gemm", part, weight[head], bias[head]) for head, part in enumerate(parts)]
    product = products[0] if heads == 1 else net.add("Concat", *products, axis=1)
    crossed = net.add("ReduceSum", net.add("Mul", product, y), net.axes(1), keepdims=1)
    return net.add("Add", crossed, net.dense(x, Layer(over_x.weight, over_x.bias + over_y.bias)))


def field_gates(net: Net, row: Row, vectors: Tables, gates: Layer) -> Row:
    """FinalNet's gates over fields (Zhu et al., SIGIR 2023): [X, X * g], g = G X + b a column of the vectors at a time.

    Returns:
        A row whose first two parts stay split, and whose third is X * g.
    """
    F, d = len(net.slots), vectors.dim
    places = [net.places(side) for side in net.sides]
    order = np.concatenate(places)
    context, candidate = (
        net.add("MatMul", gates.weight[np.ix_(place, order)].T, net.add("Reshape", part, net.axes(-1, len(place), d)))
        for part, place in zip((row.context, row.candidate), places, strict=True)
    )
    shared = net.add("Add", context, gates.bias[order][:, None])
    gated = net.add("Reshape", net.add("Add", shared, candidate), net.axes(-1, F * d))
    return replace(row, extra=net.add("Mul", net.whole(row), gated), extra_places=row.places + F * d)


def factorised_logit(net: Net, row: Row, stack: Sequence[Any], share: float) -> str:
    """A block of FinalNet: layers [h2, h1] = W x + b, x' = norm([h2, h1 * h2]), and a linear output: (N, 1).

    No activation follows a norm, so it folds into the next layer's inputs; and [h2, h1 * h2] W is two products, one
    added to the other, so that nothing is put side by side.

    Args:
        net: The graph.
        row: What the block reads.
        stack: Modules with a `linear` of two halves, BatchNorm1d, Dropout, and a Linear at the end.
        share: What the logit is multiplied by.

    Raises:
        GraphError: Another module.
    """
    halves: tuple[str, str] | None = None
    norm: Affine | None = None
    for module in stack:
        if isinstance(module, nn.BatchNorm1d):
            norm = batch_norm(module)
        elif hasattr(module, "linear") or isinstance(module, nn.Linear):
            layer = linear(module if isinstance(module, nn.Linear) else module.linear)
            layer, norm = (layer if norm is None else layer.scaled_inputs(norm)), None
            if isinstance(module, nn.Linear):
                return _halves(net, row, halves, Layer(layer.weight * share, layer.bias * share))
            half = len(layer.bias) // 2
            h2 = _halves(net, row, halves, Layer(layer.weight[:, :half], layer.bias[:half]))
            h1 = _halves(net, row, halves, Layer(layer.weight[:, half:], layer.bias[half:]))
            halves = (h2, net.add("Mul", h1, h2))
        elif not isinstance(module, nn.Dropout):
            raise GraphError(
                f"expected a factorised layer, BatchNorm1d, Dropout or Linear, got {type(module).__name__}"
            )
    raise GraphError("expected a linear layer at the end of a block, got none")


def _halves(net: Net, row: Row, halves: tuple[str, str] | None, layer: Layer) -> str:
    if halves is None:
        return net.first(row, layer)
    half = len(layer.weight) // 2
    first = net.add("Gemm", halves[0], layer.weight[:half], layer.bias)
    return net.add("Gemm", halves[1], layer.weight[half:], first)
