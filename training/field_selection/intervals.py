"""How sure an estimate of information about the label is.

The information of a table is a mean over rows of a logarithm of rates, so to first order its estimate varies as the
mean of that logarithm does (delta method; Basharin, Theory Probab. Appl. 4, 1959, for entropies). Where there is no
information this term is 0, and what is left is the spread under shuffling. The plug-in variance of the logarithm is
itself too large by about twice the shuffled variance, and it grows with the information (for weak effects it is twice
that over N), so an interval is of all values that the estimate would not be far off from: Wilson's, not Wald's.
What it is an interval of is what the counts can tell: evidence in values seen once or twice is no part of it.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from training.field_selection.information import LabelTable

CONFIDENCE: Final = 0.95
NORMAL: Final = float(ndtri(0.5 + CONFIDENCE / 2.0))
"""Standard errors on either side of an estimate."""


def pointwise_variance(table: LabelTable) -> float:
    """Variance over rows of ln(p(y | x) / p(y)) at the plug-in rates, nats squared."""
    n, k = table.total.astype(np.float64), table.positive.astype(np.float64)
    used = n > 0
    n, k = n[used], k[used]
    N, p = n.sum(), k.sum() / n.sum()
    with np.errstate(divide="ignore"):  # a rate of 0 has no rows
        click = np.where(k > 0, np.log(np.where(k > 0, k / n, 1.0) / p), 0.0)
        other = np.where(n > k, np.log(np.where(n > k, 1.0 - k / n, 1.0) / (1.0 - p)), 0.0)
    mean = (k @ click + (n - k) @ other) / N
    return float((k @ click**2 + (n - k) @ other**2) / N - mean**2)


def standard_error(first_order: float, for_noise: float) -> float:
    """Of an estimate, from its first-order variance at plug-in rates and its variance under shuffling."""
    return sqrt(max(0.0, first_order - 2.0 * for_noise) + for_noise)


def interval(estimate: float, growth: float, for_noise: float) -> tuple[float, float]:
    """The 95% interval of information: every value I with (estimate - I)^2 within 1.96^2 (growth I + for_noise).

    Args:
        estimate: corrected information; negative at times.
        growth: variance of an estimate per information, at the plug-in rates.
        for_noise: its variance where there is none.
    """
    reach = NORMAL * sqrt(for_noise)
    middle = estimate + NORMAL**2 * growth / 2.0
    half = sqrt(max(0.0, middle**2 - estimate**2 + reach**2))
    low = middle - half if estimate > reach else estimate - reach
    high = middle + half if estimate > -reach else estimate + reach
    return low, high
