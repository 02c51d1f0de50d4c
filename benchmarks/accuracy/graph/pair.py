"""A tower of REACTION's pair as a graph of its own, through the rules and passes that the merged one goes through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.accuracy.graph.exporters import Exported
from benchmarks.accuracy.graph.tower import columns_of
from model_export.fusion import FusionFacts, fuse, fuse_towers
from model_export.passes import apply_passes
from model_export.to_onnx import to_onnx
from training.models.reaction import FusionForm

if TYPE_CHECKING:
    from training.models.reaction import Tower


@torch.no_grad()
def export_tower(tower: Tower) -> tuple[Exported, FusionForm]:
    """The graph of one tower: a fusion form whose other branch has no weight, merged.

    Args:
        tower: In evaluation mode; it is read, not changed.

    Returns:
        The graph, and the form as it is served, which the graph has to agree with.
    """
    form = FusionForm(tower.slots, tower.widths)
    form.tables = tower.tables
    only, other = form.parallel
    only.load_state_dict(tower.body.state_dict(), strict=False)  # a tower has no cross links; a form's are zero
    only.mix.fill_(1.0)
    other.mix.fill_(0.0)
    served = fuse(fuse_towers(form.eval()), FusionFacts())
    return Exported(apply_passes(to_onnx(served)), columns_of(served, tower.slots)), form.serving()
