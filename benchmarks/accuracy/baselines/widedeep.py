"""Wide & Deep (Cheng et al., DLRS 2016): a linear part beside a tower, here over the same single fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuxictr.pytorch.layers import LogisticRegression

from benchmarks.accuracy.baselines.base import Baseline, perceptron

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from training.models.base import FieldSlot


class WideDeep(Baseline):
    """LogisticRegression plus MLP_Block."""

    def __init__(self, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> None:
        super().__init__(slots, config["embedding_dim"])
        self.lr_layer = LogisticRegression(self.feature_map, use_bias=False)
        self.dnn = perceptron(self.embedding_width, config, output_dim=1)

    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """See `Baseline`."""
        found: Tensor = self.lr_layer(X) + self.dnn(self.embedding_layer(X, flatten_emb=True))
        return found
