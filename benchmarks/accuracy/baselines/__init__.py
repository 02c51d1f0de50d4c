"""The field's models, thin adapters from our encoded fields to FuxiCTR's layers; BASELINES is their table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.accuracy.baselines.base import Baseline, initialise
from benchmarks.accuracy.baselines.dcnv2 import DCNv2
from benchmarks.accuracy.baselines.dnn import DNN
from benchmarks.accuracy.baselines.finalmlp import FinalMLP
from benchmarks.accuracy.baselines.finalnet import FinalNet
from benchmarks.accuracy.baselines.fm import FM
from benchmarks.accuracy.baselines.fwfm import FwFM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from training.models.base import FieldSlot

__all__ = ["BASELINES", "Baseline", "build"]

BASELINES: dict[str, Callable[[Sequence[FieldSlot], Mapping[str, Any]], Baseline]] = {
    "DCNv2": DCNv2,
    "DNN": DNN,
    "DNN-small": DNN,
    "FinalMLP": FinalMLP,
    "FinalNet": FinalNet,
    "FM": FM,
    "FwFM": FwFM,
}


def build(name: str, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> Baseline:
    """Build a baseline with initial values drawn from torch's generator.

    Args:
        name: In `BASELINES`.
        slots: The fields of the prepared data; every table gets the config's `embedding_dim` columns.
        config: The model's section of a run's config.

    Returns:
        A module whose forward takes context_ids (B | 1, Cc) and candidate_ids (B, Ci), and gives logits (B,).
    """
    model = BASELINES[name](slots, config)
    initialise(model)
    return model
