"""xDeepFM (Lian et al., KDD 2018): a compressed interaction network, a tower and a linear part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuxictr.pytorch.layers import CompressedInteractionNet, LogisticRegression

from benchmarks.accuracy.baselines.base import Baseline, perceptron

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class XDeepFM(Baseline):
    """LogisticRegression plus CompressedInteractionNet plus MLP_Block."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        self.lr_layer = LogisticRegression(self.feature_map, use_bias=False)
        self.cin = CompressedInteractionNet(len(self.slots), list(config["cin_units"]))
        self.dnn = perceptron(self.embedding_width, config, output_dim=1)

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        e = self.embedding_layer(X)
        found: Tensor = self.lr_layer(X) + self.cin(e) + self.dnn(e.flatten(1))
        return found
