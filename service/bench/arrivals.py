"""When requests are due: a Poisson process, drawn before the run, so that no answer can move an arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NANOSECONDS", "poisson_arrivals"]

NANOSECONDS: Final = 1_000_000_000


def poisson_arrivals(rate: float, seconds: float, seed: int) -> NDArray[np.int64]:
    """Arrival times of a Poisson process over [0, seconds).

    Given their number, the arrivals of a Poisson process are independent and uniform (Kingman, *Poisson Processes*,
    1993, section 2.4): the number is drawn first, then the times, which are sorted.

    Args:
        rate: Mean arrivals a second.
        seconds: Length of the process.
        seed: The same seed gives the same times.

    Returns:
        (N,) nanoseconds in ascending order; N is itself Poisson with mean `rate * seconds`.

    Raises:
        ValueError: A rate or a length that is not positive and finite.
    """
    for name, value in (("rate", rate), ("seconds", seconds)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a positive, finite number, got {value!r}")
    draw = np.random.default_rng(seed)
    times = draw.random(draw.poisson(rate * seconds))
    times.sort()
    return (times * (seconds * NANOSECONDS)).astype(np.int64)
