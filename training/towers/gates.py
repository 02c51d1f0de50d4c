"""Field gates that really close: hard-concrete L0 regularisation, priced in the parameters that a field costs.

Source: Louizos, Welling, Kingma, "Learning Sparse Neural Networks through L0 Regularization", ICLR 2018, eq. 10-13. A
gate is a binary concrete variable (temperature β) stretched to (γ, ζ) and cut to [0, 1], so it is exactly 0 or 1 with
positive probability, and its chance of being open has a gradient. A field whose gate is 0 in evaluation is removed,
with its table, its projection and its look-ups.

Letters: F fields, a_f the log-odds of field f (the only parameters), u uniform noise.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from training.models.base import FieldSlot

TEMPERATURE: Final = 2.0 / 3.0  # β
LOW: Final = -0.1  # γ
HIGH: Final = 1.1  # ζ
_SHIFT: Final = TEMPERATURE * log(-LOW / HIGH)
_EDGE: Final = 1e-6  # keeps u off 0 and 1, whose logit is infinite


class FieldGates(nn.Module):
    """Gates of F fields.

    State: `log_odds` (F,), parameters; `price` (F,), each field's share of all fields' parameters.

    Args:
        names: the fields.
        prior: log-odds that a field matters, where its gate starts.
        parameters: parameters that a field costs: its table's and its projection's.

    Raises:
        ValueError: Numbers of entries differ, or a price is not positive.
    """

    log_odds: Tensor
    price: Tensor

    def __init__(self, names: Sequence[str], prior: Sequence[float], parameters: Sequence[float]) -> None:
        super().__init__()
        if not len(names) == len(prior) == len(parameters):
            raise ValueError(
                f"gates: expected one prior and one number of parameters a field, got {len(names)} names, "
                f"{len(prior)} priors, {len(parameters)} numbers"
            )
        price = torch.as_tensor(parameters, dtype=torch.float32)
        if not bool((price > 0).all()):
            raise ValueError(f"gates: expected positive numbers of parameters, got {list(parameters)}")
        self.names = tuple(names)
        self.log_odds = nn.Parameter(torch.as_tensor(prior, dtype=torch.float32).clone())
        self.register_buffer("price", price / price.sum())

    @classmethod
    def for_slots(cls, slots: Iterable[FieldSlot], prior: Mapping[str, float], width: int) -> FieldGates:
        """Gates of a model's slots: a table of V x d and a projection of d x K = width parameters each."""
        slots = tuple(slots)
        return cls(
            [slot.name for slot in slots],
            [prior[slot.name] for slot in slots],
            [float(slot.dim * (slot.rows + width)) for slot in slots],
        )

    def forward(self) -> Tensor:
        """Multipliers (F,) in [0, 1]: drawn anew at every call in training, fixed in evaluation."""
        if not self.training:
            return self.fixed()
        u = torch.empty_like(self.log_odds).uniform_(_EDGE, 1.0 - _EDGE)
        concrete = torch.sigmoid((torch.logit(u) + self.log_odds) / TEMPERATURE)
        return (concrete * (HIGH - LOW) + LOW).clamp(0.0, 1.0)

    def fixed(self) -> Tensor:
        """The deterministic multipliers (F,) of evaluation: the stretched, cut sigmoid of the log-odds (eq. 13)."""
        return (torch.sigmoid(self.log_odds) * (HIGH - LOW) + LOW).clamp(0.0, 1.0)

    def open_chance(self) -> Tensor:
        """P(gate > 0) (F,) in training (eq. 12)."""
        return torch.sigmoid(self.log_odds - _SHIFT)

    def penalty(self) -> Tensor:
        """Expected share of the fields' parameters that is open, a scalar in [0, 1]: the L0 term of the loss."""
        return torch.dot(self.open_chance(), self.price)

    @torch.no_grad()
    def closed(self) -> frozenset[str]:
        """Names of the fields whose gate is 0 in evaluation."""
        return frozenset(name for name, gate in zip(self.names, self.fixed().tolist(), strict=True) if gate <= 0.0)
