"""One run: train a variant of a task on a seed, and measure it on validation. Nothing here reads a test split."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.ablation.store import SharedPhases
from benchmarks.ablation.variants import FULL, VARIANTS
from benchmarks.accuracy.bootstrap import replicates
from benchmarks.accuracy.ledger import Bootstrap, Line, Metrics, Purpose, rounded, run_key
from benchmarks.accuracy.models import as_recorded
from benchmarks.accuracy.tasks import TASKS, data_digest, prepared
from training.afe import select
from training.baseline import fit_baseline, yardstick_of
from training.config import with_choices
from training.environment import library_versions
from training.loop import measure_fields
from training.metrics import evaluate, scaled_log_loss
from training.models.base import field_slots, with_dims
from training.phases.phase import probabilities
from training.towers.fusing import ALONE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.ablation.schedules import Ablated, ControlSettings
    from benchmarks.ablation.variants import Variant
    from training.afe import Selection
    from training.config import ExperimentConfig
    from training.field_selection.measures import Measures
    from training.loader import PreparedData
    from training.towers.linear_start import Yardstick


def ignore(phase: str, done: int, total: int, note: str) -> None:
    """Report to nobody."""


TOWERS = 13
"""The method since which towers are trained as they are: what they end with is kept longer than what comes of them.
Raised to `METHOD` whenever that changes how a tower is trained."""
LATER = 14
"""Likewise of the phases after them: methods 15 and 16 changed which towers teach, how they are calibrated and what
decides between phases, all of which a phase is known by. An evidence tower is trained as others are."""
SEARCHED_ON = 1
"""The seed on which every variant searches for the tables' L2, and for what rare values' rows are and begin as."""


class Workshop:
    """A task's data, measured once, and the phases that its variants share.

    Args:
        task: A name in `TASKS`.
        work: Where prepared data and phases are kept.
        overrides: "section.key" -> value: the experiment that everything is a variant of.
    """

    def __init__(self, task: str, work: Path, overrides: Mapping[str, Any] | None = None) -> None:
        self.task = task
        self.work = work
        base = VARIANTS[FULL]
        self.config = type(base)(base.kind, base.says, overrides=dict(overrides or {})).applied(TASKS[task].config())
        self.data: PreparedData = prepared(task, work)
        self.digest = data_digest(self.data)
        self._measures: Measures | None = None
        self._yardstick: Yardstick | None = None
        self._settled: dict[str, ExperimentConfig] = {}

    def config_of(self, name: str, control: ControlSettings | None = None) -> ExperimentConfig:
        """The experiment of a variant: its overrides, a control's settings, and what it searches for as chosen.

        Chosen on one seed by the variant's own towers; phases that variants share are trained once.
        """
        variant = VARIANTS[name]
        config = variant.applied(self.config)
        if control is not None:
            config = config.model_copy(update={"dtf": control.applied(config.dtf)})
        if None not in {config.train.table_l2, config.train.half_scale_at, config.afe.share_below}:
            return config
        asked = f"{variant.schedule.__name__}:{config.model_dump_json()}"
        if asked not in self._settled:
            schedule, _ = self._schedule(variant, config, SEARCHED_ON)
            with torch.random.fork_rng():
                torch.set_num_threads(1)
                schedule.settle()
            self._settled[asked] = with_choices(
                config,
                table_l2=schedule.config.first_table_l2,
                half_scale_at=schedule.config.first_half_scale_at,
                share_below=schedule.sharing.below,
                fusion_start=config.dtf.fusion_start,
            )
        return self._settled[asked]

    def settings(self, name: str, control: ControlSettings | None = None) -> dict[str, Any]:
        """All that decides the outcome of a variant, apart from data and seed."""
        config = self.config_of(name, control)
        given = {key: getattr(config, key).model_dump(mode="json") for key in ("afe", "dtf", "train")}
        sections = as_recorded(self.task, given)
        return sections if control is None else {**sections, "control": asdict(control)}

    def key(self, name: str, seed: int, purpose: Purpose, control: ControlSettings | None = None) -> str:
        """The run's key in the ledger."""
        return run_key(self.task, self.digest, name, purpose, self.settings(name, control), seed=seed)

    def run(
        self, name: str, seed: int, purpose: Purpose, *, budget: int = 0, control: ControlSettings | None = None
    ) -> Line:
        """Train and measure one variant.

        Args:
            name: In `VARIANTS`.
            seed: Of initial values, the order of rows and dropout.
            purpose: "trial" of a control's tuning, or "ablation".
            budget: Steps of a control; the full schedule's.
            control: A control's settings.
        """
        variant = VARIANTS[name]
        schedule, store = self._schedule(variant, self.config_of(name, control), seed)
        schedule.budget = budget
        if control is not None:
            schedule.settings = control
        with torch.random.fork_rng():
            torch.set_num_threads(1)
            schedule.fit()
        valid = self.data.split("valid")
        logits = schedule.predict(valid)
        pctr = probabilities(logits)
        found = evaluate(valid.label, pctr, valid.weight, valid.group)
        drawn = replicates(valid.label, pctr, TASKS[self.task].clusters(valid), seed=int(self.digest[:8], 16))
        steps = store.spent.steps
        return Line(
            key=self.key(name, seed, purpose, control),
            task=self.task,
            data=self.digest,
            split=TASKS[self.task].split,
            model=name,
            purpose=purpose,
            config=self.settings(name, control),
            seed=seed,
            rows=dict(self.data.info.rows),
            validation=Metrics(**rounded({k: found[k] for k in ("auc", "log_loss", "gauc") if k in found})),
            bootstrap_validation=None if purpose == "trial" else Bootstrap(**rounded(drawn)),
            steps=sum(steps.values()),
            cpu_seconds=round(sum(store.spent.cpu_seconds.values()), 1),
            facts={
                "phases": steps,
                "fields": len(schedule.slots),
                "teachers": schedule.teachers,
                "table_l2": schedule.config.first_table_l2,
                "half_scale_at": schedule.config.first_half_scale_at,
                "share_below": schedule.sharing.below,
                "fusion_start": schedule.began if any(phase.startswith("fusion") for phase in steps) else None,
                "evidence_share": schedule.evidence_share,
                "notes": schedule.notes,
                "scaled_log_loss": rounded(scaled_log_loss(valid.label, logits, valid.weight)),
            },
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions={k: v for k, v in library_versions().items() if v is not None},
        )

    def _schedule(self, variant: Variant, config: ExperimentConfig, seed: int) -> tuple[Ablated, SharedPhases]:
        selection = self._selection(config)
        slots = with_dims(field_slots(self.data.encoder, lambda _name, _rows: 1), selection.dims)
        found: list[Ablated] = []

        def describe(phase: str) -> dict[str, Any]:
            return phase_facts(found[0], phase, self.digest)

        store = SharedPhases(self.work / "phases", describe)
        found.append(
            variant.schedule(
                slots,
                self.data.split("train"),
                self.data.split("valid"),
                dtf=config.dtf,
                config=config.train,
                seed=seed,
                store=store,
                progress=ignore,
                gate_prior=selection.gate_prior if config.afe.gates else None,
                gate_penalty=config.afe.gate_penalty,
                yardstick=self._baseline(),
                share_below=config.afe.share_below,
            )
        )
        return found[0], store

    def _baseline(self) -> Yardstick:
        if self._yardstick is None:
            train, valid = self.data.split("train"), self.data.split("valid")
            baseline = fit_baseline(self.data.encoder, train, valid, seed=0, progress=lambda _done, _total: None)
            self._yardstick = yardstick_of(baseline, self.data.encoder, valid)
        return self._yardstick

    def _selection(self, config: ExperimentConfig) -> Selection:
        if self._measures is None:
            self._measures = measure_fields(self.data, config, ignore)
        return select(self._measures, config.afe)


