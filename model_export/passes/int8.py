"""Stores tables in int8 with one float32 scale a row; the rows that are looked up, and nothing else, are scaled back.

    q = round(row / scale), scale = max |row| / 127

so an all-zero row, such as the pad's, stays exactly zero. A look-up is two Gathers by flat ids and a DequantizeLinear
along the rows. `python -m tests.model_export.bench_tables look-ups` times it against Gather, Cast and Mul, which take
longer, and com.microsoft.GatherBlockQuantized, which does all in one node and takes far longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from model_export.passes._gathers import constant, node, replace_tables

if TYPE_CHECKING:
    from model_export.graph import Array, Graph
    from model_export.passes._gathers import LookUp, Place

LARGEST: Final = 127  # -128 is left out, so that the range is even
_CHUNK_ROWS: Final = 1 << 16  # at a time, so that a large table needs no second one of its size


def int8(graph: Graph) -> Graph:
    """Return the graph with tables in int8. What is not finite stays so by its scale, and fails the gate."""
    return replace_tables(graph, _quantised, _look_up)


def quantise(table: Array) -> tuple[Array, Array]:
    """Return int8 (V, d) and the scales of its rows, float32 (V,)."""
    values = np.empty(table.shape, np.int8)
    scales = np.empty(len(table), np.float32)
    for start in range(0, len(table), _CHUNK_ROWS):
        rows = table[start : start + _CHUNK_ROWS].astype(np.float32, copy=False)
        largest = np.abs(rows).max(axis=1, initial=0.0)
        scale = np.where(largest > 0.0, largest / np.float32(LARGEST), np.float32(1.0)).astype(np.float32)
        scale = np.maximum(scale, np.finfo(np.float32).tiny)  # a row of denormals has no scale to divide by
        scales[start : start + _CHUNK_ROWS] = scale
        with np.errstate(invalid="ignore"):
            scaled = np.rint(rows / scale[:, None])
        values[start : start + _CHUNK_ROWS] = np.nan_to_num(scaled, nan=LARGEST)
    return values, scales


def _quantised(name: str, table: Array) -> dict[str, Array]:
    values, scales = quantise(table)
    return {name: values, f"{name}_scale": scales}


def _look_up(place: Place) -> LookUp:
    flat, rows, scales, exact, every = (f"{place.output}_{part}" for part in ("ids", "int8", "scale", "rows", "flat"))
    nodes = [
        node("Reshape", [place.ids, every], flat),
        node("Gather", [place.table, flat], rows, axis=0),
        node("Gather", [f"{place.table}_scale", flat], scales, axis=0),
    ]
    constants = [constant(every, -1)]
    if place.reshaped:
        return [*nodes, node("DequantizeLinear", [rows, scales], place.output, axis=0)], constants
    shape = constant(f"{place.output}_shape", -1, place.columns, place.dim)
    nodes.append(node("DequantizeLinear", [rows, scales], exact, axis=0))
    nodes.append(node("Reshape", [exact, shape.name], place.output))
    return nodes, [*constants, shape]
