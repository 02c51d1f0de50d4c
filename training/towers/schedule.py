"""DTF's phases in order: towers apart, fusion; each resumed, taken from its checkpoint, or run.

Shapes: N training rows, F slots, V_f ids of slot f.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from training.dtf import DtfConfig, FusionLearner, TowerLearner, named_logits
from training.models.base import FieldSlot, with_dims
from training.models.reaction import FusionForm, Tower, TowerPair
from training.phases.learner import Learner, Rows, SplitLike
from training.phases.phase import Phase, estimate_norms, lost, predict
from training.phases.tables import TableBank
from training.towers.alignment import count_ids
from training.towers.council import further, with_council
from training.towers.evidence import Evidence, taught
from training.towers.fusing import drawn, fused, merged
from training.towers.gates import FieldGates
from training.towers.layout import without_closed
from training.towers.linear_start import Linear, Yardstick, begin_linear
from training.towers.recovery import ahead_of_yardstick, recovered, without_weak
from training.towers.result import DtfResult
from training.towers.row_sharing import RowSharing
from training.towers.search import TowerSearch
from training.towers.table_prior import near_zero
from training.towers.teaching import teacher_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from training.dtf import Start, Teacher
    from training.phases.checkpoint import CheckpointStore
    from training.phases.phase import Monitor, Progress
    from training.train_config import TrainConfig

M = TypeVar("M", bound=torch.nn.Module)

Observer = Callable[[list[dict[str, Any]]], None]
"""Told a phase's history so far; may raise to end the training there."""

LINEAR_RATE = 0.3
"""Learning rate of towers that begin from logistic regression, as a share of the first phase's."""


