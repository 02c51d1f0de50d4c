"""Parts of the further models: FM over tables that a tower reads too, gated and bridged crosses, CIN, attention.

Shapes: N candidates, F fields (F_c, F_i of the sides), d columns of a table, D = F d.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.accuracy.graph.layers import Layer, array, block, linear
from benchmarks.accuracy.graph.lookups import Tables
from benchmarks.accuracy.graph.shallow import linear_logit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from benchmarks.accuracy.graph.net import Net, Row

    Float = NDArray[np.float64]


def shared_fm_logit(net: Net, row: Row, vectors: Tables, weights: Tables, bias: float) -> str:
    """FM over vectors that were looked up already: (N, 1).

    (|sum_f v_f|^2 - sum_f |v_f|^2) / 2; |v_f|^2 of a single-valued field is a constant of its id, and in its weight.
    """
    singles = [slot.name for slot in net.slots if slot.pooling is None]
    squares = {name: 0.5 * (vectors.values[name] ** 2).sum(axis=1, keepdims=True) for name in singles}
    joined = {name: value - squares.get(name, 0.0) for name, value in weights.values.items()}
    logits = [linear_logit(net, Tables(joined, weights.pooling), bias)]
    sums = []
    for side, stack in zip(net.sides, _stacks(net, row), strict=True):
        sums.append(net.add("ReduceSum", stack, net.axes(1), keepdims=0))
        if side.multis:
            pooled = net.add("Slice", stack, net.axes(len(side.singles)), net.axes(len(side.slots)), net.axes(1))
            square = net.add("ReduceSumSquare", pooled, axes=[1, 2], keepdims=0)
            logits.append(net.add("Reshape", net.add("Mul", square, np.array(-0.5)), net.axes(-1, 1)))
    whole = net.add("ReduceSumSquare", net.add("Add", *sums), axes=[1], keepdims=1)
    return net.sum([*logits, net.add("Mul", whole, np.array(0.5))])


def gated_crosses(net: Net, row: Row, whole: str, crosses: Sequence[Any], gates: Sequence[Any]) -> str:
    """GDCN's layers, x' = x_0 * (W x + b) * sigmoid(V x) + x: (N, D), in the order of `places`."""
    x = whole
    for number, (cross, gate) in enumerate(zip(crosses, gates, strict=True)):
        products = []
        for layer in (linear(cross), replace(linear(gate), activation="Sigmoid")):
            own = replace(layer, weight=layer.weight[:, row.places], bias=layer.bias[row.places])
            inner = replace(own, weight=own.weight[row.places])
            products.append(net.first(row, own) if number == 0 else net.dense(x, inner))
        x = net.add("Add", net.add("Mul", net.add("Mul", whole, products[0]), products[1]), x)
    return x


def bridged_logit(net: Net, row: Row, module: Any, dim: int) -> str:
    """EDCN's layers and its output: (N, 1). Softmax weights of fields are constants of the layers that read them."""
    places, x0, bridge, cross, deep = row.places, "", "", "", ""
    for cross_layer, deep_layer, regulation in zip(module.cross, module.deep, module.regulations, strict=True):
        weights = array(regulation.weights.softmax(1)) * regulation.weights.shape[1]
        for_cross, for_deep = (np.repeat(gate, dim) for gate in weights)
        (layer,) = block(deep_layer)
        layer = replace(layer, weight=(for_deep[:, None] * layer.weight)[:, places], bias=layer.bias[places])
        slope = for_cross * array(cross_layer.weight.weight)[0]
        scalar = Layer(slope[:, None], np.zeros(1))
        bias = array(cross_layer.bias)[places]
        if not x0:
            x0 = net.add("Mul", net.whole(row), for_cross[places])
            one = replace(scalar, bias=np.ones(1))  # x_0 + (w x_0) x_0 = (1 + w x_0) x_0
            cross = net.add("Add", net.add("Mul", net.first(row, one), x0), bias)
            deep = net.first(row, layer)
        else:
            kept = net.add("Add", net.add("Mul", bridge, for_cross[places]), bias)
            crossed = net.add("MatMul", bridge, scalar.weight[places])
            cross = net.add("Add", kept, net.add("Mul", crossed, x0))
            deep = net.dense(bridge, replace(layer, weight=layer.weight[places]))
        bridge = net.add("Mul", cross, deep)
    head = linear(module.fc)
    total: str | Float = head.bias
    for number, part in enumerate((cross, deep, bridge)):
        total = net.add("Gemm", part, head.weight[number * len(places) + places], total)
    return str(total)


