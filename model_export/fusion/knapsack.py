"""The multiple-choice knapsack: one option an item, the least sum of prices within a capacity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

GRAINS: Final = 4096
"""Of the capacity beyond what the smallest options take: sizes are rounded up to whole ones, exact below so many."""


def fill_knapsack(
    prices: Sequence[Sequence[float]], sizes: Sequence[Sequence[int]], capacity: float, grains: int = GRAINS
) -> list[int] | None:
    """Choose one option an item by dynamic programming.

    Args:
        prices: Of each item's options.
        sizes: The same, at least 0.
        capacity: Most that the sizes may sum up to.
        grains: How finely.

    Returns:
        The option of each item; None where not even the smallest options fit.
    """
    room = capacity - sum(map(min, sizes))
    if room < 0:
        return None
    grain = max(1, -(-int(room) // grains))
    places = int(room) // grain + 1
    best = np.zeros(places)
    taken = []
    for own_prices, own_sizes in zip(prices, sizes, strict=True):
        least = min(own_sizes)
        found = np.full((len(own_sizes), places), np.inf)
        for option, (price, size) in enumerate(zip(own_prices, own_sizes, strict=True)):
            steps = -(-(size - least) // grain)
            if steps < places:
                found[option, steps:] = best[: places - steps] + price
        taken.append(found.argmin(0))
        best = found.min(0)
    place, chosen = places - 1, []
    for option_at, own_sizes in zip(reversed(taken), reversed(sizes), strict=True):
        option = int(option_at[place])
        chosen.append(option)
        place -= -(-(own_sizes[option] - min(own_sizes)) // grain)
    return chosen[::-1]
