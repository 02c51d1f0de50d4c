"""The parity gate: fusion form = merged tower = ONNX Runtime, or there is no bundle.

Three scores of the same rows are compared, each with a stated tolerance:

    fusion form, float64 (torch)  =  merged tower, float64 (numpy)     logits   the algebra
    fusion form, float64 (torch)  =  fusion form, float32 (torch)      logits   float32 can hold this model
    fusion form, float64 (torch)  =  the written model.onnx, float32   pctr     the graph, as a service runs it

Logits are compared relative to 1 + |logit|. Names are checked first, then shapes, then values.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from model_export.errors import ParityNameError, ParityShapeError, ParityValueError
from model_export.fusion import logits
from model_export.fusion.layout import SIDES
from model_export.graph import INPUTS, OUTPUT
from training.calibration import IDENTITY
from training.models.base import embed
from training.models.reaction import serving_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnxruntime as ort

    from model_export.fusion.tower import Float, FusedTower, Ids
    from service.features import FeatureEncoder
    from training.calibration import Calibration
    from training.models.reaction import FusionForm

CHUNK_ROWS: Final = 8192


@dataclass(frozen=True)
class Tolerance:
    """Largest differences that pass.

    Attributes:
        algebra: Of logits, relative to 1 + |logit|, both in float64: rounding only.
        logit: Of logits, relative to 1 + |logit|, float32 against float64.
        pctr: Of probabilities, float32 graph against float64.
    """

    algebra: float = 1e-9
    logit: float = 1e-5
    pctr: float = 1e-6


@dataclass(frozen=True)
class Rows:
    """The same rows on both layouts.

    Attributes:
        name: What messages call them.
        training: (N, Cc), (N, Ci) ids on the run's layout, which the fusion form reads.
        serving: The same on the bundle's layout.
    """

    name: str
    training: tuple[Ids, Ids]
    serving: tuple[Ids, Ids]


@dataclass(frozen=True)
class ParityReport:
    """Largest differences seen, in the units of `Tolerance`."""

    rows: int
    algebra: float
    logit: float
    pctr: float


class Reference:
    """The fusion form as it serves: constants for training-only fields, calibrated, negative sampling corrected.

    Args:
        form: The run's fusion form, float32, in evaluation mode; it is not changed.
        negative_sampling_rate: The share of negatives that the training data kept.
        calibration: Of the form's logits, before that is undone.

    Raises:
        ValueError: The form is in training mode: dropout and batch statistics would blur its scores.
    """

    def __init__(
        self, form: FusionForm, negative_sampling_rate: float = 1.0, calibration: Calibration = IDENTITY
    ) -> None:
        if form.training:
            raise ValueError("expected a fusion form in evaluation mode, got one in training mode")
        self._stored = form.serving()
        # Tables may be large: they are shared with the form, and only looked-up rows become float64.
        self._exact = deepcopy(form, {id(table): table for table in form.tables})
        self._exact.branches.double()
        self._calibration = calibration
        self._correction = log(negative_sampling_rate)

    def logits(self, context_ids: Ids, candidate_ids: Ids) -> Float:
        """Score in float64: (N,)."""
        form = self._exact
        tables: list[Any] = [_Float64Rows(table) for table in form.tables]
        with torch.inference_mode():
            ids = serving_ids(form.slots, torch.tensor(context_ids), torch.tensor(candidate_ids))
            return self._corrected(form.head(embed(form.slots, tables, *ids)))

    def float32_logits(self, context_ids: Ids, candidate_ids: Ids) -> Float:
        """Score in float32, as it was trained: (N,)."""
        with torch.inference_mode():
            return self._corrected(self._stored(torch.tensor(context_ids), torch.tensor(candidate_ids)))

    def _corrected(self, scores: torch.Tensor) -> Float:
        return np.asarray(self._calibration(scores.double().numpy()) + self._correction)


class _Float64Rows:
    """A table whose rows are read in float64; the table itself is not copied."""

    def __init__(self, table: torch.Tensor) -> None:
        self._table = table

    def __getitem__(self, ids: torch.Tensor) -> torch.Tensor:
        return self._table[ids].double()


def sigmoid(x: Float) -> Float:
    """1 / (1 + exp(-x)), without overflow."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, e) / (1.0 + e))


