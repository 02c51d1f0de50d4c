"""Is one way faster than another, or is it noise? Two ways are measured in turns, and compared round by round.

What disturbs the machine for longer than a round disturbs both ways of the round alike, so the ratios of pairs are
steadier than either way's times. Of n such ratios, the true median lies between the k-th smallest and the k-th largest
with a probability that is the same whatever their distribution: 1 - 2 P(Binomial(n, 1/2) < k). (David and Nagaraja,
*Order Statistics*, 3rd edition, section 7.1.)
"""

from __future__ import annotations

import enum
import statistics
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CONFIDENCE", "FEWEST_ROUNDS", "MARGIN", "Gain", "Verdict", "gain_of", "interval"]

CONFIDENCE: Final = 0.95
# With fewer, not even the smallest and the largest enclose the median with that confidence.
FEWEST_ROUNDS: Final = 6
# A gain below this is not worth a setting that somebody has to explain.
MARGIN: Final = 0.03


class Verdict(enum.Enum):
    """What a comparison says."""

    GAINS = "gains"
    LOSES = "loses"
    NOISE = "no difference beyond noise"


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times as good a way is as the present one: 1.1 is a tenth better.

    Attributes:
        median: Of the rounds.
        low: Lower end of the median's confidence interval.
        high: Upper end.
        rounds: How many there were.
    """

    median: float
    low: float
    high: float
    rounds: int

    @property
    def verdict(self) -> Verdict:
        """Whether it gains or loses more than the margin, beyond noise."""
        if self.rounds >= FEWEST_ROUNDS:
            if self.low > 1 + MARGIN:
                return Verdict.GAINS
            if self.high < 1 / (1 + MARGIN):
                return Verdict.LOSES
        return Verdict.NOISE

    @property
    def costs(self) -> bool:
        """Whether it looks worse by more than the margin, be it noise or not: doubt speaks against a change."""
        return self.median < 1 / (1 + MARGIN)

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f} to {self.high:.2f})"


def gain_of(present: Sequence[float], other: Sequence[float], *, of_rates: bool = False) -> Gain:
    """Compare another way with the present one.

    Args:
        present: What each round measured of the present way: seconds.
        other: The same rounds of the other way.
        of_rates: They are rates, of which more is better.

    Raises:
        ValueError: No rounds, or not as many of both.
    """
    if not present or len(present) != len(other):
        raise ValueError(f"rounds: expected as many of both ways, got {len(present)} and {len(other)}")
    ratios = [b / a if of_rates else a / b for a, b in zip(present, other, strict=True)]
    low, high = interval(ratios)
    return Gain(statistics.median(ratios), low, high, len(ratios))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest pair of order statistics that enclose the median with `CONFIDENCE`; of few values, all of them."""
    ordered = sorted(values)
    count = len(ordered)
    left_out = 0
    below = 1.0  # of the 2**count ways to fall on either side of the median, those with at most `left_out` on one side
    while left_out < (count - 1) // 2:
        below += comb(count, left_out + 1)
        if 2 * below / 2**count > 1 - CONFIDENCE:
            break
        left_out += 1
    return ordered[left_out], ordered[count - 1 - left_out]
