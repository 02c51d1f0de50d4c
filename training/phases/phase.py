"""One phase of training: batches in a seeded order, averaged weights, early stopping; stopped and resumed at will.

A phase trains a `Learner` (dense parameters and table banks). It evaluates the *averaged* weights on the validation
split a few times an epoch, keeps the best, and stops after `patience` evaluations without a better one. All its state
is in `Phase.state()`, so that a killed run goes on to the bit-same result.

Shapes: N rows, B rows of a batch, C columns of both id matrices side by side (context first), D = sum of d_f.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import nn

from training.metrics import auc, log_loss, scaled_log_loss
from training.phases.learner import EVALUATION_ROWS, Batch, Learner, Rows
from training.phases.optim import AdamSettings, FlatAdam

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor


Monitor = Literal["log_loss", "auc", "scaled_log_loss"]

NORM_ROWS = 16_384
"""Training rows from which the batch norms' statistics of averaged weights are estimated."""

CHANCE = 0.5
UNKNOWING = 4
"""Evaluations, as a multiple of the patience, for which one whose AUC is no better than chance does not count as one
without a better one: random weights may happen to have the order the wrong way round, and learning begins by undoing
that."""


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite; the message says in which phase and at which step."""


class Progress(Protocol):
    """Told how far training has come; the commands draw bars with it."""

    def __call__(self, phase: str, done: int, total: int, note: str) -> None:
        """Report a phase's position.

        Args:
            phase: Its name.
            done: Steps done; equals `total` once, at its end.
            total: Steps of the phase at most; early stopping may end it before.
            note: Text for people: the last evaluation.
        """


@dataclass(frozen=True)
class PhaseSettings:
    """How a phase is run.

    Attributes:
        name: The phase's name.
        seed: Orders the rows and drives dropout.
        batch_size: B.
        epochs: Passes over the rows at most.
        evaluations: Evaluations an epoch.
        patience: Evaluations without a better one before it stops.
        rate: Learning rate of dense parameters.
        table_rate: Learning rate of tables.
        monitor: What early stopping looks at.
        dense: The dense optimiser's constants.
        precision: "bfloat16" runs the dense layers under autocast.
    """

    name: str
    seed: int
    batch_size: int
    epochs: int
    evaluations: int
    patience: int
    rate: float
    table_rate: float
    monitor: Monitor
    dense: AdamSettings
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass
class _Position:
    step: int = 0
    best: float = math.inf
    best_step: int = 0
    stale: int = 0
    loss: float = 0.0
    losses: int = 0
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


class Phase:
    """A phase under way.

    Args:
        learner: What is trained.
        train: The training rows.
        valid: The validation rows.
        settings: How.
    """

    def __init__(self, learner: Learner, train: Rows, valid: Rows, settings: PhaseSettings) -> None:
        self.learner, self.train, self.valid, self.settings = learner, train, valid, settings
        self.optimiser = FlatAdam(learner.module, settings.dense, learner.faster)
        self.position = _Position()
        self.best: dict[str, Tensor] = {}
        self.steps_an_epoch = math.ceil(len(train) / settings.batch_size)
        self.steps = self.steps_an_epoch * settings.epochs
        marks = min(settings.evaluations, self.steps_an_epoch)
        self._marks = {math.ceil(self.steps_an_epoch * (i + 1) / marks) for i in range(marks)}
        self._norm_rows: NDArray[np.int64] | None = None
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def run(self, report: Progress, checkpoint: Callable[[Phase], None]) -> list[dict[str, Any]]:
        """Train to the end and leave the best averaged weights in the learner.

        Args:
            report: Called after every evaluation and about every hundred steps.
            checkpoint: Called after every evaluation.

        Returns:
            The history: one record an evaluation.

        Raises:
            NonFiniteLossError: The loss is NaN or infinite.
        """
        p, note = self.position, ""
        if p.step == 0:
            torch.manual_seed(self.settings.seed)
            note = self._evaluate()  # what a phase begins with counts: no phase ends worse than that
        while not p.finished:
            self._step()
            if (p.step - 1) % self.steps_an_epoch + 1 in self._marks:
                note = self._evaluate()
                checkpoint(self)
                report(self.settings.name, p.step, self.steps, note)
            elif p.step % 100 == 0:
                report(self.settings.name, p.step, self.steps, note)
        self._restore_best()
        report(self.settings.name, self.steps, self.steps, note)
        return p.history

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and JSON-able values that `load` continues from."""
        tensors = {f"dense.{k}": v for k, v in self.optimiser.state().items()}
        for i, bank in enumerate(self.learner.banks):
            tensors |= {f"bank{i}.{k}": v for k, v in bank.state().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.train.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.train.device)
        return tensors, vars(self.position)

    def load(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue from `state`, also that of the random numbers."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.optimiser.load(part("dense."))
        for i, bank in enumerate(self.learner.banks):
            bank.load(part(f"bank{i}."))
        self.best = {k: v.to(self.train.device) for k, v in part("best.").items()}
        self.position = _Position(**values)
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors and self.train.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.train.device)

    def _index(self) -> NDArray[np.int64]:
        epoch, place = divmod(self.position.step, self.steps_an_epoch)
        if self._order[0] != epoch:
            # A function of seed and epoch alone, so a resumed run needs no stored permutation.
            generator = np.random.default_rng([self.settings.seed, epoch])
            self._order = (epoch, generator.permutation(len(self.train)))
        # Batches of nearly one size: a rest of one row has no batch statistics.
        first, last = (len(self.train) * (place + i) // self.steps_an_epoch for i in (0, 1))
        # Within a batch the order does not matter, but ascending rows read a memory-mapped file forwards.
        return np.sort(self._order[1][first:last])

    def _step(self) -> None:
        s, p, learner = self.settings, self.position, self.learner
        batch = learner.prepare(self.train.batch(self._index()))
        learner.module.train()
        self.optimiser.zero()
        embedded = [bank.read(batch.ids) for bank in learner.banks]
        with torch.autocast(self.train.device.type, torch.bfloat16, enabled=s.precision == "bfloat16"):
            loss = learner.loss(embedded, batch)
        value = loss.item()
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"phase {s.name!r}, step {p.step + 1} (epoch {p.step // self.steps_an_epoch + 1}): "
                f"expected a finite loss, got {value}; a lower train.rate is the usual remedy"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step(s.rate)
        for bank in learner.banks:
            bank.step(s.table_rate)
        p.step += 1
        p.loss += value
        p.losses += 1

    def _evaluate(self) -> str:
        p, s = self.position, self.settings
        stacks = [bank.averages() for bank in self.learner.banks]
        live = self.optimiser.weights.clone(), self.optimiser.buffers.clone()
        self.optimiser.put(self.optimiser.mean, live[1])
        estimate_norms(self.learner, self._norm_batches(), stacks)
        buffers = self.optimiser.buffers.clone()
        outputs = predict(self.learner, self.valid, stacks)
        self.optimiser.put(*live)
        label, weight = self.valid.split.label, self.valid.split.weight
        record: dict[str, Any] = {"phase": s.name, "step": p.step, "epoch": p.step / self.steps_an_epoch}
        if p.losses:
            record["train_loss"] = p.loss / p.losses
        for name, logits in outputs.items():
            record[f"{name}.auc"] = auc(label, logits, weight)
            record[f"{name}.log_loss"] = log_loss(label, probabilities(logits), weight)
            if s.monitor == "scaled_log_loss":
                record[f"{name}.scaled_log_loss"] = scaled_log_loss(label, logits, weight)
        name = self.learner.monitored
        score = record[f"{name}.{s.monitor}"]
        loss = -score if s.monitor == "auc" else score
        p.loss, p.losses = 0.0, 0
        p.history.append(record)
        if loss < p.best:
            p.best, p.best_step, p.stale = loss, p.step, 0
            self.best = {"weights": self.optimiser.mean.clone(), "buffers": buffers}
            self.best |= {f"bank{i}.{j}": w for i, bank in enumerate(stacks) for j, w in enumerate(bank)}
        elif record[f"{name}.auc"] > CHANCE or len(p.history) > UNKNOWING * s.patience:
            p.stale += 1
        p.finished = p.stale >= s.patience or p.step >= self.steps
        return f"AUC {record[f'{name}.auc']:.4f}, log loss {record[f'{name}.log_loss']:.4f}"

    def _norm_batches(self) -> Iterator[Batch]:
        if self._norm_rows is None:
            generator = np.random.default_rng([self.settings.seed, 1 << 31])
            rows = min(len(self.train), NORM_ROWS)
            self._norm_rows = np.sort(generator.choice(len(self.train), rows, replace=False))
        for rows_of_one in np.array_split(self._norm_rows, math.ceil(len(self._norm_rows) / EVALUATION_ROWS)):
            yield self.train.batch(rows_of_one)

    def _restore_best(self) -> None:
        self.optimiser.put(self.best["weights"], self.best["buffers"])
        stacks = [
            [self.best[f"bank{i}.{j}"] for j in range(len(bank.optimisers))]
            for i, bank in enumerate(self.learner.banks)
        ]
        self.learner.finish(stacks)
        self.learner.module.eval()


@torch.no_grad()
def estimate_norms(learner: Learner, batches: Iterable[Batch], stacks: Sequence[Sequence[Tensor]]) -> None:
    """Set the batch norms' statistics to those of these batches under the current weights and given stacks.

    Running statistics lag behind, and averaged weights have others altogether: while tables grow, the average of their
    variance is far above the variance of their average. Source: Izmailov et al., "Averaging Weights Leads to Wider
    Optima and Better Generalization", UAI 2018, section 3.2.
    """
    learner.module.eval()  # without dropout
    norms = [m for m in learner.module.modules() if isinstance(m, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over batches
    for batch in batches:
        learner.outputs([bank.look_up(s, batch.ids) for bank, s in zip(learner.banks, stacks, strict=True)])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@torch.no_grad()
def predict(learner: Learner, rows: Rows, stacks: Sequence[Sequence[Tensor]]) -> dict[str, NDArray[np.float32]]:
    """Return every output's logits (N,) on all rows, in evaluation mode, from given stacks of tables."""
    learner.module.eval()
    parts: dict[str, list[NDArray[np.float32]]] = {}
    for batch in rows.blocks():
        embedded = [bank.look_up(s, batch.ids) for bank, s in zip(learner.banks, stacks, strict=True)]
        for name, logits in learner.outputs(embedded).items():
            parts.setdefault(name, []).append(logits.float().cpu().numpy())
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


def lost(monitor: Monitor, label: NDArray[Any], logits: NDArray[np.float32], weight: NDArray[Any] | None) -> float:
    """Return what a monitor says of logits (N,): less is better, so an AUC has its sign turned."""
    if monitor == "auc":
        return -auc(label, logits, weight)
    if monitor == "log_loss":
        return log_loss(label, probabilities(logits), weight)
    return scaled_log_loss(label, logits, weight)


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the logistic function of logits, in float64 and without overflow."""
    z = logits.astype(np.float64)
    return np.exp(-np.logaddexp(0.0, -z))
