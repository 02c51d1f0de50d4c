"""EDCN (Chen et al., CIKM 2021): a cross and a deep network that meet after every layer.

A bridge multiplies what both have come to; a regulation gives each its own view of the bridge, its fields weighed by a
softmax (sections 3.2 and 3.3). All layers are as wide as the embedded row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from fuxictr.pytorch.layers import CrossInteraction
from torch import nn

from benchmarks.accuracy.baselines.base import Baseline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class Regulation(nn.Module):
    """x (B, F * d) -> two views of it, every field weighed by the F-fold of a softmax over fields."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2, fields))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the fields for the cross and for the deep network."""
        F = self.weights.shape[1]
        fields = x.view(len(x), F, -1)
        cross, deep = ((fields * (gate.softmax(0) * F)[None, :, None]).flatten(1) for gate in self.weights)
        return cross, deep


class EDCN(Baseline):
    """[cross, deep, bridge], then a linear layer."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        width, layers = self.embedding_width, config["cross_layers"]
        self.cross = nn.ModuleList(CrossInteraction(width) for _ in range(layers))
        norm = nn.BatchNorm1d if config["batch_norm"] else nn.Identity
        self.deep = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), norm(width), nn.ReLU(), nn.Dropout(config["dropout"]))
            for _ in range(layers)
        )
        self.regulations = nn.ModuleList(Regulation(len(self.slots)) for _ in range(layers))
        self.fc = nn.Linear(3 * width, 1)

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        bridge = self.embedding_layer(X, flatten_emb=True)
        x0: Tensor | None = None
        for cross_layer, deep_layer, regulation in zip(self.cross, self.deep, self.regulations, strict=True):
            cross, deep = regulation(bridge)
            x0 = cross if x0 is None else x0
            cross = cross + cross_layer(x0, cross)
            deep = deep_layer(deep)
            bridge = cross * deep
        found: Tensor = self.fc(torch.cat([cross, deep, bridge], -1))
        return found
