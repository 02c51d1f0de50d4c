"""What tables are held to: where their rows begin, and which L2 draws them to zero.

Which precision of their Gaussian prior is best depends on the data (`TrainConfig.table_l2`); a climb on validation,
from a usual value in both directions and in steps this coarse, finds about where it lies with a few towers.

A row is drawn to zero whenever it is read, so that a rare value's keeps much of what it began with: noise, unless it
begins near zero (`TrainConfig.half_scale_at`). On some data (MovieLens tags by time) that noise does harm; on some
(Avazu) rows that differ from the beginning tell rare values apart, which is worth more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from training.train_config import USUAL_L2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from training.models.reaction import Tower

STEP: Final = 4.0
LEAST_L2: Final = 1.0
MOST_L2: Final = 1e5


def climb(better: Callable[[float, float], bool]) -> float:
    """Return the L2 that no step from it improves on.

    Upwards in steps of `STEP` as long as that helps; downwards where the first step up does not.

    Args:
        better: Whether what is trained under the first is better than under the second, tried before.
    """
    best = USUAL_L2
    for step in (STEP, 1.0 / STEP):
        while LEAST_L2 <= best * step <= MOST_L2 and better(best * step, best):
            best *= step
        if best != USUAL_L2:
            break
    return best


def near_zero(tower: Tower, counts: Mapping[str, NDArray[Any]], half: float) -> None:
    """Let rows of rare values begin near zero: with n / (n + half) of what they have.

    Args:
        tower: A tower of random weights.
        counts: Field -> how often each id occurs in training (V_f,).
        half: Times at which it is half; 0: nothing is changed.
    """
    if not half:
        return
    for slot, table in zip(tower.slots, tower.tables, strict=True):
        n = torch.from_numpy(counts[slot.name]).to(table.device, table.dtype)
        table.data.mul_((n / (n + half))[:, None])
