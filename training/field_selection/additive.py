"""What fields say together without interactions: an additive model of the label's log-odds, fitted by Newton steps.

It serves as the expectation that one more field is tested against: a field can say nothing alone, and little beyond
any other one field, because others hide it (a suppressor), and still be missed beside all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RIDGE: Final = 10.0  # in units of p q per row: a value's effect has standard deviation 0.3 before it is seen
SWEEPS: Final = 4


def additive_expectation(
    fields: Sequence[tuple[NDArray[np.int64], int]], label: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Probability of a label 1 for every row (N,), from a ridge logistic regression on one-hot codes.

    Args:
        fields: codes (N,) and their number, a field.
        label: (N,) 0 or 1, of both classes.

    Each step moves all effects of one field by a Newton step of their own (their Hessian is diagonal); a few sweeps
    over the fields come close enough to the optimum for an expectation.
    """
    rate = float(label.mean())
    log_odds = np.full(label.size, np.log(rate / (1.0 - rate)))
    effects = [np.zeros(size) for _, size in fields]
    for _ in range(SWEEPS):
        for place, (codes, size) in enumerate(fields):
            p = _sigmoid(log_odds)
            slope = np.bincount(codes, label - p, size) - RIDGE * effects[place]
            step = slope / (np.bincount(codes, p * (1.0 - p), size) + RIDGE)
            effects[place] += step
            log_odds += step[codes]
    return _sigmoid(log_odds)


def _sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(log_odds, -30.0, 30.0))))