class Schedule:
    """Runs the phases on one data set.

    Args:
        slots: The fields that AFE kept, with their dimensions.
        train: The training split.
        valid: The validation split.
        dtf: Towers and weights.
        config: The loop's settings.
        seed: Of everything random.
        store: Where phases are recorded and taken up.
        progress: Told how far each phase is.
        gate_prior: Field -> log-odds that it matters: tower A is trained under field gates that start there.
        gate_penalty: Log loss worth all parameters of tables and projections.
        observe: Called with a phase's history after each of its evaluations.
        yardstick: Logistic regression, which towers begin from if those of random weights end behind it.
        share_below: Evidence below which values share rows while training (`RowSharing.fit`); None: searched for.
    """

    def __init__(
        self,
        slots: Sequence[FieldSlot],
        train: SplitLike,
        valid: SplitLike,
        *,
        dtf: DtfConfig,
        config: TrainConfig,
        seed: int,
        store: CheckpointStore,
        progress: Progress,
        gate_prior: Mapping[str, float] | None = None,
        gate_penalty: float = 0.0,
        observe: Observer | None = None,
        yardstick: Yardstick | None = None,
        share_below: float | None = 0.0,
    ) -> None:
        self.yardstick = yardstick
        self.given, self.dtf, self.config, self.seed = tuple(slots), dtf, config, seed
        self.store, self.progress, self.observe = store, progress, observe
        self.gate_prior, self.gate_penalty, self.device = gate_prior, gate_penalty, config.resolved_device()
        self.splits, self.share_below = (train, valid), share_below
        self.share(RowSharing.fit(self.given, train, share_below or 0.0))
        self.search = TowerSearch(self)
        self.notes: list[str] = []
        self.evidence: Evidence | None = None
        self.began: Start = "towers"  # what the last fusion form began from
        self.evidence_share = 0.0  # of the evidence tower, in what taught it
        context, candidate = train.context_ids.shape[1], train.candidate_ids.shape[1]
        self.columns = {"context_columns": context, "total_columns": context + candidate}
        self.history: list[dict[str, Any]] = []

    def run(self, pair: TowerPair | None = None) -> DtfResult:
        """Run all phases; the towers go on from a given pair's, if one is given."""
        pair = self.towers() if pair is None else further(self, self.sharing.shrunk(pair))
        pair, form = recovered(self, pair, fused(self, pair))
        left = {slot.name for slot in self.slots}
        closed = tuple(slot.name for slot in self.given if slot.name not in left)
        form, pair = self.sharing.expanded(form.cpu().eval()), self.sharing.expanded(pair.cpu().eval())
        chosen = self.config.first_table_l2, self.config.first_half_scale_at, self.sharing.below, self.began
        return DtfResult(pair, form, self.history, closed, *chosen, (*self.notes, *taught(self.evidence_share)))

    def towers(self) -> TowerPair:
        """Phase 1: search, and train the towers; they begin anew as logistic regression where that is ahead of them."""
        pair = self.search.pair()
        return ahead_of_yardstick(self, with_council(self, pair) if self.dtf.council else without_weak(self, pair))

    def share(self, sharing: RowSharing) -> None:
        """Let values share rows, from the fields as they were given on."""
        self.sharing = sharing
        self.slots = self.sharing.slots
        self.train = Rows(self.sharing.training(self.splits[0]), self.device)
        found = count_ids(self.slots, self.train.split)
        self.counts = {slot.name: counts for slot, counts in zip(self.slots, found, strict=True)}
        self.valid = Rows(self.sharing.serving(self.splits[1]), self.device)

    def logits(self, result: DtfResult, split: SplitLike) -> dict[str, NDArray[np.float32]]:
        """Return logits (N,) on a split's rows: `named_logits` of the towers, and `fused`."""
        rows = Rows(split, self.device)
        pair, form = result.pair.to(self.device), result.form.to(self.device)
        said, fused = [self._tower_logits(tower, rows) for tower in pair.all], self._form_logits(form, rows)
        result.pair.cpu()
        result.form.cpu()
        return {**named_logits(*said), "fused": fused}

    def gated_tower(self, stored: str | None = None, prefix: str = "") -> Tower:
        """Train tower A, under gates where fields have a prior; the slots of closed ones are left out from here on."""
        tower = self.tower("tower_a", 0, gated=self.gate_prior is not None, stored=stored, prefix=prefix)
        left = {slot.name for slot in tower.slots}
        self.slots = tuple(slot for slot in self.slots if slot.name in left)
        return tower

    def loss_of(self, pair: TowerPair) -> float:
        """The pair's score on validation by the towers' monitor; negative where more is better."""
        return self.search.loss(self.pair_logits(pair)["pair"])

    def pair_logits(self, pair: TowerPair) -> dict[str, NDArray[np.float32]]:
        """What `tower_a`, `tower_b` and `pair` say (N,) on validation."""
        return named_logits(self.tower_logits(pair.a), self.tower_logits(pair.b))

    def tower_logits(self, tower: Tower, *, training: bool = False) -> NDArray[np.float32]:
        """What a tower says (N,) on validation, or on training rows as training reads them."""
        return self._tower_logits(tower, self.train if training else self.valid)

    def form_loss(self, form: FusionForm | Tower) -> float:
        """A fusion form's score on validation by `train.monitor`; negative where more is better."""
        split = self.valid.split
        return lost(self.config.monitor, split.label, self.form_logits(form), split.weight)

    def form_logits(self, form: FusionForm | Tower) -> NDArray[np.float32]:
        """What a fusion form says (N,) on validation."""
        return self._form_logits(form, self.valid)

    def _tower_logits(self, tower: Tower, rows: Rows) -> NDArray[np.float32]:
        bank = self.bank(tower)
        return predict(TowerLearner("tower", tower, bank), rows, [bank.averages()])["tower"]

    def _form_logits(self, form: FusionForm | Tower, rows: Rows) -> NDArray[np.float32]:
        bank = self.bank(form)
        return predict(FusionLearner(form, bank, self.dtf), rows, [bank.averages()])["fused"]

    @property
    def tower_monitor(self) -> Monitor:
        """What early stopping looks at before the fusion phase."""
        usual: Monitor = "auc" if self.config.monitor == "auc" else "scaled_log_loss"
        return self.dtf.tower_monitor or usual

    @property
    def fusion_monitor(self) -> Monitor:
        """What early stopping of the fusion phase looks at."""
        return self.dtf.fusion_monitor or self.config.monitor

    def tower(
        self,
        name: str,
        number: int,
        *,
        gated: bool = False,
        linear: Linear | None = None,
        stored: str | None = None,
        prefix: str = "",
    ) -> Tower:
        """Phase 1: train one tower alone; a gated one comes back without the fields whose gates closed.

        Args:
            name: Of the tower.
            number: Of the phase, for its seed.
            gated: Under field gates.
            linear: What it begins from, instead of random weights.
            stored: Name in the store, if not the tower's.
            prefix: Told before what each evaluation says.
        """
        tower = self.fresh(number, linear)
        gates = None
        if gated and self.gate_prior is not None:
            gates = FieldGates.for_slots(tower.slots, self.gate_prior, self.dtf.widths[0]).to(self.device)
        learner = TowerLearner(
            name, tower, self.bank(tower), unknown=self.config.unknown, gates=gates, penalty=self.gate_penalty
        )
        factor = 1.0 if linear is None else LINEAR_RATE
        stored = stored if linear is None else f"linear_{name}"
        self._phase(name, number, learner.module, learner, rate_factor=factor, stored=stored, prefix=prefix)
        return tower if gates is None else without_closed(tower, gates).to(self.device).eval()

    def fresh(self, number: int, linear: Linear | None = None) -> Tower:
        """A tower of random weights by a phase's number, or one that begins as logistic regression."""
        torch.manual_seed(self.seed_of(number))
        slots, config = self.rich_slots, self.config
        tower = Tower(slots, self.dtf.widths, dropout=config.dropout, table_scale=config.table_scale).to(self.device)
        tower.body.quadratic.requires_grad_(self.dtf.quadratic)
        # From the first step on the model predicts the base rate; otherwise a rare click costs an epoch of bias steps.
        rate = float(np.average(self.train.split.label, weights=self.train.split.weight))
        tower.body.output.bias.data.fill_(math.log(rate / (1.0 - rate)))
        near_zero(tower, self.counts, config.first_half_scale_at)
        if linear is not None:
            begin_linear(tower, linear, self.train.split, table_l2=config.first_table_l2, seed=self.seed)
            bank = self.bank(tower)
            estimate_norms(TowerLearner("tower", tower, bank), [self.train.batch(self.sample())], [bank.averages()])
        return tower

    def further(self, name: str, number: int, tower: Tower) -> Tower:
        """Phase 1 of a retraining: a tower of an earlier run goes on, on this data."""
        tower = tower.to(self.device)
        tower.dropout = self.config.dropout  # no part of a saved pair
        tower.body.quadratic.requires_grad_(self.dtf.quadratic)
        learner = TowerLearner(name, tower, self.bank(tower), unknown=self.config.unknown)
        return self._phase(name, number, tower, learner, rate_factor=self.dtf.retrain_rate)

    def fusion(
        self,
        pair: TowerPair,
        *,
        start: Start = "towers",
        begun: TowerPair | None = None,
        stored: str | None = None,
        prefix: str = "",
    ) -> FusionForm:
        """Phase 2: train the fusion form of the frozen pair under it and its council.

        Args:
            pair: The towers; both teach, and their council.
            start: What the form begins from.
            begun: The towers that it is merged from, if not those.
            stored: Name in the store, if not the phase's.
            prefix: Told before what each evaluation says.
        """
        self.began = start
        form = self.beginning(begun or pair, start)
        teacher = self.teacher(pair)
        bank = self.bank(form, self.dtf.fusion_l2 * (self.dtf.evidence_l2 if teacher.share else 1.0))
        learner = FusionLearner(form, bank, self.dtf, teacher, unknown=self.config.unknown)
        return self._phase(
            "fusion",
            3,
            form,
            learner,
            rate_factor=self.dtf.fusion_rate,
            patience_factor=self.dtf.fusion_patience,
            monitor=self.fusion_monitor,
            stored=stored,
            prefix=prefix,
        )

    def beginning(self, pair: TowerPair, start: Start) -> FusionForm:
        """What phase 2 begins from."""
        return merged(self, pair) if start == "towers" else drawn(self, pair)

    def sample(self) -> NDArray[np.int64]:
        """Some training rows, in order."""
        most = min(self.dtf.sample_rows, len(self.train))
        return np.sort(np.random.default_rng(self.seed_of(4)).choice(len(self.train), most, replace=False))

    def teacher(self, pair: TowerPair) -> Teacher:
        """Freeze a pair, its council and what else teaches."""
        return teacher_of(self, pair)

    def bank(self, module: Tower | FusionForm, l2_factor: float = 1.0) -> TableBank:
        """The tables of a tower or form, as a phase trains or reads them."""
        settings = self.config.table_settings(len(self.train), l2_factor)
        return TableBank(module.slots, list(module.tables), settings, **self.columns)

    @property
    def rich_slots(self) -> tuple[FieldSlot, ...]:
        """The slots of the towers that are trained: wider tables than the fused model's."""
        return with_dims(self.slots, {slot.name: slot.dim * self.dtf.rich for slot in self.slots})

    def seed_of(self, number: int) -> int:
        """A phase's seed, by its number."""
        return int(np.random.SeedSequence([self.seed, number]).generate_state(1, np.uint32)[0])

    def _phase(
        self,
        name: str,
        number: int,
        module: M,
        learner: Learner,
        *,
        rate_factor: float = 1.0,
        patience_factor: int = 1,
        monitor: Monitor | None = None,
        stored: str | None = None,
        prefix: str = "",
    ) -> M:
        """Run a phase, or take what it left in the store; the module ends with the phase's best weights."""
        stored = stored or name
        done = self.store.finished(stored)
        if done is not None:
            module.load_state_dict(done[0])
            self.history += done[1]["history"]
            if self.observe is not None:
                self.observe(done[1]["history"])
            return module.eval()
        settings = self.config.phase_settings(
            name,
            self.seed_of(number),
            len(self.train),
            monitor or self.tower_monitor,
            rate_factor=rate_factor,
            patience_factor=patience_factor,
        )
        phase = Phase(learner, self.train, self.valid, settings)
        under_way = self.store.current(stored)
        if under_way is not None:
            phase.load(*under_way)

        def checkpoint(now: Phase) -> None:
            if self.store.due:
                self.store.save(stored, *now.state())
            if self.observe is not None:
                self.observe(now.position.history)

        def report(phase: str, done: int, total: int, note: str) -> None:
            self.progress(phase, done, total, f"{prefix}{note}")

        history = phase.run(report, checkpoint)
        self.store.finish(stored, dict(module.state_dict()), {"history": history})
        self.history += history
        return module.eval()
