"""How many parameters folding and padding may make of a served tower."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Final

from model_export.errors import BudgetError

UNLIMITED: Final = "none"


@dataclass(frozen=True)
class ParameterBudget:
    """Most parameters of the served tower: tables as they are stored, projections that remain, layers.

    Attributes:
        factor: Times those of the tower with no field folded or padded; None for no such limit.
        most: An absolute number; None for no such limit.
    """

    factor: float | None = 1.1
    most: int | None = None

    def limit(self, kept: int) -> int | None:
        """Most parameters, given those of the tower with no field folded or padded; None for any number."""
        limits = [] if self.most is None else [self.most]
        limits += [] if self.factor is None else [int(self.factor * kept)]
        return min(limits, default=None)


DEFAULT_BUDGET: Final = ParameterBudget()


def parse_budget(text: str) -> ParameterBudget:
    """Read `40000` (parameters), `1.1x` (times those of the unfolded tower) or `none`.

    Raises:
        BudgetError: It is none of them.
    """
    said = text.strip().lower()
    if said == UNLIMITED:
        return ParameterBudget(factor=None)
    try:
        if said.endswith("x") and isfinite(factor := float(said[:-1])) and factor > 0:
            return ParameterBudget(factor=factor)
        if not said.endswith("x") and (most := int(said)) > 0:
            return ParameterBudget(factor=None, most=most)
    except ValueError:
        pass
    raise BudgetError(
        f"--parameter-budget: expected a number such as 40000, a factor such as 1.1x, or none, got {text!r}"
    )
