"""Which L2 the tables take: a climb on validation, from a usual value in both directions.

Which precision of their Gaussian prior is best depends on the data (`TrainConfig.table_l2`); in steps this coarse, a
few towers find about where it lies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from training.paired import CLEARLY
from training.train_config import USUAL_L2

if TYPE_CHECKING:
    from collections.abc import Callable

STEP: Final = 4.0
LEAST_L2: Final = 1.0
MOST_L2: Final = 1e5


def climb(attempt: Callable[[float], float], start: float = USUAL_L2, *, down: bool = True) -> float:
    """Return the L2 that no step from it improves on by `CLEARLY`: below that it is chance.

    Upwards in steps of `STEP` as long as that helps; downwards where the first step up does not.

    Args:
        attempt: Trains under an L2; its validation loss.
        start: Where it begins.
        down: Whether it may go down.
    """
    best, least = start, attempt(start)
    for step in (STEP, 1.0 / STEP) if down else (STEP,):
        while LEAST_L2 <= best * step <= MOST_L2:
            loss = attempt(best * step)
            if not loss < least - CLEARLY:
                break
            best, least = best * step, loss
        if best != start:
            break
    return best
