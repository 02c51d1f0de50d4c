"""What measuring yields: numbers of every round, kept so that a decision can see their spread."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.advise.compare import interval

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CallTimes", "CrossoverPoint", "LoadTimes"]


@dataclass(frozen=True, slots=True)
class CallTimes:
    """Calls of the model in several ways, taken in turns.

    Attributes:
        ways: What was compared.
        cases: What each was tried on.
        seconds: (case, way) to the seconds of a call, one a round.
        rest: Case to the seconds that the rest of a request takes: decoding, encoding, writing.
    """

    ways: tuple[str, ...]
    cases: tuple[str, ...]
    seconds: Mapping[tuple[str, str], tuple[float, ...]]
    rest: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LoadTimes:
    """Servers under a closed loop of requests, taken in turns.

    Attributes:
        ways: What was compared.
        cases: Loads each was tried under.
        rates: (case, way) to requests a second, one a round.
        p50: The same for the median latency in seconds.
        p99: The same for the 99th percentile.
        generator: The same for the generator's processor time, as a share of one CPU.
        cpu: The same for the server's processor time a request, in seconds; empty where the system does not tell.
    """

    ways: tuple[str, ...]
    cases: tuple[str, ...]
    rates: Mapping[tuple[str, str], tuple[float, ...]]
    p50: Mapping[tuple[str, str], tuple[float, ...]]
    p99: Mapping[tuple[str, str], tuple[float, ...]]
    generator: Mapping[tuple[str, str], tuple[float, ...]]
    cpu: Mapping[tuple[str, str], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class CrossoverPoint:
    """A body of one length, scored on the event loop and in a thread, round by round. All times in seconds.

    Attributes:
        form: How it is written.
        candidates: How many it holds.
        body_bytes: Its length.
        inline: Time on the event loop, which is blocked all the while.
        threaded: Time from handing it over until the loop has the answer.
        blocked: The longest that the loop stood still meanwhile.
    """

    form: str
    candidates: int
    body_bytes: int
    inline: tuple[float, ...]
    threaded: tuple[float, ...]
    blocked: tuple[float, ...]

    @property
    def benefits(self) -> list[float]:
        """What neighbours gain by a thread, less what the request itself loses, by round."""
        rounds = zip(self.inline, self.threaded, self.blocked, strict=True)
        return [(inline - blocked) - (threaded - inline) for inline, threaded, blocked in rounds]

    @property
    def median_benefit(self) -> float:
        """Of the rounds."""
        return statistics.median(self.benefits)

    @property
    def says(self) -> str:
        """The benefit in words."""
        if self.low_benefit > 0:
            return "thread gains"
        return "thread loses" if self.high_benefit < 0 else "no difference beyond noise"

    @property
    def low_benefit(self) -> float:
        """Lower end of the median's confidence interval."""
        return interval(self.benefits)[0]

    @property
    def high_benefit(self) -> float:
        """Upper end."""
        return interval(self.benefits)[1]
