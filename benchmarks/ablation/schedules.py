"""Schedules of training: DTF as it is, DTF with a part left out, and the controls that it is held against.

Controls take as many optimiser steps in all as the full schedule took on the same seed, are not stopped early, and keep
the best averaged weights by validation as everybody does. They read the same fields in the same dimensions. What a
user of a control would search for, it searches for with its own towers: the tables' L2 and whether rare values share
rows, by one tower where it has one, by the pair where it has two; its towers begin anew as logistic regression where
that is ahead, too. How it stops and teaches is tuned for it (see `variants`).
"""

from __future__ import annotations

import copy
import hashlib
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from training.dtf import FusionLearner
from training.models.base import FieldSlot, with_dims
from training.models.reaction import FusionForm, Tower, TowerPair
from training.phases.phase import predict
from training.towers.fusing import DRAWN, drawn
from training.towers.recovery import regression_ahead
from training.towers.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.ablation.store import SharedPhases
    from training.dtf import DtfConfig, Start, Teacher
    from training.phases.learner import SplitLike

NEVER = 10**9
"""Patience of a phase whose length is given."""


@dataclass(frozen=True)
class ControlSettings:
    """What is tuned of a control.

    Attributes:
        monitor: What its towers stop by, as `dtf.tower_monitor`.
        calibrate: Its teacher is calibrated, as `dtf.calibrate_teacher`.
        label_weight: Of the labels beside the teacher, as `dtf.label_weight`.
        l2: Table L2 of the student as a share of the first phase's.
        start: The student starts from its teacher's (first) weights, or afresh.
    """

    monitor: Literal["scaled_log_loss", "log_loss"] = "scaled_log_loss"
    calibrate: bool = True
    label_weight: float = 0.2
    l2: float = 0.1
    start: Literal["teacher", "fresh"] = "teacher"

    def applied(self, dtf: DtfConfig) -> DtfConfig:
        """A `[dtf]` section with these settings in it."""
        changed = {
            "tower_monitor": self.monitor,
            "calibrate_teacher": self.calibrate,
            "label_weight": self.label_weight,
        }
        return dtf.model_copy(update=changed)


class Ablated(Schedule):
    """DTF as it is; ends with one model.

    Attributes:
        budget: Steps that all phases of a control may take together; the full schedule's, on the same seed.
        settings: Of a control.
        model: What the schedule ended with.
        taught_by: A digest of what teaches the phases after the first: which towers, their weights and calibration.
        teachers: How many towers those are; 0 before.
    """

    budget: int = 0
    settings: ControlSettings = ControlSettings()
    model: FusionForm | Tower
    store: SharedPhases
    taught_by: str = ""
    teachers: int = 0

    def fit(self) -> None:
        """Run all phases."""
        self.model = self.run().form

    def settle(self) -> None:
        """Search for what is searched for, and leave the schedule with it."""
        self.towers()

    def teacher(self, pair: TowerPair) -> Teacher:
        """Freeze what teaches, and note what that is: it decides what a later phase ends with."""
        found = super().teacher(pair)
        digest = hashlib.sha256(repr(found.calibration).encode())
        if self.evidence is not None and found.share:
            digest.update(repr(found.share).encode() + self.evidence.training.tobytes())
        for tower in found.towers:
            for name, value in tower.state_dict().items():
                digest.update(name.encode() + value.cpu().numpy().tobytes())
        self.taught_by, self.teachers = digest.hexdigest()[:20], len(found.towers)
        return found

    def predict(self, split: SplitLike) -> NDArray[np.float32]:
        """Return the model's logits (N,)."""
        model = self.sharing.expanded(self.model.to(self.device).eval())
        bank = self.bank(model)
        rows = type(self.valid)(split, self.device)
        return predict(FusionLearner(model, bank, self.dtf), rows, [bank.averages()])["fused"]

    @property
    def steps(self) -> int:
        """Optimiser steps so far."""
        return sum(self.store.spent.steps.values())

    @property
    def starts(self) -> str:
        """What a phase after the first starts from, beside the phases before it."""
        return type(self).__name__

    def alone(self) -> Tower:
        """Return phase 1's tower A; one that begins as logistic regression where that is ahead of it."""
        tower = self.gated_tower()
        linear = regression_ahead(self, self.tower_logits(tower))
        return tower if linear is None else self.tower("tower_a", 0, linear=linear)

    @contextmanager
    def exactly(self, steps: int) -> Iterator[None]:
        """Run phases of (about, in whole epochs) so many steps, without early stopping."""
        config = self.config
        an_epoch = math.ceil(len(self.train) / config.batch_rows(len(self.train)))
        epochs = max(1, round(steps / an_epoch))
        self.config = config.model_copy(update={"epochs": epochs, "patience": NEVER})
        yield
        self.config = config

    def student(self, pair: TowerPair, like: Tower) -> Tower:
        """Train one tower under a frozen pair for the steps that are left."""
        teacher = self.teacher(pair)
        if self.settings.start == "teacher":
            tower = copy.deepcopy(like)
        else:
            torch.manual_seed(self.seed_of(DRAWN))
            tower = Tower(self.slots, self.dtf.widths).to(self.device)  # in scale as a fused model that is drawn
            tower.body.output.bias.data.copy_(like.body.output.bias.data)
        tower.dropout = self.dtf.fusion_dropout
        learner = FusionLearner(
            tower, self.bank(tower, self.settings.l2), self.dtf, teacher, unknown=self.config.unknown
        )
        with self.exactly(self.budget - self.steps):
            return self._phase(
                "student", 3, tower, learner, rate_factor=self.dtf.fusion_rate, monitor=self.fusion_monitor
            )


