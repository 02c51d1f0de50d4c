"""Dynamic Tower Fusion (DTF): two towers here both see the whole row (FinalMLP's two streams), not user/item retrieval.

Source: Wu, Du, Jia, Dong, "REACTION: Parameter-Efficient Learning for Recommendation", AAAI 2026, 40(19); the abstract
says two towers, cross-tower interaction, dynamic fusion. The schedule is ours, found by experiment:

1. *apart* (`tower_a`, `tower_b`): each tower is trained alone, with tables, seed and row order of its own. What a pair
   is worth comes from the two being different; towers that learn together become alike. Where no L2 of the
   tables is given, both are trained under several (table_prior.py). Further ones (`council`) are trained as B is;
   validation's best two become one, and all teach (council.py).
2. *fusion*: one tower's depth with two parallel branches. Every branch reads the hidden units of both, through its own
   layers and through cross links, and all learn from the labels and from the frozen towers. It is trained from both
   towers, merged (alignment.py), and from random weights, and what is better on validation stays (fusing.py).
   Everything in it between two non-linearities merges exactly at export.

A phase between the two, in which the towers went on learning from their joint prediction and from each other's hidden
layers, and rows mixed of others' values for the pair to label gave nothing on five data sets, and are gone
(ARCHITECTURE.md).

Every phase stops early on validation and keeps its best averaged weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional

from training.calibrating import choose
from training.calibration import IDENTITY, CalibrationConfig
from training.models.base import MISSING_ID, UNKNOWN_ID
from training.models.reaction import FusionForm
from training.phases.learner import Learner
from training.phases.phase import Monitor  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from training.calibration import Calibration
    from training.models.reaction import Tower
    from training.phases.learner import Batch, SplitLike
    from training.phases.tables import TableBank
    from training.towers.gates import FieldGates

_TEACHING = CalibrationConfig(knots=2, folds=2)
"""How a teacher is calibrated: simply, for what the student is taught has to be learnt, and quickly."""

Logits = TypeVar("Logits", "NDArray[np.float32]", "Tensor")

Width = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0.0)]
Factor = Annotated[float, Field(gt=0.0)]
Start = Literal["towers", "afresh"]
"""What the fused model begins from: both towers, merged, or random weights, the towers teaching alone."""

GATE_RATE = 10.0
"""Learning rate of field gates, as a multiple of the dense layers'."""


