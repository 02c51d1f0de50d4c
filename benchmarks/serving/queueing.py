"""What queueing alone predicts: an M/D/1 queue, Poisson arrivals at one server whose every service takes as long.

A. K. Erlang (1909), "The theory of probabilities and telephone conversations"; as in L. Kleinrock, *Queueing Systems*,
vol. 1 (1975). With load rho and service time 1, the wait W before service has

    P(W <= t) = (1 - rho) sum_{k=0}^{floor(t)} e^{rho (t - k)} (-rho (t - k))^k / k!

The sum alternates, so it is taken in exact rationals times one exponential a term, at a precision that its size asks.
"""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from typing import Final

_DIGITS: Final = 60
_STEPS: Final = 60


def wait_within(load: float, time: float) -> float:
    """P(W <= time) in an M/D/1 queue.

    Args:
        load: rho, in [0, 1).
        time: In units of the service time, at least 0.

    Raises:
        ValueError: The load is not below 1, or time is negative.
    """
    if not 0 <= load < 1:
        raise ValueError(f"load: expected at least 0 and below 1, got {load}")
    if time < 0:
        raise ValueError(f"time: expected at least 0, got {time}")
    with localcontext(Context(prec=_DIGITS + int(time))):
        rho, t = Decimal(load), Decimal(time)
        total = Decimal(0)
        factorial = Decimal(1)
        for k in range(int(time) + 1):
            if k:
                factorial *= k
            x = rho * (t - k)
            power = (-x) ** k if k else Decimal(1)
            total += x.exp() * power / factorial
        return float((1 - rho) * total)


def response_quantile(load: float, share: float) -> float:
    """The time, wait and service, within which this share of requests is answered; in units of the service time.

    Args:
        load: rho, in [0, 1).
        share: In (0, 1): 0.99 for p99.
    """
    low, high = 0.0, 1.0
    if wait_within(load, 0.0) >= share:
        return 1.0
    while wait_within(load, high) < share:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if wait_within(load, middle) < share:
            low = middle
        else:
            high = middle
    return 1.0 + high
