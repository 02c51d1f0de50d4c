"""One-hot logistic regression (`training.baseline`) as a module that is exported like the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from training.models.base import slot_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.models.base import FieldSlot


class OneHot(nn.Module):
    """b + sum_f w_f, over every value of a multi-valued field.

    Args:
        slots: The fields, context side first, as the one-hot columns are.
        weights: (sum of V_f,), float64.
        bias: b.
    """

    def __init__(self, slots: Sequence[FieldSlot], weights: NDArray[np.float64], bias: float) -> None:
        super().__init__()
        self.slots = tuple(slots)
        starts = np.cumsum([0, *(slot.rows for slot in slots)])
        self.tables = nn.ModuleList([nn.Embedding(slot.rows, 1, dtype=torch.float64) for slot in slots])
        with torch.no_grad():
            for slot, table, start in zip(slots, self.tables, starts, strict=False):
                values = torch.tensor(weights[start : start + slot.rows])[:, None]
                if slot.pad_id is not None:
                    values[slot.pad_id] = 0.0
                cast("nn.Embedding", table).weight.copy_(values)
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))

    def forward(self, context_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Logits (B,) of context_ids (B | 1, Cc) and candidate_ids (B, Ci)."""
        parts = [
            table(slot_ids(slot, context_ids, candidate_ids).long()).sum((1, 2))
            for slot, table in zip(self.slots, self.tables, strict=True)
        ]
        return torch.stack([part.expand(len(candidate_ids)) for part in parts]).sum(0) + self.bias
