"""AutoInt+ (Song et al., CIKM 2019): self-attention between fields, a tower and a linear part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuxictr.pytorch.layers import LogisticRegression, ScaledDotProductAttention
from torch import nn

from benchmarks.accuracy.baselines.base import Baseline, perceptron

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class FieldAttention(nn.Module):
    """e (B, F, in) -> (B, F, heads * width): multi-head self-attention, a linear residual, ReLU (section 4.4)."""

    def __init__(self, width_in: int, width: int, heads: int) -> None:
        super().__init__()
        out = width * heads
        self.query, self.key, self.value = (nn.Linear(width_in, out, bias=False) for _ in range(3))
        self.residual = nn.Linear(width_in, out, bias=False)
        self.attention = ScaledDotProductAttention()
        self.heads = heads

    def forward(self, e: Tensor) -> Tensor:
        """Apply the layer."""
        B, F, _ = e.shape
        q, k, v = (part(e).view(B, F, self.heads, -1).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed, _ = self.attention(q, k, v)
        found: Tensor = (mixed.transpose(1, 2).reshape(B, F, -1) + self.residual(e)).relu()
        return found


class AutoInt(Baseline):
    """Attention layers and a linear output, plus LogisticRegression, plus MLP_Block."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        width, heads = config["attention_width"], config["attention_heads"]
        widths = [config["embedding_dim"], *[width * heads] * config["attention_layers"]]
        self.attention = nn.Sequential(*(FieldAttention(before, width, heads) for before in widths[:-1]))
        self.fc = nn.Linear(len(self.slots) * widths[-1], 1)
        self.lr_layer = LogisticRegression(self.feature_map, use_bias=False)
        self.dnn = perceptron(self.embedding_width, config, output_dim=1)

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        e = self.embedding_layer(X)
        attended = self.fc(self.attention(e).flatten(1))
        found: Tensor = attended + self.lr_layer(X) + self.dnn(e.flatten(1))
        return found
