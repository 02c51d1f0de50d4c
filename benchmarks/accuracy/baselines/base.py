"""What all baselines share: FuxiCTR's layers on our encoded ids, without its files, loaders and trainer.

Shapes: B rows, F fields, d columns of every table, Cc and Ci columns of the two id matrices.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbedding, FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models.rank_model import BaseModel
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from training.models.base import slot_ids

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.models.base import FieldSlot

logging.getLogger().setLevel(logging.WARNING)  # the library tells of every table through the root logger

TABLE_STD = 1e-4
"""Of initial table values; the library's default."""

POOLING = {"mean": "layers.MaskedAveragePooling()", "sum": "layers.MaskedSumPooling()"}


def feature_name(place: int) -> str:
    """What slot number `place` is called among the library's features (a module's name holds no dot)."""
    return f"field{place}"


def feature_map(slots: Sequence[FieldSlot], embedding_dim: int) -> Any:
    """The library's description of our fields: ids as they are, multi-valued ones as sequences with masked pooling."""
    features = FeatureMap("reaction", ".")
    features.default_emb_dim = embedding_dim
    for place, slot in enumerate(slots):
        spec: dict[str, Any] = {"type": "categorical", "source": slot.side, "vocab_size": slot.rows}
        if slot.pooling is not None:
            spec |= {"type": "sequence", "max_len": slot.width, "padding_idx": slot.pad_id}
            spec["feature_encoder"] = POOLING[slot.pooling]
        features.features[feature_name(place)] = spec
    features.labels = ["label"]
    features.num_fields = features.get_num_fields()
    features.set_column_index()
    return features


class Baseline(nn.Module):
    """A model of the field over our ids.

    Args:
        slots: The fields; their `dim` is not used, every table has `embedding_dim` columns.
        embedding_dim: d.

    Attributes:
        slots: The fields.
        feature_map: The library's description of them.
        embedding_layer: The library's tables.
    """

    def __init__(self, slots: Sequence[FieldSlot], embedding_dim: int) -> None:
        super().__init__()
        self.slots = tuple(slots)
        self.feature_map = feature_map(slots, embedding_dim)
        self.embedding_layer = FeatureEmbedding(self.feature_map, embedding_dim)

    @property
    def embedding_width(self) -> int:
        """F * d."""
        return int(self.feature_map.sum_emb_out_dim())

    def inputs(self, context_ids: Tensor, candidate_ids: Tensor) -> dict[str, Tensor]:
        """Ids by the library's feature names: (B,), or (B, width) of a multi-valued field.

        Args:
            context_ids: (B | 1, Cc); one row is shared by all candidates.
            candidate_ids: (B, Ci).
        """
        B = max(len(context_ids), len(candidate_ids))
        found: dict[str, Tensor] = OrderedDict()
        for place, slot in enumerate(self.slots):
            ids = slot_ids(slot, context_ids, candidate_ids).expand(B, -1)
            found[feature_name(place)] = ids if slot.pooling is not None else ids[:, 0]
        return found

    @abstractmethod
    def logits(self, X: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, 1) of the library's inputs."""

    def forward(self, context_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Logits (B,)."""
        return self.logits(self.inputs(context_ids, candidate_ids)).squeeze(1)

    def objective(self, X: Mapping[str, Tensor], label: Tensor, weight: Tensor | None) -> Tensor:
        """The loss that is trained, without regularisation: the mean log loss, unless a model adds to it.

        Args:
            X: The library's inputs.
            label: (B, 1) of 0 and 1, or probabilities.
            weight: (B, 1) or None.
        """
        return binary_cross_entropy_with_logits(self.logits(X), label, weight)

    def rescale(self, slope: float, offset: float) -> None:
        """Change the last layer's weights so that each logit becomes slope * logit + offset.

        Raises:
            NotImplementedError: A model that is run at usual settings alone.
        """
        raise NotImplementedError(f"{type(self).__name__}: expected a model that is tuned")

    def table_parameters(self) -> list[nn.Parameter]:
        """What the library's `embedding_regularizer` is about: all tables, those of a linear part included."""
        found: dict[int, nn.Parameter] = {}
        for module in self.modules():
            if isinstance(module, FeatureEmbeddingDict):
                found |= {id(p): p for p in module.parameters() if p.requires_grad}
        return list(found.values())


@torch.no_grad()
def initialise(model: Baseline) -> None:
    """Draw initial values as the library's `BaseModel` does.

    It expects a pad's id to be 0 and leaves that row alone; ours is another, so of a multi-valued field's table row 0
    is drawn too, and the pad's row is zero. The optimiser keeps it there: `nn.Embedding` gives it no gradient.
    """
    BaseModel.reset_parameters(model)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.normal_(module.weight, std=TABLE_STD)
            module.weight[module.padding_idx] = 0.0


@torch.no_grad()
def scale(slope: float, *parameters: Tensor) -> None:
    """Multiply parameters in place."""
    for parameter in parameters:
        parameter.mul_(slope)


@torch.no_grad()
def rescale_linear(layer: Any, slope: float, offset: float) -> None:
    """Change a linear layer so that each output y becomes slope * y + offset."""
    layer.weight.mul_(slope)
    layer.bias.mul_(slope).add_(offset)


def hidden(config: Mapping[str, Any]) -> list[int]:
    """A fresh list of a config's hidden widths: the library's blocks take lists only."""
    return [int(width) for width in config["hidden_units"]]


def perceptron(width: int, config: Mapping[str, Any], *, output_dim: int | None = None) -> Any:
    """The library's MLP_Block as a config describes it, over inputs (B, width); to hidden units if no output_dim."""
    return MLP_Block(
        input_dim=width,
        output_dim=output_dim,
        hidden_units=hidden(config),
        hidden_activations="ReLU",
        dropout_rates=config["dropout"],
        batch_norm=config["batch_norm"],
    )
