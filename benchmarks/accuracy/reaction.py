"""Our run: trained as `python -m training train` does, exported as `python -m model_export`; the bundle is scored."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.accuracy.fitted import Config, Fitted, Place
from benchmarks.accuracy.ledger import Parameters
from benchmarks.accuracy.models import as_recorded
from benchmarks.accuracy.tasks import TASKS
from model_export.export import export_run
from model_export.serving import serving_ids
from service.bundle import read_bundle
from service.scorer import Scorer
from training.calibrating import choose
from training.calibration import CalibrationConfig
from training.config import ExperimentConfig, with_overrides
from training.evaluate import calibrated_probabilities, model_probabilities
from training.evaluate import score as logits_of
from training.models.files import load_pair
from training.runs import open_run
from training.train import train_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from training.calibration import Calibration
    from training.loader import Split
    from training.runs import Run

OWN = {"format", "name", "seed", "data", "train"}
"""What of an experiment is no setting of the model: named elsewhere in a line."""

BLOCK = 8192
"""Rows scored at once."""


def settings(task: str) -> Config:
    """The method's number, and the sections of an experiment that are not its data, defaults included.

    Calibration is off: no baseline has that step, and the table compares models. What it would do is told beside.
    """
    values = TASKS[task].config().model_dump(mode="json")
    values["calibration"]["kind"] = "none"
    model = as_recorded(task, {name: section for name, section in values.items() if name not in OWN})
    return {"method": model.pop("method"), "model": model, "train": values["train"]}


def fit(name: str, place: Place, config: Config, seed: int) -> Fitted:
    """Train, export, and read back what would be served."""
    home = place.work / "reaction" / f"{place.task}-{name}-{seed}"
    shutil.rmtree(home, ignore_errors=True)
    base = TASKS[place.task].config()
    values = base.model_dump(mode="json") | config["model"] | {"train": config["train"]}
    checked = ExperimentConfig.model_validate(values)
    experiment = with_overrides(checked.model_copy(update={"data": base.data}), seed=seed)
    run = open_run(train_run(experiment, place.data.path, home / "run", progress=lambda *_: None))
    export_run(home / "run", home / "bundle")
    bundle = read_bundle(home / "bundle")
    scorer = Scorer(bundle)
    encoder = place.data.encoder

    def score(split: Split) -> NDArray[np.float64]:
        parts = []
        for start in range(0, split.rows, BLOCK):
            rows = slice(start, start + BLOCK)
            ids = serving_ids(encoder, scorer.encoder, (split.context_ids[rows], split.candidate_ids[rows]))
            parts.append(scorer.run(*ids))
        return np.concatenate(parts).astype(np.float64)

    calibration = calibration_of(run, place.data.split("valid"), seed)

    def more() -> Mapping[str, Any]:
        test = place.data.split("test")
        found = model_probabilities(load_pair(run.path), run.form(), test)
        teachers = {"teachers": found["teachers"]} if "teachers" in found else {}
        calibrated = calibrated_probabilities(run.form(), calibration, test)
        return {
            "pair": found["pair"],
            "towers": [found["tower_a"], found["tower_b"]],
            **teachers,
            "calibrated": calibrated,
        }

    model = bundle.manifest.model
    history = run.history()
    searched = run.config
    stored = model["embedding_parameters"] + model["dense_parameters"]
    last = {record["phase"]: record for record in history}
    return Fitted(
        score=score,
        parameters=Parameters(
            training=_trained(run.form(), run.path),
            inference=stored,
            embedding=model["embedding_parameters"],
            dense=model["dense_parameters"],
            bytes=model["parameter_bytes"],
        ),
        flops=model["flops"],
        steps=sum(int(record["step"]) for record in last.values()),
        epochs=sum(float(record["epoch"]) for record in last.values()),
        facts={
            "bundle": str((home / "bundle").relative_to(place.work)),
            "widths": model["widths"],
            "calibration": calibration.kind,
            "notes": run.metrics["notes"],
            "chosen": {
                "table_l2": searched.train.table_l2,
                "half_scale_at": searched.train.half_scale_at,
                "share_below": searched.afe.share_below,
                "fusion_start": searched.dtf.fusion_start,
            },
        },
        more=more,
    )


def calibration_of(run: Run, valid: Split, seed: int) -> Calibration:
    """What a training that is not told to leave it would have fitted on validation."""
    (logits,) = logits_of(run.form(), valid.context_ids, valid.candidate_ids)
    return choose(CalibrationConfig(), logits, valid.label, valid.weight, valid.group, seed=seed).calibration


def _trained(form: Any, run: Any) -> int:
    pair = load_pair(run)
    return sum(p.numel() for part in (pair, form) for p in part.parameters())
