"""Dense layers of baselines as plain arrays: batch norm folded into the linear layer beside it, dropout gone.

Modules are FuxiCTR's and torch's own, read by their attributes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from torch import nn

from benchmarks.accuracy.baselines.base import feature_name
from benchmarks.accuracy.graph.lookups import Tables
from model_export.errors import GraphError
from model_export.fusion.batch_norm import Affine, fold_batch_norm

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from training.models.base import FieldSlot

    Float = NDArray[np.float64]

_POOLINGS: Final[dict[str, Literal["sum", "mean"]]] = {"MaskedSumPooling": "sum", "MaskedAveragePooling": "mean"}
_ACTIVATIONS: Final = {"ReLU": "Relu", "Sigmoid": "Sigmoid", "Tanh": "Tanh", "Identity": ""}


@dataclass(frozen=True)
class Layer:
    """x W + b, and an activation.

    Attributes:
        weight: (inputs, outputs).
        bias: (outputs,).
        activation: An ONNX operator; "" for none.
    """

    weight: Float
    bias: Float
    activation: str = ""

    def scaled_inputs(self, affine: Affine) -> Layer:
        """The layer after x * scale + shift."""
        bias = self.bias + affine.shift @ self.weight
        return replace(self, weight=affine.scale[:, None] * self.weight, bias=bias)

    def scaled_outputs(self, affine: Affine) -> Layer:
        """The layer before y * scale + shift."""
        return replace(self, weight=self.weight * affine.scale, bias=self.bias * affine.scale + affine.shift)


def array(tensor: Tensor) -> Float:
    """A tensor in float64."""
    return np.asarray(tensor.detach().cpu().numpy(), np.float64)


def linear(module: Any) -> Layer:
    """A torch Linear."""
    weight = array(module.weight).T
    return Layer(weight, np.zeros(weight.shape[1]) if module.bias is None else array(module.bias))


def batch_norm(module: Any) -> Affine:
    """A torch BatchNorm1d that no longer learns."""
    state = {name: array(value) for name, value in module.state_dict().items() if name != "num_batches_tracked"}
    ones = np.ones_like(state["running_mean"])
    return fold_batch_norm({"weight": ones, "bias": 0 * ones, **state}, module.eps)


def block(modules: Iterable[nn.Module]) -> list[Layer]:
    """Fold a sequence of Linear, BatchNorm1d, activations and Dropout, as an `MLP_Block` holds in `mlp`.

    Raises:
        GraphError: A module that has no folded form here, or a batch norm with no linear layer beside it.
    """
    layers: list[Layer] = []
    waiting: Affine | None = None
    for module in modules:
        kind = type(module).__name__
        if isinstance(module, nn.Linear):
            layer = linear(module)
            layers.append(layer if waiting is None else layer.scaled_inputs(waiting))
            waiting = None
        elif isinstance(module, nn.BatchNorm1d):
            if layers and not layers[-1].activation:
                layers[-1] = layers[-1].scaled_outputs(batch_norm(module))
            else:
                waiting = batch_norm(module)
        elif kind in _ACTIVATIONS and layers:
            layers[-1] = replace(layers[-1], activation=_ACTIVATIONS[kind])
        elif not isinstance(module, nn.Dropout):
            raise GraphError(f"expected Linear, BatchNorm1d, Dropout or one of {sorted(_ACTIVATIONS)}, got {kind}")
    if waiting is not None:
        raise GraphError("expected a linear layer after a batch norm, got none")
    return layers


def tables(embedding: Any, slots: Sequence[FieldSlot]) -> Tables:
    """The tables of a FuxiCTR `FeatureEmbedding`, and how it pools; pads count as zero rows.

    Args:
        embedding: The module.
        slots: The fields that have a table there.
    """
    held = getattr(embedding, "embedding_layer", embedding)
    values, pooling = {}, {}
    for place, slot in enumerate(slots):
        name = feature_name(place)
        table = array(held.embedding_layers[name].weight)
        if slot.pooling is not None:
            pooling[slot.name] = _POOLINGS[type(held.feature_encoders[name]).__name__]
            table[slot.pad_id] = 0.0
        values[slot.name] = table
    return Tables(values, pooling)
