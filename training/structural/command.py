"""`analyze-structure`: how much of the dense layers can go, for a run's fused model and for a plain tower beside it.

The plain tower is what the field publishes: every field in one dimension, wide layers, no AFE, no second tower. It is
trained by the same loop, on the same rows, with the run's own `[train]` settings; neither was tuned for this analysis.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from training.dtf import DtfConfig
from training.loader import PreparedData
from training.models.base import field_slots
from training.phases.checkpoint import CheckpointStore
from training.runs import RunMismatchError, open_run, sample_rows
from training.structural.dense import embedded, folded
from training.structural.structure import (
    CALIBRATION_ROWS,
    MEASURED_ROWS,
    RESAMPLES,
    Measured,
    Structure,
    measure_structure,
)
from training.towers.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.config import ExperimentConfig
    from training.loader import Split
    from training.models.reaction import FusionForm, Tower
    from training.phases.phase import Progress

STRUCTURE_FILE: Final = "structure.json"
PLAIN_FILE: Final = "structure_plain.json"
PLAIN_WIDTHS: Final = (400, 400, 400)
PLAIN_DIMENSION: Final = 10
ANALYSIS_ROWS: Final = 100_000
"""Validation rows of the command, which has more time than the end of a training."""

ANALYSIS_RESAMPLES: Final = 200
WORK: Final = 4e8
"""Products a model that the end of a training may take: rows times dense parameters."""

FEWEST_ROWS: Final = 4000


def structure_of(
    model: Tower | FusionForm,
    train: Split,
    valid: Split,
    *,
    seed: int,
    rows: int | None = None,
    resamples: int = RESAMPLES,
) -> Structure:
    """Curves of a trained model: importance from training rows, loss on validation rows.

    Args:
        model: in evaluation mode, on the CPU.
        train: the training split.
        valid: the validation split.
        seed: of both samples of rows and of the resamples.
        rows: validation rows at most; by default as many as take seconds: fewer for large layers.
        resamples: for the intervals.
    """
    tower = folded(model)
    if rows is None:
        rows = min(MEASURED_ROWS, max(FEWEST_ROWS, int(WORK / tower.parameters)))
    known = _measured(model, train, CALIBRATION_ROWS, seed)
    return measure_structure(tower, known, _measured(model, valid, rows, seed), resamples=resamples, seed=seed)


def _measured(model: Tower | FusionForm, split: Split, most: int, seed: int) -> Measured:
    rows = sample_rows(split.rows, most, seed)
    return Measured(
        embedded(model, split.context_ids[rows], split.candidate_ids[rows]),
        np.asarray(split.label[rows]),
        None if split.weight is None else np.asarray(split.weight[rows]),
        None if split.group is None else np.asarray(split.group[rows]),
    )


def plain_tower(
    data: PreparedData, config: ExperimentConfig, widths: Sequence[int], dimension: int, progress: Progress
) -> Tower:
    """Train one tower over all fields on the labels.

    Args:
        data: what it learns from.
        config: its `train` section and seed are used.
        widths: units of the hidden layers.
        dimension: of every field's table.
        progress: told (phase, done, total, note).
    """
    slots = field_slots(data.encoder, lambda _name, _rows: dimension)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as directory, torch.random.fork_rng():
        torch.set_num_threads(config.train.threads)
        try:
            schedule = Schedule(
                slots,
                data.split("train"),
                data.split("valid"),
                dtf=DtfConfig(widths=tuple(widths)),
                config=config.train,
                seed=config.seed,
                store=CheckpointStore(Path(directory), "plain", resume=False, interval=float("inf")),
                progress=progress,
            )
            return schedule.tower("plain", 0).cpu().eval()
        finally:
            torch.set_num_threads(threads)


def plain_structure(data: PreparedData, config: ExperimentConfig, progress: Progress) -> Structure:
    """Train the plain tower and measure its curves, as the end of a training does the model's."""
    tower = plain_tower(data, config, PLAIN_WIDTHS, PLAIN_DIMENSION, progress)
    return structure_of(tower, data.split("train"), data.split("valid"), seed=config.seed)


def analyze_structure(
    source: Path,
    data_path: Path | None,
    *,
    baseline: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Measure a run's fused model, and a plain tower trained beside it.

    Args:
        source: a finished run.
        data_path: the data it was trained on; None shows what the run itself measured.
        baseline: train the plain tower and measure it too.
        progress: told (phase, done, total, note).

    Returns:
        {"run", "data", "models": {"fused": structure, "plain": structure}}, JSON-able (`Structure.from_json`).

    Raises:
        RunError: no run, none with a measured structure, or data that it was not trained on.
        DataError: the data cannot be read.
    """
    run = open_run(source)
    if data_path is None:
        found = run.structure
        if found is None or baseline:
            why = "a plain tower is trained on it" if found else "it was trained before this was measured"
            raise RunMismatchError(f"{source}: expected --data for the structure of its layers ({why}), got none")
        return {"run": run.id, "data": None, "models": {"fused": dict(found)}}
    data = PreparedData.open(data_path)
    if data.digest != run.record["data_digest"]:
        raise RunMismatchError(
            f"{data_path}: data digest: expected {run.record['data_digest']} (the run's), got {data.digest}"
        )
    train, valid = data.split("train"), data.split("valid")
    models: dict[str, Tower | FusionForm] = {"fused": run.form()}
    if baseline:
        models["plain"] = plain_tower(data, run.config, PLAIN_WIDTHS, PLAIN_DIMENSION, progress)
    structures = {}
    for done, (name, model) in enumerate(models.items(), 1):
        measured = structure_of(
            model, train, valid, seed=run.config.seed, rows=ANALYSIS_ROWS, resamples=ANALYSIS_RESAMPLES
        )
        structures[name] = measured.as_json()
        progress("thinning", done, len(models), "")
    return {"run": run.id, "data": str(data_path), "models": structures}
