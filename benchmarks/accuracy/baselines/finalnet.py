"""FinalNet, two blocks (Zhu et al., "FINAL: Factorized Interaction Layer for CTR Prediction", SIGIR 2023).

The library's package on the index does not hold it. A factorised interaction layer (section 3.1) is a linear layer cut
in two halves, h2 and h1, whose output joins h2 and h1 * h2, so L layers reach degree 2^L. A block stacks such layers,
each with a batch norm; two blocks, the first behind feature gates, average their logits, and each is also taught the
probability of the average (section 3.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.accuracy.baselines.base import Baseline, hidden, rescale_linear

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.models.base import FieldSlot


class FactorisedLayer(nn.Module):
    """x (B, in) -> [h2, h1 * h2] (B, out), where [h2, h1] = W x + b."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width_out)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        h2, h1 = self.linear(x).chunk(2, -1)
        return torch.cat([h2, h1 * h2], -1)


class FeatureGates(nn.Module):
    """e (B, F, d) -> [e, e * g] (B, 2 F, d): each gate is linear in a column's F values; at first all are 1."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.linear = nn.Linear(fields, fields)

    def init_weights(self) -> None:
        """Start as the identity; the library's initialisation calls this."""
        nn.init.zeros_(self.linear.weight)
        nn.init.ones_(self.linear.bias)

    def forward(self, e: Tensor) -> Tensor:
        """Apply the gates."""
        gates = self.linear(e.transpose(1, 2)).transpose(1, 2)
        return torch.cat([e, e * gates], 1)


def block(width: int, config: Mapping[str, Any]) -> nn.Sequential:
    """Factorised layers, each with batch norm (unless a config goes without) and dropout, and a linear output."""
    layers: list[nn.Module] = []
    norm = nn.BatchNorm1d if config.get("batch_norm", True) else nn.Identity
    for out in hidden(config):
        layers += [FactorisedLayer(width, out), norm(out), nn.Dropout(config["dropout"])]
        width = out
    return nn.Sequential(*layers, nn.Linear(width, 1))


class FinalNet(Baseline):
    """Two blocks; the logit is their mean."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        self.gates = FeatureGates(len(self.slots))
        self.block1 = block(2 * self.embedding_width, config)
        self.block2 = block(self.embedding_width, config)

    def both(self, X: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, 1) of each block."""
        e = self.embedding_layer(X)
        return self.block1(self.gates(e).flatten(1)), self.block2(e.flatten(1))

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        first, second = self.both(X)
        return 0.5 * (first + second)

    def objective(self, X: Mapping[str, Tensor], label: Tensor, weight: Tensor | None) -> Tensor:
        """The log loss of the mean logit, and of each block against the mean's probability as it stands."""
        first, second = self.both(X)
        mean = 0.5 * (first + second)
        taught = torch.sigmoid(mean).detach()
        parts = ((mean, label), (first, taught), (second, taught))
        return torch.stack([binary_cross_entropy_with_logits(z, y, weight) for z, y in parts]).sum()

    def rescale(self, slope: float, offset: float) -> None:
        """See `Baseline`."""
        for one in (self.block1, self.block2):  # their mean has the same slope and offset
            rescale_linear(one[-1], slope, offset)
