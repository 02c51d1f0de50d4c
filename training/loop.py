"""Training REACTION: AFE chooses fields and dimensions, DTF trains towers and fuses two of them.

A training is a function of data, configuration and seed; it is recorded in a work directory as it goes, and a killed
one continues to the bit-same result on a CPU.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from training.afe import Selection, measure_prepared, select
from training.config import load_config, with_choices
from training.evaluate import SPLIT_KEYS
from training.metrics import evaluate
from training.models.base import FieldSlot, field_slots, with_dims
from training.models.files import load_pair
from training.phases.checkpoint import CheckpointStore
from training.phases.phase import NonFiniteLossError, Progress, probabilities
from training.towers.layout import extended_pair
from training.towers.schedule import Schedule
from training.train_config import DeviceError, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from training.config import ExperimentConfig
    from training.dtf import Start
    from training.field_selection.measures import Measures
    from training.loader import PreparedData
    from training.models.reaction import FusionForm, TowerPair
    from training.preparation.rows import SplitName
    from training.towers.linear_start import Yardstick
    from training.towers.result import DtfResult
    from training.towers.schedule import Observer

__all__ = [
    "DeviceError",
    "NonFiniteLossError",
    "OriginError",
    "Progress",
    "TrainConfig",
    "TrainingDataError",
    "TrainingResult",
    "train_reaction",
]

TELLING = 0.95
"""Share of the label's entropy from which a field that says it is taken for the label itself."""

CHECKPOINT_SECONDS = 30.0
"""Least time between two checkpoints of a phase: a checkpoint writes all tables."""


class TrainingDataError(ValueError):
    """Data that nothing can be learnt from; says where, expected and got."""


class OriginError(ValueError):
    """The run to start from does not fit this data."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training ends with.

    Attributes:
        form: The fusion form: what is exported.
        pair: The dual form: what a retraining starts from.
        selection: AFE's decisions.
        measures: What AFE measured.
        history: One record an evaluation: phase, step, epoch, train_loss and "<output>.auc", "<output>.log_loss".
        metrics: {"validation": {"tower_a", "tower_b", "pair", "teachers", "fused": {metric: value}}, "test": ...}, the
            teachers only where a council is among them.
        table_l2: `TrainConfig.table_l2`, as given or as chosen.
        half_scale_at: `TrainConfig.half_scale_at`, likewise.
        share_below: `AfeConfig.share_below`, likewise.
        fusion_start: `DtfConfig.fusion_start`, likewise.
        notes: What a reader has to know of how it came about: a tower trained twice, a beginning as the yardstick.
    """

    form: FusionForm
    pair: TowerPair
    selection: Selection
    measures: Measures
    history: list[dict[str, Any]]
    metrics: dict[str, dict[str, dict[str, float]]]
    table_l2: float
    half_scale_at: float
    share_below: float
    fusion_start: Start
    notes: tuple[str, ...] = ()


def train_reaction(
    data: PreparedData,
    config: ExperimentConfig,
    workdir: Path,
    *,
    resume: bool,
    init_from: Path | None = None,
    progress: Progress,
    measures: Measures | None = None,
    observe: Observer | None = None,
    splits: Sequence[SplitName] = ("valid", "test"),
    yardstick: Yardstick | None = None,
) -> TrainingResult:
    """Train on prepared data.

    Args:
        data: The data.
        config: The experiment; its `afe`, `dtf`, `train` sections and its seed are used.
        workdir: Where checkpoints are kept.
        resume: Continue from the checkpoints there; otherwise they are removed.
        init_from: A finished run of an earlier day: its pair, fields and dimensions are taken over, ids that were
            appended since start from the out-of-vocabulary row, and its towers go on, at a lower rate.
        progress: Told how far each phase is.
        measures: What AFE measures on this data, if it is known already.
        observe: Called with a phase's history after each of its evaluations; what it raises ends the training, which
            can be resumed.
        yardstick: Logistic regression on this data, which towers begin as if those of random weights end behind it.
        splits: What the models are measured on at the end, if the data has it. A search leaves "test" out.

    Raises:
        TrainingDataError: A split is empty or has labels of one class only.
        OriginError: `init_from` does not fit the data.
        CheckpointError: A checkpoint belongs to another configuration or to other data.
        NonFiniteLossError: The loss became NaN or infinite.
        DeviceError: A device that is not there.
    """
    check_labels(data)
    measures = measure_fields(data, config, progress) if measures is None else measures
    pair = prior = None
    if init_from is None:
        selection = select(measures, config.afe)
        slots = with_dims(field_slots(data.encoder, lambda _name, _rows: 1), selection.dims)
        prior = selection.gate_prior if config.afe.gates else None
    else:
        selection, pair, slots = _take_over(init_from, data)
        config = _with_choices_of(init_from, config)
    threads = torch.get_num_threads()
    store = CheckpointStore(workdir, _fingerprint(data, config, init_from), resume=resume, interval=CHECKPOINT_SECONDS)
    # The caller's random numbers and threads are left as they were.
    with torch.random.fork_rng():
        torch.set_num_threads(config.train.threads)
        try:
            schedule = Schedule(
                slots,
                data.split("train"),
                data.split("valid"),
                dtf=config.dtf,
                config=config.train,
                seed=config.seed,
                store=store,
                progress=progress,
                gate_prior=prior,
                gate_penalty=config.afe.gate_penalty,
                observe=observe,
                yardstick=yardstick,
                share_below=config.afe.share_below,
            )
            result = schedule.run(pair)
            metrics = _metrics(data, schedule, result, splits)
        finally:
            torch.set_num_threads(threads)
    selection = _without(selection, result.closed)
    return TrainingResult(
        result.form,
        result.pair,
        selection,
        measures,
        result.history,
        metrics,
        result.table_l2,
        result.half_scale_at,
        result.share_below,
        result.fusion_start,
        (*too_telling(measures), *result.notes),
    )


