"""Opens a run for export, and refuses what must not be served."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from model_export.errors import (
    FusionMissingError,
    OutputExistsError,
    RunChangedError,
    RunNotFinishedError,
    RunRefusedError,
)
from model_export.fusion.towers import check_finite, check_variances
from service.features import FeatureEncoder, SchemaError
from training.models.base import field_slots
from training.models.files import ModelFormatError, load_fusion_form, read_weights
from training.runs import RunCorruptError, RunError, RunUnfinishedError, open_run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from training.calibration import Calibration
    from training.models.reaction import FusionForm
    from training.runs import Run

FUSION_PHASE: Final = "fusion"
FUSED: Final = "fused"


@dataclass(frozen=True)
class LoadedRun:
    """A run that can be exported.

    Attributes:
        run: The run directory, its digests verified.
        form: The fusion form, float32, in evaluation mode, all weights finite.
        encoder: The training encoder.
        negative_sampling_rate: The share of negatives that the training data kept.
        calibration: What the run found its logits need.
    """

    run: Run
    form: FusionForm
    encoder: FeatureEncoder
    negative_sampling_rate: float
    calibration: Calibration


def refuse_existing(out: Path) -> None:
    """Refuse an output path that is taken, before any work is done.

    Raises:
        OutputExistsError: Something is there.
    """
    if os.path.lexists(out):
        raise OutputExistsError(f"{out}: expected a path that does not exist yet, got an existing one")


def load_run(path: Path) -> LoadedRun:
    """Open a run, and check everything that export relies on.

    Raises:
        RunNotFinishedError: Its training has not ended.
        RunChangedError: A file differs from its digest, or the model does not belong to the encoder.
        FusionMissingError: Its fusion phase never ran.
        NonFiniteError: A weight is NaN or infinite.
        VarianceError: A variance is negative.
        RunRefusedError: It cannot be read otherwise.
    """
    try:
        run = open_run(path)
    except RunUnfinishedError as error:
        raise RunNotFinishedError(str(error)) from error
    except RunCorruptError as error:
        raise RunChangedError(str(error)) from error
    except RunError as error:
        raise RunRefusedError(str(error)) from error
    check_fused(run.path, run.metrics, run.history())
    try:
        encoder = run.encoder
    except SchemaError as error:
        raise RunChangedError(str(error)) from error
    form = _load_form(run.path)
    _check_slots(run.path, form, encoder)
    return LoadedRun(run, form, encoder, float(run.data_info["negative_sampling_rate"]), _calibration(run))


def _calibration(run: Run) -> Calibration:
    try:
        return run.calibration
    except RunCorruptError as error:
        raise RunChangedError(str(error)) from error


def check_fused(path: Path, metrics: Mapping[str, Any], history: list[dict[str, Any]]) -> None:
    """Refuse a run whose towers never became one.

    Raises:
        FusionMissingError: Its history has no fusion phase, or nothing measured the fused tower.
    """
    phases = list(dict.fromkeys(str(record.get("phase")) for record in history))
    measured = sorted(metrics.get("validation", {}))
    if FUSION_PHASE not in phases or FUSED not in measured:
        raise FusionMissingError(
            f"{path}: expected a run whose {FUSION_PHASE} phase ran and measured {FUSED!r}, "
            f"got the phases {phases} and metrics of {measured}"
        )


def _load_form(path: Path) -> FusionForm:
    try:
        _refuse_bad_weights(path)
        form = load_fusion_form(path)
    except ModelFormatError as error:
        raise RunChangedError(str(error)) from error
    return form


def _refuse_bad_weights(path: Path) -> None:
    weights = path / "weights.safetensors"
    try:
        tensors = read_weights(weights)
        check_finite(tensors)
        check_variances(tensors)
    except RunRefusedError as error:
        raise type(error)(f"{weights}: {error}") from error


def _check_slots(path: Path, form: FusionForm, encoder: FeatureEncoder) -> None:
    """Compare the model's slots with the encoder's columns.

    Raises:
        RunChangedError: A slot that the encoder does not write, or writes elsewhere.
    """
    expected = {slot.name: slot for slot in field_slots(encoder, lambda _, __: 1)}
    for slot in form.slots:
        known = expected.get(slot.name)
        got = replace(slot, dim=1)
        if got != known:
            raise RunChangedError(f"{path / 'model.json'}: slot {slot.name!r}: expected {known}, got {got}")
