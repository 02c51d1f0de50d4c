"""Which L2 the tables take: a climb on validation, from a usual value in both directions.

Which precision of their Gaussian prior is best depends on the data (`TrainConfig.table_l2`); in steps this coarse, a
few towers find about where it lies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from training.train_config import USUAL_L2

if TYPE_CHECKING:
    from collections.abc import Callable

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