def phase_facts(schedule: Ablated, phase: str, data: str) -> dict[str, Any]:
    """All that decides what a phase of a schedule ends with."""
    alone = phase == "evidence" or phase.removeprefix("linear_").startswith("tower_")
    facts: dict[str, Any] = {
        "method": TOWERS if alone else LATER,
        "data": data,
        "seed": schedule.seed,
        "phase": phase.removesuffix(ALONE),  # who taught it is said below
        "slots": [(slot.name, slot.dim) for slot in schedule.slots],
        "rich": schedule.dtf.rich,
        "widths": schedule.dtf.widths,
        "quadratic": schedule.dtf.quadratic,
        "shared": schedule.sharing.below,
        "monitor": schedule.tower_monitor,
        "train": schedule.config.model_dump(mode="json"),
    }
    if phase.startswith("linear_"):
        facts["regression"] = None if schedule.yardstick is None else schedule.yardstick.C
    if phase.startswith("tower_a"):
        facts["gates"] = [schedule.gate_prior, schedule.gate_penalty if schedule.gate_prior else None]
    if not alone:
        # The phase's name says what it began from, and `taught_by` whether an evidence tower teaches.
        facts["dtf"] = schedule.dtf.model_dump(mode="json", exclude={"fusion_start", "evidence", "evidence_l2"})
        if schedule.evidence_share:
            facts["evidence_l2"] = schedule.dtf.evidence_l2
        facts["schedule"] = type(schedule).__name__
        facts["settings"] = asdict(schedule.settings)
        said = ("fusion", "evidence")  # what those were, `taught_by` and the phase's name tell
        earlier = (name for name in schedule.store.digests if name != phase and not name.startswith(said))
        facts["taught_by"] = schedule.taught_by
        facts["before"] = sorted(schedule.store.digests[name] for name in earlier)
    return json.loads(json.dumps(facts))  # type: ignore[no-any-return]
