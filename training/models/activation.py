"""ReLU and dropout in one: cheap random bits, one tensor kept for the backward.

On a CPU half of a small tower's step was the drawing of dropout's masks: a bit of its own generator call a unit.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LEVELS = 1 << 16
"""A probability of dropping a unit is rounded to so many levels."""


class _DroppedRelu(torch.autograd.Function):
    """dropout(relu(x)): a unit is dropped where 16 random bits are below a threshold."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: int) -> Tensor:
        ctx.scale = LEVELS / (LEVELS - threshold)
        out = torch.clamp_min(pre, 0.0).mul_(keep(threshold, out=torch.empty_like(pre)).mul_(ctx.scale))
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors  # positive where the unit was both active and kept
        return torch.ops.aten.threshold_backward(gradient, out, 0.0).mul_(ctx.scale), None


def keep(threshold: int, *, out: Tensor) -> Tensor:
    """Fill a contiguous tensor with 1 where 16 random bits are not below a threshold, with 0 elsewhere.

    Four units take one random word; the comparison writes numbers at once, for a mask of booleans would be read anew.
    """
    words = torch.empty((out.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: out.numel()].view(out.shape)
    return torch.ge(bits, threshold - LEVELS // 2, out=out)


def dropped(x: Tensor, dropout: float) -> Tensor:
    """Return dropout(x), of x's shape; arguments as of `rectified`."""
    threshold = round(dropout * LEVELS)
    if not threshold:
        return x
    if x.device.type != "cpu" or threshold == LEVELS:
        return functional.dropout(x, dropout)
    with torch.no_grad():
        scaled = keep(threshold, out=torch.empty_like(x)).mul_(LEVELS / (LEVELS - threshold))
    return x * scaled


def rectified(pre: Tensor, dropout: float) -> Tensor:
    """Return dropout(relu(pre)), of pre's shape.

    Args:
        pre: Any shape.
        dropout: Probability of dropping a unit; on a CPU the nearest of 2^16 levels. 0 drops none.
    """
    threshold = round(dropout * LEVELS)
    if not threshold:
        return functional.relu(pre)
    if pre.device.type != "cpu" or threshold == LEVELS:
        return functional.dropout(functional.relu(pre), dropout)
    return _DroppedRelu.apply(pre, threshold)  # type: ignore[no-any-return, no-untyped-call]
