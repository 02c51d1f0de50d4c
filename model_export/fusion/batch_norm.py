"""A batch norm that no longer learns is a scale and a shift, and folds into the affine map before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_export.fusion.tower import Float


@dataclass(frozen=True)
class Affine:
    """y = x * scale + shift, a unit at a time.

    Attributes:
        scale: (H,).
        shift: (H,).
    """

    scale: Float
    shift: Float


def fold_batch_norm(state: Mapping[str, Float], eps: float) -> Affine:
    """Return the affine map of a batch norm in evaluation mode.

    scale = weight / sqrt(running_var + eps); shift = bias - running_mean * scale.

    Args:
        state: `weight`, `bias`, `running_mean`, `running_var`, each (H,).
        eps: What the norm adds to the variance.
    """
    scale = state["weight"] / np.sqrt(state["running_var"] + eps)
    return Affine(scale=scale, shift=state["bias"] - state["running_mean"] * scale)
