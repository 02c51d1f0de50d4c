"""Embedding dimensions by information: bits about the label against what a dimension costs, under one budget.

A field of I bits has a value of I * d / (1 + d) at d dimensions, and d dimensions cost d * (V + K) parameters: a table
of V rows and a projection into K units. So the best 1 + d goes as sqrt(I / (V + K)): small informative tables are
wide, long tails narrow. Steps are doublings from a floor, taken by value per parameter while the budget lasts.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class BudgetError(ValueError):
    """`afe.budget` does not pay for one dimension a field."""


DIMENSIONS: Final = (1, 2, 4, 8, 16)
RICH: Final = 10.0
"""Training rows per table row from which on tables earn 8 columns on average, not 4 (by experiment: see the design)."""


def default_dimension(rows: int, table_rows: int) -> int:
    """The mean dimension that data of this many rows can fill: 8 where values are seen often, otherwise 4."""
    return 8 if rows >= RICH * table_rows else 4


def largest_useful(table_rows: int, most: int) -> int:
    """Dimensions beyond the number of values (less the two reserved ids) add nothing that fewer cannot say."""
    return max((d for d in DIMENSIONS if d <= most and d < max(table_rows - 1, 2)), default=1)


def allocate(
    bits: Mapping[str, float],
    table_rows: Mapping[str, int],
    floors: Mapping[str, int],
    *,
    budget: int,
    width: int,
    most: int,
) -> dict[str, int]:
    """Choose d_f for every field.

    Args:
        bits: information about the label, alone or with a partner; negative counts as 0.
        table_rows: V_f.
        floors: least dimension of a field (cut to what its values can use).
        budget: parameters of all tables and projections together.
        width: K, for the price of a projection.
        most: largest dimension.

    Returns:
        Dimensions by name. Floors give way where the budget cannot pay for them.

    Raises:
        BudgetError: The budget does not even pay for one dimension a field.
    """
    price = {name: table_rows[name] + width for name in bits}
    least = sum(price.values())
    if least > budget:
        raise BudgetError(f"afe.budget: expected at least {least} (one dimension a field), got {budget}")
    top = {name: largest_useful(table_rows[name], most) for name in bits}
    dims = dict.fromkeys(bits, 1)
    left = budget - least
    # The floors first, dearest information last, then the most value per parameter.
    for goal in (floors, top):
        queue = [_step(name, 1 if goal is floors else dims[name], bits, price) for name in bits]
        heapq.heapify(queue)
        while queue:
            _, name = heapq.heappop(queue)
            cost = dims[name] * price[name]
            if dims[name] >= min(goal[name], top[name]) or cost > left:
                continue
            left -= cost
            dims[name] *= 2
            heapq.heappush(queue, _step(name, dims[name], bits, price))
    return dims


def _step(name: str, dim: int, bits: Mapping[str, float], price: Mapping[str, int]) -> tuple[float, str]:
    """Priority of doubling a dimension: the smallest is taken first; ties go by name."""
    gain = max(bits[name], 0.0) * (2 * dim / (1 + 2 * dim) - dim / (1 + dim))
    return -gain / (dim * price[name]), name
