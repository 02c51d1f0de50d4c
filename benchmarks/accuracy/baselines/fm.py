"""FM (Rendle, ICDM 2010): a linear part and the inner products of all pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from fuxictr.pytorch.layers import FactorizationMachine

from benchmarks.accuracy.baselines.base import Baseline, scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class FM(Baseline):
    """FeatureEmbedding, then FactorizationMachine."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        self.fm = FactorizationMachine(self.feature_map)

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        found: Tensor = self.fm(X, self.embedding_layer(X))
        return found

    def rescale(self, slope: float, offset: float) -> None:
        """See `Baseline`; an inner product has the slope when each of its two sides has its root."""
        scale(slope**0.5, *self.embedding_layer.parameters())
        scale(slope, *self.fm.lr_layer.parameters())
        with torch.no_grad():
            self.fm.lr_layer.bias.add_(offset)