class WithoutLinks(Ablated):
    """The fused branches read one another's hidden units through their own layers alone."""

    def beginning(self, pair: TowerPair, start: Start) -> FusionForm:
        """Keep the links at zero."""
        form = super().beginning(pair, start)
        for branch in form.parallel:
            branch.cross.requires_grad_(requires_grad=False)
        return form


class WithoutFusion(Ablated):
    """The fused model learns from labels alone: no frozen pair teaches."""

    def run(self, pair: TowerPair | None = None) -> Any:
        """Take the teacher's weight away; the labels' regularisation then is the first phase's."""
        self.dtf = self.dtf.model_copy(
            update={
                "teacher_weight": 0.0,
                "label_weight": 1.0,
                "evidence": 0.0,
                "fusion_l2": 1.0,
                "fusion_dropout": self.config.dropout,
            }
        )
        return super().run(pair)


class BestTower(Ablated):
    """No fusion: of the towers that are trained anyway, validation's best, as it is."""

    def fit(self) -> None:
        """Train the towers, and leave out the phase that makes one of them."""
        self.model = min(self.towers().all, key=lambda tower: self.search.loss(self.tower_logits(tower)))


class InheritOne(Ablated):
    """The fusion form starts from tower A alone: both branches are A's, so nothing of B is merged."""

    def beginning(self, pair: TowerPair, start: Start) -> FusionForm:
        """Merge A with itself."""
        alone = copy.deepcopy(pair.a)
        return super().beginning(TowerPair(alone, copy.deepcopy(alone)), start)


class FreshTables(Ablated):
    """The fusion form starts from the towers' layers, merged, and tables of random values."""

    def beginning(self, pair: TowerPair, start: Start) -> FusionForm:
        """Draw the tables."""
        form = super().beginning(pair, start)
        for table, values in zip(form.tables, drawn(self, pair).tables, strict=True):
            table.data.copy_(values.data)
        return form


class WithoutProjection(Ablated):
    """Every table is as wide as the subspace: nothing is projected into it from fewer columns."""

    def __init__(self, slots: Sequence[FieldSlot], *arguments: Any, **named: Any) -> None:
        width = named["dtf"].widths[0]
        super().__init__(with_dims(slots, {slot.name: width for slot in slots}), *arguments, **named)


class OneTower(Ablated):
    """Control: one tower with weight averaging."""

    def settle(self) -> None:
        """Search by one tower."""
        self.search.alone()

    def fit(self) -> None:
        """Train for the whole budget."""
        with self.exactly(self.budget):
            self.model = self.alone()


class BornAgain(OneTower):
    """Control: the same tower, trained again under its own frozen self."""

    def fit(self) -> None:
        """Train tower A, then a student of it for what is left of the budget."""
        tower = self.alone()
        self.model = self.student(TowerPair(tower, copy.deepcopy(tower)), tower)


class EnsembleTeacher(Ablated):
    """Control: towers trained apart, two or with a council, their mean the teacher of one tower."""

    def fit(self) -> None:
        """Train all, then the student for what is left of the budget."""
        pair = self.towers()
        self.model = self.student(pair, pair.a)
