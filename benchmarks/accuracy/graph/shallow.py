"""LR, FM and FwFM: what both sides add up to, the context's share once a request.

Shapes: N candidates, F fields, d columns of a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.accuracy.graph.lookups import Tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.accuracy.graph.lookups import Side
    from benchmarks.accuracy.graph.net import Net

    Float = NDArray[np.float64]


def linear_logit(net: Net, weights: Tables, bias: float) -> str:
    """One-hot LR, b + sum_f w_f: (N, 1). The bias is in a table of the context's."""
    context, candidate = (side.total(_with_bias(net, weights, bias)) for side in net.sides)
    return net.add("Add", context, candidate)


def fm_logit(net: Net, vectors: Tables, weights: Tables, bias: float) -> str:
    """Factorization machine (Rendle, ICDM 2010, eq. 1): (N, 1).

    sum_{f<g} <v_f, v_g> = (|sum_f v_f|^2 - sum_f |v_f|^2) / 2. With v scaled by sqrt(1/2), |v_f|^2 of a single-valued
    field is a constant of its id and goes into its weight; weight and vector are one row of one table.
    """
    scaled = Tables({name: value * np.sqrt(0.5) for name, value in vectors.values.items()}, vectors.pooling)
    weights = _with_bias(net, weights, bias)
    singles = {slot.name for slot in net.slots if slot.pooling is None}
    joined = {
        name: np.concatenate([v, weights.values[name] - (v**2).sum(axis=1, keepdims=True)], axis=1)
        for name, v in scaled.values.items()
        if name in singles
    }
    context, candidate = (_fm_sums(net, side, Tables(joined, {}), scaled, weights) for side in net.sides)
    sums = net.add("Add", context, candidate)
    d = scaled.dim
    vector, weight = net.builder.add_many("Split", [sums, net.axes(d, 1)], [f"{sums}_v", f"{sums}_w"], axis=1)
    return net.add("Add", net.add("ReduceSumSquare", vector, axes=[1], keepdims=1), weight)


def _fm_sums(net: Net, side: Side, joined: Tables, vectors: Tables, weights: Tables) -> str:
    """[sum_f v_f, sum_f w_f - |v_f|^2] of one side: (rows, d + 1)."""
    parts = []
    if side.singles:
        rows = side.vectors(joined)
        parts.append(net.add("ReduceSum", rows, net.axes(1), keepdims=0))
    for slot in side.multis:
        v, w = side.pooled(slot.name, vectors), side.pooled(slot.name, weights)
        square = net.add("ReduceSumSquare", v, axes=[1], keepdims=1)
        parts.append(net.add("Concat", v, net.add("Sub", w, square), axis=1))
    return net.sum(parts)


def fwfm_logit(net: Net, vectors: Tables, pairs: Float, weights: Tables, bias: float) -> str:
    """Field-weighted FM (Pan et al., WWW 2018, eq. 4): (N, 1).

    sum_{f<g} r_fg <v_f, v_g> = x^T (R (x) I_d) x / 2 of the row x of all vectors side by side. With x = [c; i]: the
    context's own part is one number and its part with the candidates one row g, both once a request, so a candidate
    costs <i, R_ii i / 2 + g>. A weight is one column more of its vector, in which R has no part and g a one: the same
    look-up and the same product give the linear part too.

    Args:
        net: The graph.
        vectors: v_f.
        pairs: R (F, F), symmetric, zero on the diagonal, in the model's order of fields.
        weights: w_f.
        bias: b.
    """
    F, d = len(net.slots), vectors.dim
    weights = _with_bias(net, weights, bias)
    linear = np.arange(d + 1) == d
    matrix = np.kron(pairs, np.diag(~linear))
    places = [net.places(side, d + 1) for side in net.sides]
    own, across, inner = (matrix[np.ix_(places[i], places[j])] for i, j in ((0, 0), (0, 1), (1, 1)))
    ones = [np.tile(linear, len(side.slots)).astype(np.float64) for side in net.sides]
    stored = sum(part.size for part in (own, across, inner)) + sum({one.size for one in ones})  # equal ones once
    net.expanded += stored - F * (F - 1) // 2
    context, candidate = (_with_weights(side, vectors, weights) for side in net.sides)
    start = _quadratic(net, context, net.add("Gemm", context, own / 2, ones[0]))
    given = net.add("Gemm", context, across, ones[1])
    return net.add("Add", start, _quadratic(net, candidate, net.add("Gemm", candidate, inner / 2, given)))


def _with_weights(side: Side, vectors: Tables, weights: Tables) -> str:
    """[v_f, w_f] of one side's fields side by side: (rows, F (d + 1)).

    Where the library sums weights and takes the mean of vectors, and there alone, the two are looked up apart.
    """
    rows = {name: np.concatenate([v, weights.values[name]], axis=1) for name, v in vectors.values.items()}
    joined = Tables(rows, vectors.pooling)
    pooled = []
    for slot in side.multis:
        apart = vectors.pooling[slot.name] != weights.pooling[slot.name]
        pooled += [side.pooled(slot.name, tables) for tables in ([vectors, weights] if apart else [joined])]
    return side.flat(joined, pooled)


def _quadratic(net: Net, x: str, y: str) -> str:
    return net.add("ReduceSum", net.add("Mul", x, y), net.axes(1), keepdims=1)


def _with_bias(net: Net, weights: Tables, bias: float) -> Tables:
    """The tables with the bias in one that every request reads exactly once."""
    side = net.context if net.context.singles else net.candidate
    name = side.singles[0].name
    return Tables({**weights.values, name: weights.values[name] + bias}, weights.pooling)
