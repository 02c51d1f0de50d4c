"""Fusion rules: a model in, a new model out; nothing is changed in place. All in float64.

`FUSIONS` are the rules that follow `fuse_towers`, in order; a rule is one file and one line here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from model_export.fusion.bias import (
    absorb_bias,
    correct_negative_sampling,
    drop_silent_fields,
    fold_serving_constants,
)
from model_export.fusion.budget import ParameterBudget
from model_export.fusion.calibration import calibrate
from model_export.fusion.choice import choose_folding
from model_export.fusion.cost import CostModel
from model_export.fusion.embedding import fold_all, fold_embeddings, fold_where_cheaper
from model_export.fusion.layout import arrange
from model_export.fusion.tower import FoldingChoice, FusedTower, dense_flops, logits
from model_export.fusion.towers import fuse_towers
from training.calibration import IDENTITY, Calibration

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "FUSIONS",
    "CostModel",
    "FoldingChoice",
    "FusedTower",
    "FusionFacts",
    "ParameterBudget",
    "choose_folding",
    "dense_flops",
    "fold_embeddings",
    "fuse",
    "fuse_towers",
    "logits",
]


@dataclass(frozen=True)
class FusionFacts:
    """What the rules need to know beside the model.

    Attributes:
        negative_sampling_rate: The share of negatives that the training data kept, in (0, 1].
        cost: Prices by which folding is chosen.
        budget: How many parameters folding and padding may make.
        folding: Which fields are folded or padded: as is cheapest, or for comparison none, or all that may be.
        calibration: What the run found its logits need.
    """

    negative_sampling_rate: float = 1.0
    cost: CostModel = field(default_factory=CostModel)
    budget: ParameterBudget = field(default_factory=ParameterBudget)
    folding: Literal["cheapest", "none", "all"] = "cheapest"
    calibration: Calibration = IDENTITY


_FOLDINGS: Final[dict[str, Callable[[FusedTower, FusionFacts], FusedTower]]] = {
    "cheapest": lambda tower, facts: fold_where_cheaper(tower, facts.cost, facts.budget),
    "none": lambda tower, _: tower,
    "all": lambda tower, facts: fold_all(tower, facts.cost),
}

FUSIONS: Final[dict[str, Callable[[FusedTower, FusionFacts], FusedTower]]] = {
    "serving constants": lambda tower, _: fold_serving_constants(tower),
    "silent fields": lambda tower, _: drop_silent_fields(tower),
    "calibration": lambda tower, facts: calibrate(
        tower, facts.calibration
    ),  # of the labels as sampled: before the next
    "negative sampling": lambda tower, facts: correct_negative_sampling(tower, facts.negative_sampling_rate),
    "embedding": lambda tower, facts: _FOLDINGS[facts.folding](tower, facts),
    "bias": lambda tower, _: absorb_bias(tower),
    "layout": lambda tower, _: arrange(tower),
}


def fuse(tower: FusedTower, facts: FusionFacts) -> FusedTower:
    """Apply every rule in order."""
    for rule in FUSIONS.values():
        tower = rule(tower, facts)
    return tower
