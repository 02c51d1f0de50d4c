"""The field's models, thin adapters from our encoded fields to FuxiCTR's layers, in two tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.accuracy.baselines.autoint import AutoInt
from benchmarks.accuracy.baselines.base import Baseline, initialise
from benchmarks.accuracy.baselines.dcnv2 import DCNv2
from benchmarks.accuracy.baselines.deepfm import DeepFM
from benchmarks.accuracy.baselines.dnn import DNN
from benchmarks.accuracy.baselines.edcn import EDCN
from benchmarks.accuracy.baselines.finalmlp import FinalMLP
from benchmarks.accuracy.baselines.finalnet import FinalNet
from benchmarks.accuracy.baselines.fm import FM
from benchmarks.accuracy.baselines.fwfm import FwFM
from benchmarks.accuracy.baselines.gdcn import GDCN
from benchmarks.accuracy.baselines.widedeep import WideDeep
from benchmarks.accuracy.baselines.xdeepfm import XDeepFM
from training.models.base import FieldSlot

__all__ = ["BASELINES", "EXTRAS", "Baseline", "build"]

Builder = Callable[[Sequence[FieldSlot], Mapping[str, Any]], Baseline]

BASELINES: dict[str, Builder] = {
    "DCNv2": DCNv2,
    "DNN": DNN,
    "DNN-small": DNN,
    "FinalMLP": FinalMLP,
    "FinalNet": FinalNet,
    "FM": FM,
    "FwFM": FwFM,
}
"""The core table."""

EXTRAS: dict[str, Builder] = {
    "AutoInt+": AutoInt,
    "DeepFM": DeepFM,
    "EDCN": EDCN,
    "GDCN": GDCN,
    "WideDeep": WideDeep,
    "xDeepFM": XDeepFM,
}
"""At usual settings, by name or with `--extra`."""


def build(name: str, slots: Sequence[FieldSlot], config: Mapping[str, Any]) -> Baseline:
    """Build a baseline with initial values drawn from torch's generator.

    Args:
        name: In `BASELINES` or `EXTRAS`.
        slots: The fields of the prepared data; every table gets the config's `embedding_dim` columns.
        config: The model's section of a run's config.

    Returns:
        A module whose forward takes context_ids (B | 1, Cc) and candidate_ids (B, Ci), and gives logits (B,).
    """
    model = (BASELINES | EXTRAS)[name](slots, config)
    initialise(model)
    return model
