"""DeepFM (Guo et al., IJCAI 2017): FM and a tower over the same tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuxictr.pytorch.layers import FactorizationMachine

from benchmarks.accuracy.baselines.base import Baseline, perceptron

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class DeepFM(Baseline):
    """FactorizationMachine plus MLP_Block."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        self.fm = FactorizationMachine(self.feature_map)
        self.dnn = perceptron(self.embedding_width, config, output_dim=1)

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        e = self.embedding_layer(X)
        found: Tensor = self.fm(X, e) + self.dnn(e.flatten(1))
        return found
