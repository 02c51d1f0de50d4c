"""What is tuned: dimensions of a search space, and points of it in a sequence that only grows when more are wanted."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scipy.stats import qmc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

POINTS = 64
"""Most of them; a power of two, as Sobol's points want."""

SEED = 20_260
"""Of the scrambling: the same points for every task."""

DIGITS = 4
"""Significant digits of a value, so that a config reads well."""


@dataclass(frozen=True)
class Log:
    """A number between two bounds, even on a logarithmic scale."""

    path: str
    low: float
    high: float
    whole: bool = False

    def at(self, u: float) -> Any:
        """The value at 0 <= u < 1."""
        value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        return round(value) if self.whole else float(f"{value:.{DIGITS}g}")


@dataclass(frozen=True)
class Linear:
    """A number between two bounds."""

    path: str
    low: float
    high: float

    def at(self, u: float) -> Any:
        """The value at 0 <= u < 1."""
        return float(f"{self.low + u * (self.high - self.low):.{DIGITS}g}")


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    path: str
    values: Sequence[Any]

    def at(self, u: float) -> Any:
        """The value at 0 <= u < 1."""
        return self.values[int(u * len(self.values))]


Dimension = Log | Linear | Choice


def points(space: Sequence[Dimension], number: int, seed: int = SEED) -> list[list[tuple[str, Any]]]:
    """Sobol's first points of a space, as (path, value); those of a smaller number come first in a larger.

    Args:
        space: The dimensions.
        number: How many, up to `POINTS`.
        seed: Of the scrambling.
    """
    found = qmc.Sobol(len(space), scramble=True, rng=seed).random(POINTS)
    return [[(part.path, part.at(float(u))) for part, u in zip(space, point, strict=True)] for point in found[:number]]


def changed(config: Mapping[str, Any], change: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A copy with some settings changed; one that is not there yet is added."""
    found = copy.deepcopy(dict(config))
    for path, value in change:
        section, key = path.split(".")
        found[section][key] = value
    return found
