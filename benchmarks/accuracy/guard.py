"""The guard: a baseline trained by us against the same trained by the library, on the same arrays, seed and batches.

Initial values, batches and their order are ours, so that what is left to differ is the trainer. It is compared with
twice: for a few epochs of what both can follow to the same weights (`compare`), and to its end by its own recipe
(`by_recipe`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from benchmarks.accuracy.deep import new_module
from benchmarks.accuracy.early import train
from benchmarks.accuracy.library import RECIPE, SAME, predicted, train_by_library
from training.phases.phase import probabilities

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.accuracy.fitted import Config
    from training.loader import PreparedData


@dataclass(frozen=True)
class Pair:
    """Probabilities (N,) on the validation split by both trainers."""

    ours: NDArray[np.float64]
    library: NDArray[np.float64]
    steps: int


def compare(name: str, data: PreparedData, config: Config, seed: int) -> Pair:
    """Train a baseline both ways.

    Args:
        name: In `BASELINES`.
        data: The prepared data.
        config: What `plan.guarded` gives.
        seed: Of both.
    """
    torch.set_num_threads(1)
    splits = data.split("train"), data.split("valid")
    cut = data.encoder.width("context")
    trained = train(new_module(name, data, config, seed), *splits, config["train"], context_columns=cut, seed=seed)
    library = train_by_library(new_module(name, data, config, seed), data, config["train"], SAME, seed=seed)
    return Pair(probabilities(trained.logits(splits[1])), predicted(library, data), trained.steps)


def by_recipe(name: str, data: PreparedData, config: Config, seed: int) -> NDArray[np.float64]:
    """Train a baseline by the library alone, to its end: probabilities (N,) on the validation split.

    Args:
        name: In `BASELINES`.
        data: The prepared data.
        config: What `plan.finished` gives.
        seed: Of initial values, batches and dropout.
    """
    torch.set_num_threads(1)
    model = train_by_library(new_module(name, data, config, seed), data, config["train"], RECIPE, seed=seed)
    return predicted(model, data)
