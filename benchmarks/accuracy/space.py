"""What is tuned: dimensions of a search space, and a sequence of trials that only grows when more are asked for."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scipy.stats import qmc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

POINTS = 64
"""Most trials after the first; a power of two, as Sobol's points want."""

SEED = 20_260
"""Of the scrambling: the same points for every model and task."""

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


def trials(
    defaults: Mapping[str, Any], space: Sequence[Dimension], number: int, ladder: Sequence[tuple[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The first `number` configs; those of a smaller number come first in a larger.

    Args:
        defaults: The first config; what the space does not name stays as it is.
        space: What differs; without it there is one config.
        number: How many, up to `POINTS` and the ladder's.
        ladder: (path, value), what the next configs change of the defaults; then Sobol's points follow.
    """
    if not space:
        return [copy.deepcopy(dict(defaults))]
    points = qmc.Sobol(len(space), scramble=True, rng=SEED).random(POINTS)
    changes: list[list[tuple[str, Any]]] = [[], *([rung] for rung in ladder)]
    changes += [[(part.path, part.at(float(u))) for part, u in zip(space, point, strict=True)] for point in points]
    return [_changed(defaults, change) for change in changes[:number]]


def _changed(defaults: Mapping[str, Any], change: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    config = copy.deepcopy(dict(defaults))
    for path, value in change:
        section, key = path.split(".")
        config[section][key] = value
    return config
