"""Calibration: a strictly increasing function of the logit, fitted on validation and kept only where it helps.

    c(z) = offset + slope_0 min(z - t_1, 0) + sum_k slope_k (clip(z, t_k, t_k+1) - t_k)       slopes > 0

with knots t_1 < t_2 < ... and no end to the outer pieces. Without knots it is offset + slope_0 z: Platt's scaling. With
a few it is a smooth enough stand-in for isotonic regression: fitted by maximum likelihood instead of by least squares,
so that scores that differ stay different and the order of candidates, and with it AUC, is what it was. Both are layers
that a graph has anyway, so serving it costs nothing, or one small layer.

Fitted on the labels as they were sampled: a correction for sampled negatives comes after it.

Sources: Platt, "Probabilistic Outputs for Support Vector Machines", 1999; Zadrozny and Elkan, "Transforming Classifier
Scores into Accurate Multiclass Probability Estimates", KDD 2002 (isotonic).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray

    Floats: TypeAlias = NDArray[np.float64]

CALIBRATION_FORMAT: Final = "reaction-calibration"
CALIBRATION_VERSION: Final = 1

Kind: TypeAlias = Literal["identity", "affine", "piecewise"]


class CalibrationError(ValueError):
    """A calibration that is none: the message says what was expected and what was found."""


class CalibrationConfig(BaseModel):
    """The `[calibration]` section.

    Attributes:
        kind: `auto` tries an affine function and a piecewise one, the others only what they say.
        folds: Parts of the validation rows, each scored by a calibration that was fitted on the others.
        errors: Standard errors by which the cross-fitted log loss must fall below that of the next simpler one.
        knots: Of a piecewise function, at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["auto", "none", "affine", "piecewise"] = "auto"
    folds: Annotated[int, Field(ge=2, le=50)] = 5
    errors: Annotated[float, Field(ge=0.0)] = 1.0
    knots: Annotated[int, Field(ge=1, le=16)] = 4

    @property
    def candidates(self) -> tuple[Kind, ...]:
        """What is tried, the simplest first."""
        tried: dict[str, tuple[Kind, ...]] = {"auto": ("affine", "piecewise"), "none": ()}
        return tried.get(self.kind, (self.kind,))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Calibration:
    """A strictly increasing, piecewise linear function of the logit; the default is the identity.

    Attributes:
        slopes: Of its pieces from left to right, all positive.
        knots: Where they meet, ascending; one fewer.
        offset: Its value at the first knot, or at 0 where there is none.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    slopes: tuple[float, ...] = (1.0,)
    knots: tuple[float, ...] = ()
    offset: float = 0.0

    def __post_init__(self) -> None:
        numbers = (*self.slopes, *self.knots, self.offset)
        if not np.isfinite(numbers).all() or not all(slope > 0 for slope in self.slopes):
            raise CalibrationError(f"expected finite numbers and positive slopes, got {self}")
        if len(self.slopes) != len(self.knots) + 1 or any(b <= a for a, b in pairwise(self.knots)):
            raise CalibrationError(f"expected ascending knots and one slope more than knots, got {self}")

    @property
    def kind(self) -> Kind:
        """Which of the three it is."""
        if self.knots:
            return "piecewise"
        return "identity" if self.slopes == (1.0,) and self.offset == 0.0 else "affine"

    def __call__(self, logits: ArrayLike) -> Floats:
        """The calibrated logits, in float64 and of the same shape."""
        z = np.asarray(logits, dtype=np.float64)
        found = np.full(z.shape, self.offset)
        for slope, part in zip(self.slopes, pieces(z, self.knots), strict=True):
            found += slope * part
        return found

    def as_json(self) -> dict[str, Any]:
        """`calibration.json`."""
        return {
            "format": CALIBRATION_FORMAT,
            "version": CALIBRATION_VERSION,
            "slopes": list(self.slopes),
            "knots": list(self.knots),
            "offset": self.offset,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Calibration:
        """Read `calibration.json`.

        Raises:
            CalibrationError: Another format or version, an unknown key, or no increasing function.
        """
        left = dict(document)
        for key, expected in (("format", CALIBRATION_FORMAT), ("version", CALIBRATION_VERSION)):
            if (got := left.pop(key, None)) != expected:
                raise CalibrationError(f"{key}: expected {expected!r}, got {got!r}")
        if missing := sorted({"slopes", "knots", "offset"} - left.keys()):
            raise CalibrationError(f"expected {missing}, got none")
        try:
            # JSON has lists and whole numbers where tuples and floats are meant.
            return TypeAdapter(cls).validate_json(TypeAdapter(dict[str, Any]).dump_json(left))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise CalibrationError(f"{where}: {first['msg']}, got {first['input']!r}") from error


IDENTITY: Final = Calibration()


def pieces(z: Floats, knots: tuple[float, ...]) -> Iterator[Floats]:
    """How far each value lies into each piece, from the first knot on: what the slopes are multiplied by."""
    if not knots:
        yield z
        return
    yield np.minimum(z - knots[0], 0.0)
    for low, high in pairwise(knots):
        yield np.clip(z, low, high) - low
    yield np.maximum(z - knots[-1], 0.0)


def probability(logits: Floats) -> Floats:
    """1 / (1 + exp(-logit)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))
