"""Graph passes: graph in, new graph out. A pass is one file and one line here.

`PASSES` run in order on every graph and give the one with float32 tables; `TABLE_PASSES` make others of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model_export.passes.check import check
from model_export.passes.clean import clean
from model_export.passes.float16 import float16
from model_export.passes.int8 import int8
from model_export.passes.optimise import optimise
from model_export.passes.share_rows import share_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_export.graph import Graph
    from service.bundle import ReducedPrecision

__all__ = ["PASSES", "TABLE_PASSES", "apply_passes", "apply_table_pass"]

PASSES: Final[dict[str, Callable[[Graph], Graph]]] = {
    "optimise": optimise,
    "share_rows": share_rows,
    "clean": clean,
    "check": check,
}

TABLE_PASSES: Final[dict[ReducedPrecision, Callable[[Graph], Graph]]] = {
    "float16": float16,
    "int8": int8,
}


def apply_passes(graph: Graph) -> Graph:
    """Apply every pass in order."""
    for transform in PASSES.values():
        graph = transform(graph)
    return graph


def apply_table_pass(graph: Graph, precision: ReducedPrecision) -> Graph:
    """Return a graph that went through every pass with its tables in another precision, canonical and checked."""
    return check(clean(TABLE_PASSES[precision](graph)))
