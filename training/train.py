"""From prepared data to a finished run directory: the steps in order, nothing else."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from training.baseline import baseline_scores, fit_baseline, yardstick_of
from training.calibrating import choose
from training.calibration import probability
from training.config import refuse_unknown_fields, save_config, with_choices
from training.datasets.base import SPLITS
from training.environment import git_revision, library_versions
from training.evaluate import SPLIT_KEYS, calibrated_probabilities, score, split_metrics
from training.files import read_jsonl, write_json, write_jsonl
from training.loader import PreparedData
from training.loop import check_labels, train_reaction
from training.models.files import save_model, save_pair
from training.pages.calibration_views import value_ratios
from training.partial import start_run
from training.phases.phase import probabilities
from training.reference import reference_statistics, truncated_shares
from training.report import render_report
from training.runs import VALIDATION_ROWS, Run, ValidationSample, open_run, sample_rows
from training.same_data import refuse_other_data
from training.structural.command import PLAIN_FILE, STRUCTURE_FILE, plain_structure, structure_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from training.baseline import Baseline
    from training.calibration import Calibration
    from training.config import ExperimentConfig
    from training.loader import Split
    from training.loop import Progress, TrainingResult
    from training.models.reaction import FusionForm


def train_run(
    config: ExperimentConfig,
    data_path: Path,
    out: Path,
    *,
    resume: bool = False,
    init_from: Path | None = None,
    plain_tower: bool = False,
    progress: Progress,
) -> Path:
    """Train, measure, report and publish one run.

    Args:
        config: the experiment, all overrides applied.
        data_path: what `prepare` wrote for it.
        out: the run directory; must not exist.
        resume: continue `<out>.partial`.
        init_from: a finished run to start from.
        plain_tower: train a plain tower too, to show beside the model what can go of its dense layers.
        progress: told (phase, done, total, note).

    Returns:
        `out`.

    Raises:
        RunError: the output exists, the data belongs to another experiment, or a resume does not match.
        DataError: the prepared data cannot be read.
        ConfigError: `afe.keep` names no field of the data.
    """
    data = PreparedData.open(data_path)
    refuse_other_data(config, data)
    refuse_unknown_fields(config.afe, [field.name for field in data.encoder.fields])
    origin = None if init_from is None else open_run(init_from)
    partial = start_run(out, config, data.digest, resume=resume, init_from=None if origin is None else origin.id)
    try:
        check_labels(data)
        started = time.monotonic()
        baseline = _fit_baseline(data, config, progress)
        fitted = time.monotonic()
        result = train_reaction(
            data,
            config,
            partial.checkpoints,
            resume=partial.resumed,
            init_from=init_from,
            progress=progress,
            yardstick=yardstick_of(baseline, data.encoder, data.split("valid")),
        )
        trained = time.monotonic()
        seconds = {"training": trained - fitted, "baseline": fitted - started}
        # What was chosen is written as if it had been given: the same again is then one command, and no search.
        resolved = with_choices(
            config,
            table_l2=result.table_l2,
            half_scale_at=result.half_scale_at,
            share_below=result.share_below,
            fusion_start=result.fusion_start,
        )
        plain = None
        if plain_tower:  # before anything is written: if it fails, what was trained is there for --resume
            plain = plain_structure(data, resolved, progress)
            seconds["plain_tower"] = time.monotonic() - trained
        measuring = time.monotonic()
        facts: dict[str, Any] = {
            "seed": config.seed,
            "init_from": None if origin is None else origin.id,
            "git_revision": git_revision(),
            "versions": library_versions(),
            "features_digest": data.encoder.digest,
            "data_digest": data.digest,
            "data": data.info.model_dump(mode="json"),
            "wall_seconds": seconds,
        }
        with partial.publish(facts) as staged:
            _write_model(staged, resolved, data, result)
            _write_measurements(staged, config, data, result, baseline)
            if plain is not None:
                write_json(staged / PLAIN_FILE, plain.as_json())
            seconds["measuring"] = time.monotonic() - measuring
            page = render_report(Run(staged, partial.record(facts)))
            (staged / "report.html").write_text(page, encoding="utf-8")
    except BaseException:
        partial.discard_unless_resumable()
        raise
    return out


def _fit_baseline(data: PreparedData, config: ExperimentConfig, progress: Progress) -> Baseline:
    def report(done: int, total: int) -> None:
        progress("baseline", done, total, "")

    report(0, 1)
    return fit_baseline(data.encoder, data.split("train"), data.split("valid"), seed=config.seed, progress=report)


def _write_model(staged: Path, config: ExperimentConfig, data: PreparedData, result: TrainingResult) -> None:
    save_config(config, staged / "config.toml")
    data.encoder.save(staged)
    save_model(staged, result.form)
    save_pair(staged, result.pair)
    write_json(staged / "afe.json", {"selection": result.selection.as_json(), "measures": result.measures.as_json()})
    write_jsonl(staged / "history.jsonl", result.history)
    shutil.copyfile(data.raw_sample, staged / "raw_sample.jsonl")


def _write_measurements(
    staged: Path, config: ExperimentConfig, data: PreparedData, result: TrainingResult, baseline: Baseline
) -> None:
    sample, logits = _sampled(data.split("valid"), result.form, config.seed)
    sample.save(staged / "validation.safetensors")
    choice = choose(config.calibration, logits, sample.label, sample.weight, sample.group, seed=config.seed)
    write_json(staged / "calibration.json", choice.calibration.as_json())
    write_json(staged / "reference.json", _reference(data, result.form, sample, choice.calibration))
    facts: dict[str, Any] = baseline.facts()
    metrics: dict[str, Any] = dict(result.metrics)
    for name in SPLITS:
        key = SPLIT_KEYS[name]
        if key in result.metrics:
            split = data.split(name)
            facts[key] = split_metrics(split, baseline_scores(baseline, data.encoder, split))
            if choice.calibration.kind != "identity":
                pctr = calibrated_probabilities(result.form, choice.calibration, split)
                metrics[key] = {**metrics[key], "calibrated": split_metrics(split, pctr)}
    if "test" in data.splits:
        rows, said = _sampled(data.split("test"), result.form, config.seed)
        pctr = probability(choice.calibration(said))
        metrics["test_ratios"] = [one.as_json() for one in value_ratios(rows, pctr, data.encoder)]
    more = {"baseline": facts, "calibration": choice.as_json(), "notes": list(result.notes)}
    write_json(staged / "metrics.json", {**metrics, **more})
    structure = structure_of(result.form, data.split("train"), data.split("valid"), seed=config.seed)
    write_json(staged / STRUCTURE_FILE, structure.as_json())


def _sampled(split: Split, form: FusionForm, seed: int) -> tuple[ValidationSample, NDArray[np.float32]]:
    """Some rows of a split, as a run keeps those of validation, and their logits."""
    rows = sample_rows(split.rows, VALIDATION_ROWS, seed)
    context_ids, candidate_ids = split.context_ids[rows], split.candidate_ids[rows]
    (logits,) = score(form, context_ids, candidate_ids)
    sample = ValidationSample(
        context_ids=context_ids,
        candidate_ids=candidate_ids,
        label=split.label[rows],
        pctr=probabilities(logits).astype(np.float32),
        weight=None if split.weight is None else split.weight[rows],
        group=None if split.group is None else split.group[rows],
    )
    return sample, logits


def _reference(
    data: PreparedData, form: FusionForm, sample: ValidationSample, calibration: Calibration
) -> dict[str, Any]:
    train = data.split("train")
    (logits,) = score(form.serving(), sample.context_ids, sample.candidate_ids)
    return reference_statistics(
        data.encoder,
        {"context": train.context_ids, "candidate": train.candidate_ids},
        train.label,
        probability(calibration(logits)),
        negative_sampling_rate=data.info.negative_sampling_rate,
        truncated=truncated_shares(data.encoder, read_jsonl(data.raw_sample)),
    )
