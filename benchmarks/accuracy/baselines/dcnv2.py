"""DCNv2, parallel form (Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021): cross network beside a tower.

The library's class of this name (`model_zoo.LongCTR`) is for item sequences; this is its forward for plain rows, of
the same layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from fuxictr.pytorch.layers import CrossNetV2
from torch import nn

from benchmarks.accuracy.baselines.base import Baseline, hidden, perceptron, rescale_linear

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class DCNv2(Baseline):
    """[CrossNetV2(e), MLP_Block(e)], then a linear layer."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        width = self.embedding_width
        self.crossnet = CrossNetV2(width, config["cross_layers"])
        self.parallel_dnn = perceptron(width, config)
        self.fc = nn.Linear(width + hidden(config)[-1], 1)

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        e = self.embedding_layer(X, flatten_emb=True)
        found: Tensor = self.fc(torch.cat([self.crossnet(e), self.parallel_dnn(e)], -1))
        return found

    def rescale(self, slope: float, offset: float) -> None:
        """See `Baseline`."""
        rescale_linear(self.fc, slope, offset)
