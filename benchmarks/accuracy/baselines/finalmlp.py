"""FinalMLP (Mao et al., AAAI 2023): two streams over gated tables, joined by a multi-head bilinear form.

The library's class of this name (`model_zoo.LongCTR`) is for item sequences; this is its forward for plain rows, of
the same modules, with the feature gates that the paper has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model_zoo.LongCTR.FinalMLP.FinalMLP import FeatureSelection, InteractionAggregation

from benchmarks.accuracy.baselines.base import Baseline, hidden, perceptron

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class FinalMLP(Baseline):
    """Two MLP_Blocks, FeatureSelection before and InteractionAggregation behind them."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        width, last = self.embedding_width, hidden(config)[-1]
        self.mlp1, self.mlp2 = (perceptron(width, config) for _ in range(2))
        self.fs_module = FeatureSelection(self.feature_map, width, config["embedding_dim"], config["gate_units"])
        self.fusion_module = InteractionAggregation(last, last, output_dim=1, num_heads=config["heads"])

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        feature1, feature2 = self.fs_module(X, self.embedding_layer(X, flatten_emb=True))
        found: Tensor = self.fusion_module(self.mlp1(feature1), self.mlp2(feature2))
        return found
