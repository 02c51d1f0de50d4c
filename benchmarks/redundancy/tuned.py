"""The DNN of the accuracy table, at the settings that its tuning chose there, thinned as the others are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.accuracy.deep import trained_model
from benchmarks.accuracy.graph.layers import block
from benchmarks.accuracy.summary import chosen_runs
from training.runs import sample_rows
from training.structural.command import ANALYSIS_RESAMPLES, ANALYSIS_ROWS
from training.structural.dense import ROWS, Affine, DenseTower
from training.structural.structure import CALIBRATION_ROWS, Measured, Structure, measure_structure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from benchmarks.accuracy.baselines import Baseline
    from training.loader import PreparedData, Split

MODEL = "DNN"


def chosen_config(task: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The config of the accuracy table's row; None where it has none.

    Args:
        task: Of the accuracy benchmark.
        lines: Of its ledger.
    """
    runs = chosen_runs([line for line in lines if line["task"] == task]).get(MODEL)
    return dict(runs[0]["config"]) if runs else None


def tuned_structure(
    data: PreparedData,
    config: Mapping[str, Any],
    *,
    seed: int,
    rows: int = ANALYSIS_ROWS,
    resamples: int = ANALYSIS_RESAMPLES,
) -> Structure:
    """Train the DNN and thin its layers.

    Args:
        data: What it learns from.
        config: Of a run of the accuracy benchmark.
        seed: Of initial values, the order of rows, samples of rows and resamples.
        rows: Validation rows at most.
        resamples: For the intervals.
    """
    threads = torch.get_num_threads()
    try:
        module = trained_model(MODEL, data, dict(config), seed).learner.module
    finally:
        torch.set_num_threads(threads)
    known = _measured(module, data.split("train"), CALIBRATION_ROWS, seed)
    measured = _measured(module, data.split("valid"), rows, seed)
    return measure_structure(dense(module), known, measured, resamples=resamples, seed=seed)


def dense(module: Baseline) -> DenseTower:
    """The layers of a DNN behind its tables, batch norms folded."""
    layers = block(module.mlp.mlp)  # type: ignore[union-attr,arg-type]
    if any(layer.activation != "Relu" for layer in layers[:-1]) or layers[-1].activation:
        raise ValueError("expected ReLU after every hidden layer and nothing after the last")
    return DenseTower(tuple(Affine(layer.weight, layer.bias) for layer in layers))


@torch.inference_mode()
def embedded(module: Baseline, split: Split, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Rows (N, F d) as the first layer reads them."""
    module.eval()
    parts = []
    for some in np.array_split(rows, max(1, -(-len(rows) // ROWS))):
        sides = (torch.from_numpy(np.array(ids[some])).long() for ids in (split.context_ids, split.candidate_ids))
        parts.append(module.embedding_layer(module.inputs(*sides), flatten_emb=True).numpy())
    return np.concatenate(parts)


def _measured(module: Baseline, split: Split, most: int, seed: int) -> Measured:
    rows = sample_rows(split.rows, most, seed)
    return Measured(
        embedded(module, split, rows),
        np.asarray(split.label[rows]),
        None if split.weight is None else np.asarray(split.weight[rows]),
        None if split.group is None else np.asarray(split.group[rows]),
    )
