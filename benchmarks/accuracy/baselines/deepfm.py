"""DeepFM (Guo et al., IJCAI 2017): FM and a tower over the same tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuxictr.pytorch.layers import FactorizationMachine, MLP_Block

from benchmarks.accuracy.baselines.base import Baseline, hidden

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class DeepFM(Baseline):
    """FactorizationMachine plus MLP_Block."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        self.fm = FactorizationMachine(self.feature_map)
        self.dnn = MLP_Block(
            input_dim=self.embedding_width,
            output_dim=1,
            hidden_units=hidden(config),
            hidden_activations="ReLU",
            dropout_rates=config["dropout"],
            batch_norm=config["batch_norm"],
        )

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        e = self.embedding_layer(X)
        found: Tensor = self.fm(X, e) + self.dnn(e.flatten(1))
        return found
