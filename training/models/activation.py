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
        words = torch.empty((pre.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: pre.numel()].view(pre.shape)
        scale = _LEVELS / (_LEVELS - threshold)
        keep = (bits >= threshold - _LEVELS // 2).to(pre.dtype)
        out = torch.clamp_min(pre, 0.0).mul_(keep.mul_(scale))
        ctx.scale = scale
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors  # positive where the unit was both active and kept
        return torch.ops.aten.threshold_backward(gradient, out, 0.0).mul_(ctx.scale), None


def rectified(pre: Tensor, dropout: float) -> Tensor:
    """Return dropout(relu(pre)), of pre's shape.

    Args:
        pre: Any shape.
        dropout: Probability of dropping a unit; on a CPU the nearest of 2^16 levels. 0 drops none.
    """
    threshold = round(dropout * _LEVELS)
    if not threshold:
        return functional.relu(pre)
    if pre.device.type != "cpu":
        return functional.dropout(functional.relu(pre), dropout)
    return _DroppedRelu.apply(pre, threshold)  # type: ignore[no-any-return, no-untyped-call]
