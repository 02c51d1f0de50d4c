"""The training loop of all baselines: ours, `training.phases.phase.Phase`, around models with tables of their own.

So batches, their order, evaluations, patience and weight averaging are to the letter those of REACTION's phases. What
a run is stopped by is plain validation log loss, as in REACTION's last phase; its towers before that are stopped by the
log loss that is left once slope and offset of the logit are fitted. A baseline is offered the same (`calibrated`, a
tuned choice), and as it has no later phase to mend its scale, slope (not negative) and offset are then fitted on
validation and become part of its last layer: two numbers, which its graph has anyway. REACTION is not calibrated here.
The library's own loop is offered, too (`library`), as a tuned choice likewise.

What differs is the library's way with tables: they are dense parameters of Adam, every row at every step, with half of
`l2` / rows times the squared weights added to the mean loss (FuxiCTR's `embedding_regularizer`; `l2` is stated as in
`TrainConfig.table_l2`, so that one value means the same for every number of rows: at 36 million it is the 1e-5
that leaderboards use for Criteo when it is 367).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from training.calibrating import Scored, fit
from training.phases.learner import Batch, Learner, Rows
from training.phases.optim import AdamSettings
from training.phases.phase import Phase, PhaseSettings, predict
from training.phases.tables import TableBank

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from benchmarks.accuracy.baselines import Baseline
    from training.loader import Split


class IdBank(TableBank):
    """Stands where a phase expects tables, and passes the ids on: the model looks them up itself."""

    def __init__(self) -> None:
        self.optimisers = ()  # no table is its own

    def read(self, ids: Tensor) -> Tensor:
        """The ids (B, C)."""
        return ids

    def step(self, rate: float) -> None:
        """Nothing to do."""

    def look_up(self, stacks: Sequence[Tensor], ids: Tensor) -> Tensor:  # noqa: ARG002 - the interface's
        """The ids (B, C)."""
        return ids


class BaselineLearner(Learner):
    """A baseline as a phase sees it.

    Args:
        module: The model.
        context_columns: Cc.
        l2: Lambda of the tables' lambda / 2 * |w|^2 beside the mean log loss.
    """

    monitored = "model"

    def __init__(self, module: Baseline, context_columns: int, l2: float) -> None:
        self.module: Baseline = module
        self.banks = (IdBank(),)
        self._cut = context_columns
        self._l2 = l2
        self._tables = module.table_parameters()

    def loss(self, embedded: Sequence[Tensor], batch: Batch) -> Tensor:
        """See `Learner`."""
        (ids,) = embedded
        X = self.module.inputs(ids[:, : self._cut], ids[:, self._cut :])
        weight = None if batch.weight is None else batch.weight[:, None]
        loss = self.module.objective(X, batch.label[:, None], weight)
        if self._l2:
            loss = loss + 0.5 * self._l2 * torch.stack([table.square().sum() for table in self._tables]).sum()
        return loss

    def outputs(self, embedded: Sequence[Tensor]) -> dict[str, Tensor]:
        """See `Learner`."""
        (ids,) = embedded
        return {"model": self.module(ids[:, : self._cut], ids[:, self._cut :])}

    def finish(self, stacks: Sequence[Sequence[Tensor]]) -> None:
        """Nothing to do: the model's tables are among its parameters."""


@dataclass(frozen=True)
class Trained:
    """A trained baseline, its best weights in place.

    Attributes:
        learner: Holds the module.
        steps: Optimiser steps taken.
        epochs: Passes over the training rows.
        best_step: The step whose averaged weights were kept.
        calibration: Slope and offset that went into the last layer; None where none were asked for.
    """

    learner: BaselineLearner
    steps: int
    epochs: float
    best_step: int
    calibration: tuple[float, float] | None = None

    def logits(self, split: Split) -> NDArray[np.float32]:
        """Logits (N,) of a split, a block of rows at a time."""
        (bank,) = self.learner.banks
        return predict(self.learner, Rows(split, torch.device("cpu")), [bank.averages()])["model"]


def train(
    module: Baseline, train: Split, valid: Split, config: Mapping[str, Any], *, context_columns: int, seed: int
) -> Trained:
    """Train a baseline.

    Args:
        module: With its initial values.
        train: Training rows.
        valid: What early stopping looks at.
        config: The `train` section of a run's config.
        context_columns: Cc.
        seed: Of the order of rows and dropout.

    Raises:
        NonFiniteLossError: The loss is no longer finite.
    """
    device = torch.device("cpu")
    learner = BaselineLearner(module, context_columns, config["l2"] / train.rows)
    settings = PhaseSettings(
        name="baseline",
        seed=seed,
        batch_size=config["batch_size"],
        epochs=config["epochs"],
        evaluations=config["evaluations"],
        patience=config["patience"],
        rate=config["rate"],
        table_rate=config["rate"],
        monitor="scaled_log_loss" if config.get("calibrated") else "log_loss",
        dense=AdamSettings(averaging=config["averaging"]),
    )
    phase = Phase(learner, Rows(train, device), Rows(valid, device), settings)
    history = phase.run(lambda *_: None, lambda _: None)
    steps = int(history[-1]["step"])
    trained = Trained(learner, steps, steps / phase.steps_an_epoch, phase.position.best_step)
    return calibrate(trained, valid) if config.get("calibrated") else trained


def calibrate(trained: Trained, valid: Split) -> Trained:
    """Fit slope and offset of the logit on validation, and make them part of the last layer."""
    weight = np.ones(valid.rows) if valid.weight is None else np.asarray(valid.weight, np.float64)
    scored = Scored(trained.logits(valid).astype(np.float64), np.asarray(valid.label, np.float64), weight)
    found = fit("affine", scored)
    (slope,), offset = found.slopes, found.offset
    trained.learner.module.rescale(slope, offset)
    return replace(trained, calibration=(slope, offset))
