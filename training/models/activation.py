"""ReLU and dropout in one: cheap random bits, one tensor kept for the backward.

On a CPU half of a small tower's step was the drawing of dropout's masks: a bit of its own generator call a unit.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_LEVELS = 1 << 16


class _DroppedRelu(torch.autograd.Function):
    """dropout(relu(x)): a unit is dropped where 16 random bits are below a threshold."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: int) -> Tensor:
        ctx.scale = _LEVELS / (_LEVELS - threshold)
        out = torch.clamp_min(pre, 0.0).mul_(_kept(pre, threshold).mul_(ctx.scale))
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors  # positive where the unit was both active and kept
        return torch.ops.aten.threshold_backward(gradient, out, 0.0).mul_(ctx.scale), None


def _kept(like: Tensor, threshold: int) -> Tensor:
    """1 where 16 random bits are not below a threshold, of a tensor's shape: four units take one random word.

    The comparison writes numbers at once, for a mask of booleans would be read anew.
    """
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: like.numel()].view(like.shape)
    return torch.ge(bits, threshold - _LEVELS // 2, out=torch.empty_like(like))


def dropped(x: Tensor, dropout: float) -> Tensor:
    """Return dropout(x), of x's shape; arguments as of `rectified`."""
    threshold = round(dropout * _LEVELS)
    if not threshold:
        return x
    if x.device.type != "cpu" or threshold == _LEVELS:
        return functional.dropout(x, dropout)
    with torch.no_grad():
        scaled = _kept(x, threshold).mul_(_LEVELS / (_LEVELS - threshold))
    return x * scaled


def rectified(pre: Tensor, dropout: float) -> Tensor:
    """Return dropout(relu(pre)), of pre's shape.

    Args:
        pre: Any shape.
        dropout: Probability of dropping a unit; on a CPU the nearest of 2^16 levels. 0 drops none.
    """
    threshold = round(dropout * _LEVELS)
    if not threshold:
        return functional.relu(pre)
    if pre.device.type != "cpu" or threshold == _LEVELS:
        return functional.dropout(functional.relu(pre), dropout)
    return _DroppedRelu.apply(pre, threshold)  # type: ignore[no-any-return, no-untyped-call]
