"""One measurement: a table prepared and learnt with the defaults, beside the baseline and the best possible model."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.defaults.tables import TABLES
from training.baseline import baseline_scores, fit_baseline, yardstick_of
from training.config import ExperimentConfig, load_config
from training.loader import PreparedData
from training.loop import train_reaction
from training.metrics import auc, log_loss
from training.prepare import prepare
from training.tuning.space import applied

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

EXPERIMENTS = Path(__file__).resolve().parents[2] / "training" / "experiments"


@dataclass(frozen=True)
class Measured:
    """What one run came to, on one split.

    Attributes:
        table: Name of the table.
        seed: Of table, split, and training.
        rows: Of the training split.
        base_rate: Of the split that is measured.
        auc: By model: "fused", "tower_a", "pair", "baseline" and, where known, "best".
        log_loss: The same.
        dropped: Fields that AFE dropped or whose gates closed.
        parameters: Of the served model's tables.
        epochs: Of each phase until its best weights.
        seconds: CPU seconds of the training.
    """

    table: str
    seed: int
    rows: int
    base_rate: float
    auc: dict[str, float]
    log_loss: dict[str, float]
    dropped: int
    parameters: int
    epochs: dict[str, float]
    seconds: float


def measure(table: str, seed: int, work: Path, changed: Mapping[str, Any], *, split: str) -> Measured:
    """Measure one table.

    Args:
        table: A name of `TABLES`, or of a published experiment, with `:time` or `:random` for another split of it.
        seed: Of everything.
        work: Where prepared data are kept.
        changed: "section.key" -> value instead of a default.
        split: "valid" or "test".
    """
    config, known = prepared(table, seed, work)
    config = applied(config, changed)
    data = PreparedData.open(_folder(table, seed, work) / "data")
    train, part = data.split("train"), data.split(split)  # type: ignore[arg-type]
    baseline = fit_baseline(data.encoder, train, data.split("valid"), seed=seed)
    started = _cpu()
    valid = data.split("valid")
    result = train_reaction(
        data,
        config,
        _folder(table, seed, work) / "checkpoints",
        resume=False,
        progress=lambda *_: None,
        yardstick=yardstick_of(baseline, data.encoder, valid),
    )
    seconds = _cpu() - started
    found = result.metrics["validation" if split == "valid" else split]
    aucs = {name: values["auc"] for name, values in found.items()}
    losses = {name: values["log_loss"] for name, values in found.items()}
    scores = {"baseline": baseline_scores(baseline, data.encoder, part)}
    if split in known:
        scores["best"] = known[split]
    for name, score in scores.items():
        aucs[name] = auc(part.label, score, part.weight)
        losses[name] = log_loss(part.label, score, part.weight)
    best: dict[str, float] = {}
    for phase in dict.fromkeys(record["phase"] for record in result.history):
        records = [record for record in result.history if record["phase"] == phase]
        monitored = {"fusion": "fused"}.get(phase, phase)
        scaled, plain = f"{monitored}.scaled_log_loss", f"{monitored}.log_loss"
        losses_of = [record.get(scaled, record[plain]) for record in records]  # what the phase stopped by
        best[phase] = records[losses_of.index(min(losses_of))]["epoch"]
    return Measured(
        table,
        seed,
        len(train.label),
        float(np.mean(part.label)),
        aucs,
        losses,
        len(result.selection.dropped),
        sum(slot.rows * slot.dim for slot in result.form.slots),
        best,
        seconds,
    )


def prepared(table: str, seed: int, work: Path) -> tuple[ExperimentConfig, dict[str, NDArray[np.float64]]]:
    """Prepare a table where that has not been done; return the experiment and what is known about its splits."""
    folder = _folder(table, seed, work)
    known: dict[str, NDArray[np.float64]] = {}
    if table in TABLES:
        folder.mkdir(parents=True, exist_ok=True)
        number = list(TABLES).index(table)
        data, known = TABLES[table](np.random.default_rng([seed, number])).write(folder, seed)
        config = ExperimentConfig(format=1, name="defaults", seed=seed, data=data)
    else:
        name, _, kind = table.partition(":")
        config = load_config(EXPERIMENTS / f"{name}.toml").model_copy(update={"seed": seed})
        if kind:
            values = {**config.data.model_dump(exclude_unset=True), "split": {"kind": kind}}
            config = config.model_copy(update={"data": type(config.data).model_validate(values)})
    if not (folder / "data").exists():
        prepare(config.data, base=folder, seed=seed, name=config.name, out=folder / "data")
    return config, known


def _folder(table: str, seed: int, work: Path) -> Path:
    return work.resolve() / "".join(c if c.isalnum() else "-" for c in table) / str(seed)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