class DtfConfig(BaseModel):
    """The towers and the schedule of their fusion.

    Attributes:
        widths: Units of the hidden layers; the first is AFE's subspace K.
        rich: Columns of a table of the two towers, as a multiple of the fused model's: what is rich while training is
            folded into fewer columns at fusion, and taught.
        tower_monitor: What early stopping of the phases before fusion looks at. By default the log loss once scaled,
            for towers are calibrated before they teach: what they know counts, not how sure they are. As
            `train.monitor` if that is "auc".
        council: Further towers, each trained as tower B is. Validation's best two become one, and all teach: a mean of
            four is a better teacher than a mean of two, and the best two are a better beginning than the first two.
            What is served stays as small; they take training time alone. A run that goes on from an earlier one has as
            many as that had.
        evidence: Evidence (as of `afe.share_below`) below which values are read by what was seen of them alone, in one
            tower more that teaches where that is clearly better, and what it taught is too (evidence.py); what it says
            takes 4 bytes a training row. There is none where no values share rows, where as many do anyway, and for 0.
        evidence_l2: Table L2 of a fusion phase in which that tower teaches, as a share of what it is without.
        quadratic: The logit reads the squares of the projected units too, in all phases: all pairs of fields interact.
        label_weight: Weight of the labels in the fusion phase.
        teacher_weight: Weight of the cross entropy to the towers' probability in the fusion phase.
        calibrate_teacher: The towers' mean logit is calibrated on validation before it teaches.
        retrain_rate: Learning rate of towers that go on from an earlier run's, as a share of the first phase's.
        fusion_start: What the fused model begins from. By default both are tried, and validation decides: a model that
            begins from the towers inherits what they know by heart too. One that ends behind logistic regression
            begins anew from towers that are that regression, whatever is given.
        fusion_rate: Learning rate of the fusion phase as a share of the first phase's.
        fusion_l2: Table L2 of the fusion phase as a share of the first phase's: soft targets need less.
        fusion_patience: Patience of the fusion phase, as a multiple of the others'. More than 1 may pay where tables
            are large (what a teacher regularises goes on improving), and takes up to as many times as long.
        fusion_monitor: What early stopping of the fusion phase looks at; `train.monitor` if not given.
            "scaled_log_loss", the log loss once calibrated, lets it go on to learn the order while it grows too sure.
        fusion_dropout: Dropout of the fusion form; the teacher regularises already.
        sample_rows: Training rows on which the towers' units are matched.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (64, 64)
    rich: Annotated[int, Field(ge=1, le=16)] = 1
    tower_monitor: Monitor | None = None
    council: Annotated[int, Field(ge=0, le=14)] = 2
    evidence: Annotated[float, Field(ge=0.0)] = 100.0
    evidence_l2: Factor = 0.3
    quadratic: bool = True
    label_weight: Weight = 0.2
    teacher_weight: Weight = 1.0
    calibrate_teacher: bool = True
    retrain_rate: Factor = 0.3
    fusion_start: Start | None = None
    fusion_rate: Factor = 1.0
    fusion_l2: Factor = 0.1
    fusion_patience: Annotated[int, Field(ge=1)] = 1
    fusion_monitor: Monitor | None = None
    fusion_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    sample_rows: Annotated[int, Field(ge=64)] = 16_384


class GatedTower(nn.Module):
    """A tower under field gates (AFE's filter while training)."""

    def __init__(self, tower: Tower, gates: FieldGates) -> None:
        super().__init__()
        self.tower = tower
        self.gates = gates


class TowerLearner(Learner):
    """Phase 1: one tower on the labels, with gates on its fields or without.

    Args:
        name: Of the tower.
        tower: The tower.
        bank: Its tables.
        unknown: Chance of a value to be read as out of vocabulary.
        gates: Field gates; their penalty joins the loss.
        penalty: Log loss worth all fields' parameters.
    """

    def __init__(
        self,
        name: str,
        tower: Tower,
        bank: TableBank,
        *,
        unknown: float = 0.0,
        gates: FieldGates | None = None,
        penalty: float = 0.0,
    ) -> None:
        self.monitored = name
        self.unknown = unknown
        self.tower, self.gates, self.penalty = tower, gates, penalty
        self.module = tower if gates is None else GatedTower(tower, gates)
        self.banks = (bank,)
        # A gate moves by the rate a step, and has a way of several units to go before it closes.
        self.faster = {"gates.": GATE_RATE}

    def prepare(self, batch: Batch) -> Batch:
        """Hide some values."""
        return replace(batch, ids=with_unknown(batch.ids, self.banks[0], self.unknown))

    def loss(self, embedded: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the cross entropy to the labels, and the gates' penalty."""
        if self.gates is None:
            return cross_entropy(self.tower.head(embedded[0]), batch.label, batch.weight)
        logit = self.tower.head(embedded[0], self.gates())
        return cross_entropy(logit, batch.label, batch.weight) + self.penalty * self.gates.penalty()

    def outputs(self, embedded: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the tower's logits."""
        gates = None if self.gates is None else self.gates()
        return {self.monitored: self.tower.head(embedded[0], gates)}

    def finish(self, stacks: Sequence[Sequence[Tensor]]) -> None:
        """Put the best tables into the tower."""
        put_tables(self.tower, self.banks[0], stacks[0])


def named_logits(a: NDArray[np.float32], b: NDArray[np.float32], *council: NDArray[np.float32]) -> dict[str, Any]:
    """Logits (N,) of a pair's towers and of their means, by name, from those of each tower.

    Returns:
        `tower_a`, `tower_b`, `pair`, the mean of both, and where there is a council `teachers`, the mean of all.
    """
    found = {"tower_a": a, "tower_b": b, "pair": 0.5 * (a + b)}
    return found | {"teachers": np.mean([a, b, *council], axis=0)} if council else found


def mixed(said: Logits, evidence: Logits, share: float) -> Logits:
    """Logits (N,) of towers' mean and of an evidence tower, which has a share."""
    return said + share * (evidence - said)


class Teacher:
    """Frozen towers, whose mean logit teaches.

    Args:
        towers: A pair's, its council among them; they are put into evaluation mode.
        banks: Their tables, which are only read from here on.
        calibration: Of what is taught. Towers that know their rows by heart are too sure of them, and a student of such
            a teacher is, too; what makes their log loss least on validation says how much, and where.
        share: Of an evidence tower's logit beside their mean.
    """

    def __init__(
        self,
        towers: Sequence[Tower],
        banks: Sequence[TableBank],
        calibration: Calibration = IDENTITY,
        share: float = 0.0,
    ) -> None:
        self.towers, self.banks, self.calibration = [tower.eval() for tower in towers], banks, calibration
        self.share = share
        self._stacks = [bank.frozen() for bank in banks]

    @torch.no_grad()
    def logits(self, ids: Tensor, evidence: Tensor | None = None) -> Tensor:
        """Return the towers' mean logits (B,) of ids (B, C), with those of an evidence tower (B,), calibrated.

        Raises:
            ValueError: An evidence tower has a share, and says nothing.
        """
        said = [
            tower.head(bank.look_up(stacks, ids))
            for tower, bank, stacks in zip(self.towers, self.banks, self._stacks, strict=True)
        ]
        z = torch.stack(said).mean(dim=0)
        if self.share:
            if evidence is None:
                raise ValueError("expected what the evidence tower says of these rows, got nothing")
            z = mixed(z, evidence, self.share)
        knots = self.calibration.knots
        if not knots:
            return self.calibration.slopes[0] * z + self.calibration.offset
        first, *between, last = self.calibration.slopes
        found = self.calibration.offset + first * (z - knots[0]).clamp(max=0.0) + last * (z - knots[-1]).clamp(min=0.0)
        for slope, low, high in zip(between, knots[:-1], knots[1:], strict=True):
            found += slope * (z.clamp(low, high) - low)
        return found


def calibrated(logits: NDArray[np.float32], valid: SplitLike, seed: int) -> Calibration:
    """Return what makes a teacher's logits (N,) on validation right, as far as that is beyond noise.

    Beyond that of rows, also where they come in groups: whether towers are too sure is the same question in each, and
    two folds of a few users differ too much in their rates to answer it. By groups the teacher of MovieLens tags by
    time (39 users) and of 100K by time stayed as sure as it was in 5 of 9 trainings, where by rows its slope is about
    0.8; the validation log loss of a student on each was 0.011 and 0.003 worse (by a script that is not kept).
    """
    return choose(_TEACHING, logits, valid.label, valid.weight, seed=seed).calibration


class FusionLearner(Learner):
    """Phase 2: the fusion form on the labels and on the frozen towers' probability."""

    monitored = "fused"

    def __init__(
        self,
        form: FusionForm | Tower,
        bank: TableBank,
        config: DtfConfig,
        teacher: Teacher | None = None,
        *,
        unknown: float = 0.0,
    ) -> None:
        self.module = self.form = form
        for body in form.parallel if isinstance(form, FusionForm) else (form.body,):
            body.quadratic.requires_grad_(config.quadratic)
        self.banks = (bank,)
        self.config = config
        self.unknown = unknown
        self.teacher = teacher

    def prepare(self, batch: Batch) -> Batch:
        """Hide some values, and let the teacher score the result, beside what an evidence tower says of the rows."""
        if self.teacher is None:
            raise ValueError("the fusion phase needs a teacher")
        ids = with_unknown(batch.ids, self.banks[0], self.unknown)
        return replace(batch, ids=ids, teacher=self.teacher.logits(ids, batch.evidence))

    def loss(self, embedded: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the weighted sum of the cross entropies to the labels and to the teacher's probability."""
        logit = self.form.head(embedded[0])
        if batch.teacher is None:
            raise ValueError("expected a prepared batch")
        taught = cross_entropy(logit, torch.sigmoid(batch.teacher.float()), batch.weight)
        labelled = cross_entropy(logit, batch.label, batch.weight)
        return self.config.label_weight * labelled + self.config.teacher_weight * taught

    def outputs(self, embedded: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the fusion form's logits."""
        return {"fused": self.form.head(embedded[0])}

    def finish(self, stacks: Sequence[Sequence[Tensor]]) -> None:
        """Put the best tables into the form."""
        put_tables(self.form, self.banks[0], stacks[0])


def with_unknown(ids: Tensor, bank: TableBank, chance: float) -> Tensor:
    """Return ids (B, C) in which some values are read as out of vocabulary, so that its row is trained in any case.

    A vocabulary of everything seen (min_count = 1) has no other row for it, and a new value would read noise.

    Args:
        ids: (B, C).
        bank: Knows which ids are pads; pads and missing values stay.
        chance: Of a value to be hidden.
    """
    cells = int(chance * ids.numel() + float(torch.rand(1)))
    if not cells:
        return ids
    hidden = ids.clone()
    row = torch.randint(len(ids), (cells,), device=ids.device)
    column = torch.randint(ids.shape[1], (cells,), device=ids.device)
    old = ids[row, column]
    stays = (old == MISSING_ID) | (old == bank.pads[column])
    hidden[row, column] = torch.where(stays, old, UNKNOWN_ID)
    return hidden


def cross_entropy(logit: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean cross entropy of logits (B,) to target probabilities (B,), weighted by (B,) weights of mean 1."""
    return functional.binary_cross_entropy_with_logits(logit.float(), target, weight)


def put_tables(module: Tower | FusionForm, bank: TableBank, stacks: Sequence[Tensor]) -> None:
    """Copy the tables in a bank's stacks into a module's."""
    for table, weights in zip(module.tables, bank.tables(stacks), strict=True):
        table.data.copy_(weights)
