"""DNN: tables and one tower (Covington, Adams, Sargin, RecSys 2016, as CTR benchmarks have it)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.accuracy.baselines.base import Baseline, perceptron, rescale_linear

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class DNN(Baseline):
    """FeatureEmbedding, then MLP_Block."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        self.mlp = perceptron(self.embedding_width, config, output_dim=1)

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        found: Tensor = self.mlp(self.embedding_layer(X, flatten_emb=True))
        return found

    def rescale(self, slope: float, offset: float) -> None:
        """See `Baseline`."""
        rescale_linear(self.mlp.mlp[-1], slope, offset)
