"""Which L2 the tables take: a climb on validation, from the usual value in both directions.

Which precision of their Gaussian prior is best depends on the data (`TrainConfig.table_l2`); in steps this coarse, a
few pairs of towers find about where it lies. Pairs, because towers that know much by heart lose it in the mean of two:
by what one tower scores, the climb went a step too far on one seed in three of a sample of MovieLens tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from training.train_config import USUAL_L2

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

STEP: Final = 4.0
CLEARLY: Final = 0.001
"""Gain of log loss or AUC that a step must bring. Below it is chance."""
LEAST_L2: Final = 1.0
MOST_L2: Final = 1e5


def climb(attempt: Callable[[float], tuple[float, T]]) -> tuple[float, T]:
    """Return the L2 that no step from it improves on, and what was trained under it.

    From `USUAL_L2` upwards in steps of `STEP` as long as that helps clearly; downwards where the first step up does
    not. What lost is let go at once: it has tables.

    Args:
        attempt: Trains under an L2; (validation loss, what was trained).
    """
    best = USUAL_L2
    least, kept = attempt(best)
    for step in (STEP, 1.0 / STEP):
        while LEAST_L2 <= best * step <= MOST_L2:
            loss, found = attempt(best * step)
            if not loss < least - CLEARLY:
                break
            best, least, kept = best * step, loss, found
        if best != USUAL_L2:
            break
    return best, kept
