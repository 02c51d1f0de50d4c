"""The dense layers of a trained model as plain matrices, batch norm folded in, so that their parts can be weighed.

Shapes: N rows, D columns of the embedded row, H_0..H_{L-1} hidden widths, L + 1 affine layers.

    h_0 = x (N, D);  h_{l+1} = relu(h_l W_l + b_l) for l < L;  logit = h_L W_L + b_L + (h_0 W_0 + b_0)^2 q

A batch norm in evaluation is affine, and so are gates, cross links and the mixing of the fusion form's branches: all of
them go into W and b. The fields' projections are the first layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from training.models.base import embed
from training.models.reaction import FusionForm, Tower

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from training.models.reaction import Branch

Floats: TypeAlias = "NDArray[np.float64]"

ROWS = 1 << 13
"""Rows embedded or scored at once."""


@dataclass(frozen=True)
class Affine:
    """x W + b. Attributes: weight (inputs, outputs) and bias (outputs,)."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class DenseTower:
    """A model behind its tables.

    Attributes:
        layers: The last gives the logit.
        quadratic: q (H_0,), what a square of the first layer's pre-activations adds to the logit; None for nothing.
    """

    layers: tuple[Affine, ...]
    quadratic: Floats | None = None

    @property
    def weights(self) -> int:
        """Numbers in the matrices."""
        return sum(layer.weight.size for layer in self.layers)

    @property
    def squares(self) -> int:
        """Numbers in q."""
        return 0 if self.quadratic is None else self.quadratic.size

    @property
    def biases(self) -> int:
        """Numbers in the biases."""
        return sum(layer.bias.size for layer in self.layers)

    @property
    def parameters(self) -> int:
        """All dense parameters."""
        return self.weights + self.biases + self.squares

    def logits(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits (N,) of embedded rows (N, D), in float32 and in bounded memory."""
        layers = [(layer.weight.astype(np.float32), layer.bias.astype(np.float32)) for layer in self.layers]
        parts = []
        for start in range(0, len(x), ROWS):
            h = x[start : start + ROWS]
            squares = np.zeros(len(h), np.float32)
            for place, (weight, bias) in enumerate(layers[:-1]):
                h = h @ weight
                h += bias
                if place == 0 and self.quadratic is not None:
                    squares = np.square(h) @ self.quadratic.astype(np.float32)
                np.maximum(h, 0.0, out=h)
            weight, bias = layers[-1]
            parts.append((h @ weight + bias)[:, 0] + squares)
        return np.concatenate(parts).astype(np.float64)


def folded(model: Tower | FusionForm) -> DenseTower:
    """The dense layers of a tower alone, or of the fusion form merged into one tower."""
    if isinstance(model, Tower):
        parts = [list(_affine(model.body, 1.0))]
    else:
        parts = [list(_affine(branch, float(branch.mix))) for branch in model.parallel]
    return DenseTower(
        tuple(
            Affine(np.sum([part.weight for part in layer], axis=0), np.sum([part.bias for part in layer], axis=0))
            for layer in zip(*parts, strict=True)
        ),
        _squares(model),
    )


def _squares(model: Tower | FusionForm) -> Floats | None:
    shares = [(1.0, model.body)] if isinstance(model, Tower) else [(float(b.mix), b) for b in model.parallel]
    found = np.sum([share * body.quadratic.detach().double().numpy() for share, body in shares], axis=0)
    return found if found.any() else None


@torch.no_grad()
def _affine(branch: Branch, mix: float) -> Iterator[Affine]:
    """A branch's layers, times its share, and the cross links that lead into it."""
    for place, norm in enumerate(branch.norm_layers):
        if norm.running_mean is None or norm.running_var is None:  # never: our norms keep statistics
            raise ValueError("expected a batch norm with statistics")
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = norm.bias.double() - norm.running_mean.double() * scale
        if place == 0:
            weight, bias = branch.weight().double() * scale, shift
        else:
            linear = branch.linear_layers[place - 1]
            weight, bias = linear.weight.double().T * scale, linear.bias.double() * scale + shift
        weight, bias = mix * weight, mix * bias
        if place and branch.cross_layers:
            weight = weight + branch.cross_layers[place - 1].weight.double().T
        yield Affine(weight.numpy(), bias.numpy())
    yield Affine(mix * branch.output.weight.double().T.numpy(), mix * branch.output.bias.double().numpy())


@torch.inference_mode()
def embedded(
    model: Tower | FusionForm, context_ids: NDArray[np.int32], candidate_ids: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Rows (N, D) as the first dense layer reads them."""
    parts = []
    for start in range(0, len(candidate_ids), ROWS):
        ids = (torch.from_numpy(np.array(side[start : start + ROWS])).long() for side in (context_ids, candidate_ids))
        parts.append(embed(model.slots, list(model.tables), *ids).float().numpy())
    return np.concatenate(parts)
