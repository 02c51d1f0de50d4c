"""FwFM (Pan et al., WWW 2018): FM with a weight for each pair of fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuxictr.pytorch.layers import InnerProductInteraction, LogisticRegression
from torch import nn

from benchmarks.accuracy.baselines.base import Baseline, rescale_linear, scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class FwFM(Baseline):
    """InnerProductInteraction weighted by a linear layer, and LogisticRegression."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        fields = len(self.slots)
        self.inner_product_layer = InnerProductInteraction(fields, output="inner_product")
        self.interaction_weight_layer = nn.Linear(fields * (fields - 1) // 2, 1)
        self.lr_layer = LogisticRegression(self.feature_map, use_bias=False)

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        pairs = self.interaction_weight_layer(self.inner_product_layer(self.embedding_layer(X)))
        found: Tensor = pairs + self.lr_layer(X)
        return found

    def rescale(self, slope: float, offset: float) -> None:
        """See `Baseline`."""
        rescale_linear(self.interaction_weight_layer, slope, offset)
        scale(slope, *self.lr_layer.parameters())
