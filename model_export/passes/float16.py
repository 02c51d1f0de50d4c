"""Stores tables in float16: half the bytes; the rows that are looked up, and nothing else, are cast back.

The layers stay in float32: CPUs add and multiply float16 slowly, and it is the tables that are large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from model_export.passes._gathers import node, replace_tables

if TYPE_CHECKING:
    from model_export.graph import Array, Graph
    from model_export.passes._gathers import LookUp, Place


def float16(graph: Graph) -> Graph:
    """Return the graph with tables in float16. What is beyond its range becomes infinite, and fails the gate."""
    return replace_tables(graph, _half, _look_up)


def _half(name: str, table: Array) -> dict[str, Array]:
    with np.errstate(over="ignore"):
        return {name: table.astype(np.float16)}


def _look_up(place: Place) -> LookUp:
    half = f"{place.output}_half"
    gather = node("Gather", [place.table, place.ids], half, axis=0)
    return [gather, node("Cast", [half], place.output, to=TensorProto.FLOAT)], []