def check_parity(
    reference: Reference,
    tower: FusedTower,
    runner: ort.InferenceSession,
    samples: list[Rows],
    tolerance: Tolerance = Tolerance(),
) -> ParityReport:
    """Compare the three on every sample.

    Args:
        reference: The fusion form.
        tower: What it was merged into.
        runner: The written model.
        samples: At least one row in all.
        tolerance: What passes.

    Raises:
        ParityNameError: The graph's inputs or output are called otherwise.
        ParityShapeError: They have other shapes than the tower's layout.
        ParityValueError: A score is out of tolerance or not finite (says which row and by how much).
    """
    check_signature(tower, runner)
    worst = {"algebra": 0.0, "logit": 0.0, "pctr": 0.0}
    rows = 0
    for sample in samples:
        for start, training, serving in _chunks(sample):
            where = f"{sample.name}, from row {start}"
            exact = reference.logits(*training)
            found = {
                "algebra": _difference(f"{where}: merged tower", logits(tower, *serving), exact, relative=True),
                "logit": _difference(f"{where}: float32", reference.float32_logits(*training), exact, relative=True),
                "pctr": _difference(f"{where}: model.onnx", _run(runner, serving), sigmoid(exact), relative=False),
            }
            for name, difference in found.items():
                allowed = getattr(tolerance, name)
                if not difference.max() <= allowed:
                    row = int(np.argmax(difference))
                    raise ParityValueError(
                        f"{sample.name}, row {start + row}: {_WHAT[name]}: "
                        f"expected a difference of at most {allowed:g}, got {difference[row]:.3g}"
                    )
                worst[name] = max(worst[name], float(difference.max()))
            rows += len(exact)
    if not rows:
        raise ParityShapeError("expected rows to compare, got none")
    return ParityReport(rows, **worst)


def exact_scores(reference: Reference, sample: Rows) -> Float:
    """Probabilities of a sample by the fusion form in float64: (N,)."""
    return np.concatenate([np.empty(0), *(sigmoid(reference.logits(*ids)) for _, ids, _ in _chunks(sample))])


def graph_scores(runner: ort.InferenceSession, sample: Rows) -> Float:
    """Probabilities of a sample by a written graph: (N,)."""
    return np.concatenate([np.empty(0), *(_run(runner, ids) for _, _, ids in _chunks(sample))])


_WHAT: Final = {
    "algebra": "logit of the merged tower against the fusion form",
    "logit": "logit in float32 against float64",
    "pctr": "pctr of model.onnx against the fusion form",
}


def check_signature(tower: FusedTower, runner: ort.InferenceSession) -> None:
    """Compare the graph's inputs and output with the tower's layout.

    Raises:
        ParityNameError: Other names.
        ParityShapeError: Other numbers of columns.
    """
    inputs = {node.name: node.shape for node in runner.get_inputs()}
    outputs = [node.name for node in runner.get_outputs()]
    if set(inputs) != set(INPUTS) or outputs != [OUTPUT]:
        raise ParityNameError(
            f"expected inputs {sorted(INPUTS)} and output {OUTPUT!r}, got {sorted(inputs)}, {outputs}"
        )
    for side in SIDES:
        columns = inputs[f"{side}_ids"][1]
        if columns != tower.columns(side):
            raise ParityShapeError(f"{side}_ids: expected {tower.columns(side)} columns, got {columns}")


def check_layout(tower: FusedTower, encoder: FeatureEncoder) -> None:
    """Compare the columns that the encoder writes with those that the tower reads.

    Raises:
        ParityNameError: Other fields, or in another order.
        ParityShapeError: A field with other columns or another number of ids.
    """
    for side in SIDES:
        written = [column.name for column in encoder.columns(side)]
        read = [field.name for field in tower.side(side)]
        if written != read:
            raise ParityNameError(f"{side} fields: expected {read}, got {written}")
        for column, field in zip(encoder.columns(side), tower.side(side), strict=True):
            ids = len(encoder.vocabulary(field.name))
            expected, got = (field.first, field.width, field.rows), (column.first, column.width, ids)
            if expected != got:
                raise ParityShapeError(f"field {field.name!r}: expected (first, width, ids) {expected}, got {got}")


def _chunks(sample: Rows) -> Iterator[tuple[int, tuple[Ids, Ids], tuple[Ids, Ids]]]:
    for start in range(0, len(sample.training[1]), CHUNK_ROWS):
        piece = slice(start, start + CHUNK_ROWS)
        training, serving = ((ids[0][piece], ids[1][piece]) for ids in (sample.training, sample.serving))
        yield start, training, serving


def _run(runner: ort.InferenceSession, ids: tuple[Ids, Ids]) -> Float:
    scores = runner.run([OUTPUT], dict(zip(INPUTS, ids, strict=True)))[0]
    return scores.astype(np.float64)  # type: ignore[no-any-return]


def _difference(where: str, got: Float, expected: Float, *, relative: bool) -> Float:
    """Absolute differences, relative to 1 + |expected| where asked; infinite where a score is not finite."""
    if got.shape != expected.shape:
        raise ParityShapeError(f"{where}: expected scores of shape {expected.shape}, got {got.shape}")
    difference = np.abs(got - expected) / (1.0 + np.abs(expected) if relative else 1.0)
    return np.asarray(np.where(np.isfinite(got) & np.isfinite(expected), difference, np.inf))
