"""GDCN, parallel form (Wang et al., CIKM 2023): a cross network whose every layer is gated, beside a tower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from benchmarks.accuracy.baselines.base import Baseline, hidden, perceptron

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class GatedCross(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) * sigmoid(V_l x_l) + x_l, all (B, width) (equation 3)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.gate = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))

    def forward(self, x0: Tensor) -> Tensor:
        """Apply all layers."""
        x = x0
        for cross, gate in zip(self.cross, self.gate, strict=True):
            x = x0 * cross(x) * torch.sigmoid(gate(x)) + x
        return x


class GDCN(Baseline):
    """[GatedCross(e), MLP_Block(e)], then a linear layer."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        self.cross = GatedCross(self.embedding_width, config["cross_layers"])
        self.dnn = perceptron(self.embedding_width, config)
        self.fc = nn.Linear(self.embedding_width + hidden(config)[-1], 1)

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        e = self.embedding_layer(X, flatten_emb=True)
        found: Tensor = self.fc(torch.cat([self.cross(e), self.dnn(e)], -1))
        return found