def cin_logit(net: Net, row: Row, cin: Any) -> str:
    """The compressed interaction network of xDeepFM (Lian et al., KDD 2018, eq. 6): (N, 1).

    x'_u = sum_h x0_h * (sum_m W_uhm x_m): the inner sum is one product, and of the first layer split between the sides.
    """
    F = len(net.slots)
    order = np.concatenate([net.places(side) for side in net.sides])
    stacks = _stacks(net, row)
    d = len(row.places) // F
    base = net.add("Reshape", net.whole(row), net.axes(-1, 1, F, d))
    head = linear(cin.fc)
    x, total, first = "", head.bias, 0
    result: str | Float = total
    for layer in cin.cin_layer.values():
        weight = array(layer.weight)[:, :, 0]
        units = len(weight)
        weight = weight.reshape(units, F, -1)[:, order]
        bias = array(layer.bias)[:, None]
        if x:
            product = net.add("MatMul", weight.reshape(units * F, -1), x)
        else:
            weight = weight[:, :, order].reshape(units * F, F)
            cut = len(net.context.slots)
            parts = zip((weight[:, :cut], weight[:, cut:]), stacks, strict=True)
            product = net.add("Add", *(net.add("MatMul", part, stack) for part, stack in parts))
        product = net.add("Mul", net.add("Reshape", product, net.axes(-1, units, F, d)), base)
        x = net.add("Add", net.add("ReduceSum", product, net.axes(2), keepdims=0), bias)
        pooled = net.add("ReduceSum", x, net.axes(2), keepdims=0)
        result = net.add("Gemm", pooled, head.weight[first : first + units], result)
        first += units
    return str(result)


def attention_logit(net: Net, row: Row, layers: Sequence[Any], fc: Any) -> str:
    """AutoInt's self-attention between fields (Song et al., CIKM 2019, eq. 5-8): (N, 1).

    Query, key, value and residual are one product; in the first layer the context's fields take theirs once a request.
    """
    F = len(net.slots)
    x, out = "", 0
    for layer in layers:
        parts = [array(part.weight).T for part in (layer.query, layer.key, layer.value, layer.residual)]
        weight, out = np.concatenate(parts, axis=1), parts[0].shape[1]
        if x:
            four = net.add("MatMul", x, weight)
        else:
            context, candidate = (net.add("MatMul", stack, weight) for stack in _stacks(net, row))
            rows = net.add("Shape", row.candidate, start=0, end=1)
            shape = net.add("Concat", rows, net.axes(len(net.context.slots), 4 * out), axis=0)
            four = net.add("Concat", net.add("Expand", context, shape), candidate, axis=1)
        names = [f"{four}_{part}" for part in "qkvr"]
        q, k, v, residual = net.builder.add_many("Split", [four, net.axes(*[out] * 4)], names, axis=2)
        heads = net.axes(-1, F, layer.heads, out // layer.heads)
        q, k, v = (net.add("Reshape", part, heads) for part in (q, k, v))
        q, v = (net.add("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
        scores = net.add("Softmax", net.add("MatMul", q, net.add("Transpose", k, perm=[0, 2, 3, 1])), axis=-1)
        mixed = net.add("Transpose", net.add("MatMul", scores, v), perm=[0, 2, 1, 3])
        x = net.add("Relu", net.add("Add", net.add("Reshape", mixed, net.axes(-1, F, out)), residual))
    head = linear(fc)
    places = np.concatenate([net.places(side, out) for side in net.sides])
    return net.dense(net.add("Reshape", x, net.axes(-1, F * out)), replace(head, weight=head.weight[places]))


def _stacks(net: Net, row: Row) -> list[str]:
    """The two parts of a row with a field a row: (1|N, F_c, d) and (N, F_i, d)."""
    d = len(row.places) // len(net.slots)
    parts = zip((row.context, row.candidate), net.sides, strict=True)
    return [net.add("Reshape", part, net.axes(-1, len(side.slots), d)) for part, side in parts]
