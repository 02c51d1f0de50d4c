"""What every model of the table hands over once it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.accuracy.ledger import Parameters
    from training.loader import PreparedData, Split

Config = dict[str, Any]
"""Of a run: {"model": {...}, "train": {...}}, everything spelled out."""


def by_library(config: Config) -> bool:
    """Whether a config is trained by the library's own loop."""
    return "recipe" in config.get("train", {})


@dataclass(frozen=True)
class Place:
    """Where a run may write, and what it reads.

    Attributes:
        task: Its name.
        data: The prepared data.
        work: Folder of what is not kept in the repository.
        test: Whether this run reads the test split.
    """

    task: str
    data: PreparedData
    work: Path
    test: bool


@dataclass(frozen=True)
class Fitted:
    """A trained model.

    Attributes:
        score: Probabilities (N,) of a split.
        parameters: None where they cannot be compared.
        flops: A row, in scoring; None where they cannot be compared.
        steps: Optimiser steps.
        epochs: Passes over the training rows.
        facts: What else there is to say.
        more: Of a run that reads the test split: what `facts` gains by it.
    """

    score: Callable[[Split], NDArray[np.float64]]
    parameters: Parameters | None = None
    flops: int | None = None
    steps: int | None = None
    epochs: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    more: Callable[[], Mapping[str, Any]] | None = None