def _without(selection: Selection, closed: tuple[str, ...]) -> Selection:
    """Return the selection without the fields whose gates closed."""
    return replace(
        selection,
        kept=tuple(name for name in selection.kept if name not in closed),
        dropped=selection.dropped | dict.fromkeys(closed, "gate closed: worth less log loss than its parameters cost"),
        dims={name: dim for name, dim in selection.dims.items() if name not in closed},
        gate_prior={name: prior for name, prior in selection.gate_prior.items() if name not in closed},
        interactions=tuple(pair for pair in selection.interactions if not set(pair) & set(closed)),
    )


def too_telling(measures: Measures) -> list[str]:
    """A sentence on each field that nearly is the label."""
    rate = measures.base_rate
    whole = -sum(p * math.log2(p) for p in (rate, 1.0 - rate) if p > 0.0)
    return [
        f"field {field.name!r} alone says {field.information_bits / whole:.0%} of what there is to know of the label: "
        "make sure that it is known before the label is"
        for field in measures.fields
        if whole and field.information_bits > TELLING * whole
    ]


def measure_fields(data: PreparedData, config: ExperimentConfig, progress: Progress) -> Measures:
    """Measure the fields as a training would."""

    def report(done: int, total: int) -> None:
        progress("afe", done, total, "")

    return measure_prepared(data, config.afe, report)


def check_labels(data: PreparedData) -> None:
    """Refuse splits that nothing can be learnt from or chosen on.

    Raises:
        TrainingDataError: One is empty or has labels of one class only.
    """
    names: tuple[SplitName, ...] = ("train", "valid")
    for name in names:
        label = data.split(name).label
        clicks = int(label.sum(dtype="int64"))
        if not len(label) or clicks in {0, len(label)}:
            raise TrainingDataError(
                f"{data.path / name}: expected rows of both classes, got {len(label)} rows, {clicks} of label 1"
            )


def _fingerprint(data: PreparedData, config: ExperimentConfig, init_from: Path | None) -> str:
    sections = {name: getattr(config, name).model_dump(mode="json") for name in ("afe", "dtf", "train")}
    whole = {"data": data.digest, "seed": config.seed, **sections, "init_from": init_from is not None}
    if init_from is not None:
        whole["pair"] = hashlib.sha256((init_from / "pair.safetensors").read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _take_over(run: Path, data: PreparedData) -> tuple[Selection, TowerPair, tuple[FieldSlot, ...]]:
    """Return an earlier run's selection, its pair grown to this data's vocabularies, and the slots."""
    pair = load_pair(run)
    try:
        content = json.loads((run / "afe.json").read_text(encoding="utf-8"))["selection"]
        selection = Selection.from_json(content)
    except (OSError, ValueError, KeyError, ValidationError) as error:
        raise OriginError(f"{run / 'afe.json'}: expected AFE's selection, got {error}") from error
    old = {slot.name: slot for slot in pair.slots}
    slots = with_dims(field_slots(data.encoder, lambda _name, _rows: 1), {name: s.dim for name, s in old.items()})
    missing = sorted(old.keys() - {slot.name for slot in slots})
    if missing:
        raise OriginError(f"{run}: expected fields {missing} in {data.path}, got none of these names")
    for slot in slots:
        before = old[slot.name]
        same = ("side", "width", "pooling", "pad_id")
        if slot.rows < before.rows or any(getattr(slot, key) != getattr(before, key) for key in same):
            raise OriginError(
                f"{run}: field {slot.name!r}: expected what was trained, grown: {before}; got {slot}; "
                "prepare the data with --init-from this run"
            )
    # The pair's tables may be wider than the fused model's, whose dimensions are AFE's.
    return selection, extended_pair(pair, slots), with_dims(slots, selection.dims)


def _with_choices_of(run: Path, config: ExperimentConfig) -> ExperimentConfig:
    """Return the experiment with what the earlier run chose, where nothing is given."""
    chosen = load_config(run / "config.toml")
    l2, half, below = config.train.table_l2, config.train.half_scale_at, config.afe.share_below
    return with_choices(
        config,
        table_l2=chosen.train.table_l2 if l2 is None else l2,
        half_scale_at=chosen.train.half_scale_at if half is None else half,
        share_below=(chosen.afe.share_below or 0.0) if below is None else below,
        fusion_start=config.dtf.fusion_start,  # tried anew on this data, unless given
    )


def _metrics(
    data: PreparedData, schedule: Schedule, result: DtfResult, splits: Sequence[SplitName]
) -> dict[str, dict[str, dict[str, float]]]:
    """Every model on validation and, once, here at the end, on test."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in splits:
        if name not in data.splits:
            continue
        split = data.split(name)
        found[SPLIT_KEYS[name]] = {
            model: evaluate(split.label, probabilities(logits), split.weight, split.group)
            for model, logits in schedule.logits(result, split).items()
        }
    return found
