"""FinalMLP (Mao et al., AAAI 2023): two streams over gated tables, joined by a multi-head bilinear form.

The library's class of this name (`model_zoo.LongCTR`) is for item sequences; this is its forward for plain rows, of
the same modules, with the feature gates that the paper has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from model_zoo.LongCTR.FinalMLP.FinalMLP import FeatureSelection, InteractionAggregation

from benchmarks.accuracy.baselines.base import Baseline, hidden, perceptron, rescale_linear, scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class BilinearHeads(InteractionAggregation):  # type: ignore[misc] # the library has no types
    """The library's aggregation of one output, a product a head for all rows at once: its own took half of a run."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Logits (B, 1) of streams x (B, Hx) and y (B, Hy)."""
        heads = self.num_heads
        left, right = x.view(len(x), heads, -1), y.view(len(y), heads, -1)
        products = torch.einsum("bhi,hij->bhj", left, self.w_xy.view(heads, left.shape[2], -1))
        found: Tensor = self.w_x(x) + self.w_y(y) + (products * right).sum((1, 2))[:, None]
        return found


class FinalMLP(Baseline):
    """Two MLP_Blocks, FeatureSelection before and InteractionAggregation behind them."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        width, last = self.embedding_width, hidden(config)[-1]
        self.mlp1, self.mlp2 = (perceptron(width, config) for _ in range(2))
        self.fs_module = FeatureSelection(self.feature_map, width, config["embedding_dim"], config["gate_units"])
        self.fusion_module = BilinearHeads(last, last, output_dim=1, num_heads=config["heads"])

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        feature1, feature2 = self.fs_module(X, self.embedding_layer(X, flatten_emb=True))
        found: Tensor = self.fusion_module(self.mlp1(feature1), self.mlp2(feature2))
        return found

    def rescale(self, slope: float, offset: float) -> None:
        """See `Baseline`."""
        rescale_linear(self.fusion_module.w_x, slope, offset)
        rescale_linear(self.fusion_module.w_y, slope, 0.0)
        scale(slope, self.fusion_module.w_xy)
