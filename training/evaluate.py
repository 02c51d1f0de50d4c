"""Both towers, the pair and the fused model on one split, side by side.

"Fused" here is the fusion form: the exporter merges it exactly, so its metrics are those of what is served (on the
training layout: training-only fields as recorded).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from training.calibration import probability
from training.dtf import named_logits
from training.loader import PreparedData
from training.metrics import evaluate
from training.models.files import load_pair
from training.phases.phase import probabilities
from training.runs import RunMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from training.calibration import Calibration
    from training.loader import Split
    from training.models.reaction import FusionForm, TowerPair
    from training.runs import Run

ROWS = 1 << 14
"""Rows scored at once."""

SPLIT_KEYS = {"train": "train", "valid": "validation", "test": "test"}
"""A split's name in prepared data -> its key in `metrics.json`."""


@torch.inference_mode()
def score(
    model: Callable[[Tensor, Tensor], Tensor | tuple[Tensor, ...]],
    context_ids: NDArray[np.int32],
    candidate_ids: NDArray[np.int32],
) -> tuple[NDArray[np.float32], ...]:
    """Logits of all rows, in bounded memory.

    Args:
        model: gives logits (B,), or several of them.
        context_ids: int32 (N, Cc).
        candidate_ids: int32 (N, Ci).

    Returns:
        One float32 (N,) for each of the model's outputs.
    """
    parts: list[tuple[NDArray[np.float32], ...]] = []
    for start in range(0, len(candidate_ids), ROWS):
        block = (torch.from_numpy(np.array(ids[start : start + ROWS])).long() for ids in (context_ids, candidate_ids))
        logits = model(*block)
        parts.append(tuple(part.float().numpy() for part in (logits if isinstance(logits, tuple) else (logits,))))
    return tuple(np.concatenate(pieces) for pieces in zip(*parts, strict=True))


def model_probabilities(pair: TowerPair, form: FusionForm, split: Split) -> dict[str, NDArray[np.float64]]:
    """Probabilities (N,) of the towers, the pair, the teachers and the fused form, by name."""
    said = score(lambda *ids: tuple(tower(*ids) for tower in pair.all), split.context_ids, split.candidate_ids)
    (fused,) = score(form, split.context_ids, split.candidate_ids)
    return {name: probabilities(values) for name, values in {**named_logits(*said), "fused": fused}.items()}


def calibrated_probabilities(form: FusionForm, calibration: Calibration, split: Split) -> NDArray[np.float64]:
    """Probabilities (N,) of the fusion form as it is served, a correction for sampled negatives apart."""
    (logits,) = score(form, split.context_ids, split.candidate_ids)
    return probability(calibration(logits))


def split_metrics(split: Split, pctr: NDArray[np.float64]) -> dict[str, float]:
    """Every metric of one model on a split, weighted and grouped where the split is."""
    return evaluate(split.label, pctr, split.weight, split.group)


def evaluate_run(run: Run, data_path: Path | None, split_name: str) -> dict[str, Any]:
    """Metrics of a run's models on one split.

    Args:
        run: a finished run.
        data_path: data prepared with the run's features. None gives what the run itself measured.
        split_name: train, valid or test.

    Returns:
        {"run", "data", "split", "rows", "models": {model: metrics}}; the baseline is among the models on the run's own
        data.

    Raises:
        RunMismatchError: the data was prepared with other features, or the run has not measured this split.
        DataError: the data cannot be read or has no such split.
    """
    key = SPLIT_KEYS[split_name]
    measured = dict(run.metrics.get(key, {}))
    if key in run.metrics.get("baseline", {}):
        measured["baseline"] = run.metrics["baseline"][key]
    rows = run.data_info["rows"].get(split_name)
    if data_path is None:
        if not measured:
            raise RunMismatchError(
                f"{run.path}: {split_name}: expected a split it was measured on, got none; give --data"
            )
        return {"run": run.id, "data": None, "split": split_name, "rows": rows, "models": measured}
    data = PreparedData.open(data_path)
    if data.encoder.digest != run.encoder.digest:
        raise RunMismatchError(
            f"{data_path}: features digest: expected {run.encoder.digest} (the run's), got {data.encoder.digest}"
        )
    split = data.split(split_name)  # type: ignore[arg-type]
    found = {
        name: split_metrics(split, pctr)
        for name, pctr in model_probabilities(load_pair(run.path, mapped=True), run.form(), split).items()
    }
    if run.calibration.kind != "identity":
        found["calibrated"] = split_metrics(split, calibrated_probabilities(run.form(), run.calibration, split))
    if data.digest == run.record["data_digest"] and "baseline" in measured:
        found["baseline"] = measured["baseline"]
    return {"run": run.id, "data": str(data_path), "split": split_name, "rows": split.rows, "models": found}
