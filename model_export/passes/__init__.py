"""Graph passes: graph in, new graph out. `PASSES` run in order; a pass is one file and one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model_export.passes.check import check
from model_export.passes.clean import clean
from model_export.passes.optimise import optimise

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_export.graph import Graph

__all__ = ["PASSES", "apply_passes"]

PASSES: Final[dict[str, Callable[[Graph], Graph]]] = {
    "optimise": optimise,
    "clean": clean,
    "check": check,
}


def apply_passes(graph: Graph) -> Graph:
    """Apply every pass in order."""
    for transform in PASSES.values():
        graph = transform(graph)
    return graph
