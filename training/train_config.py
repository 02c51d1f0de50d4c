"""The `[train]` section of an experiment, and what its defaults come to on a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from training.phases.optim import AdamSettings
from training.phases.phase import PhaseSettings

if TYPE_CHECKING:
    from training.phases.phase import Monitor

Rate = Annotated[float, Field(gt=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]

USUAL_L2 = 300.0
"""The tables' L2 where a search for it begins."""


class DeviceError(RuntimeError):
    """The configured device is not there."""


class TrainConfig(BaseModel):
    """The training loop's settings.

    Attributes:
        batch_size: Rows a step; by default it grows with the training split, from 256 to 4096.
        rate: Learning rate of the dense layers.
        table_rate: Learning rate of the tables.
        table_l2: Precision of the tables' Gaussian prior: table_l2 / 2 times the squared weights stands against the
            log loss summed over the training rows, so it means the same for every number of rows and batch size.
            By default the towers are trained under several, and validation chooses (`towers.search`): what
            is best differs by a factor of thirty between data sets, and on small ones decides more than all else.
        table_decay: Share of every table weight lost a step, read or not: what is seldom seen stays near zero.
        weight_decay: Share of every dense weight lost a step.
        dropout: Probability of dropping a hidden unit.
        unknown: Chance of a value to be read as out of vocabulary in training, so that this row is trained in any case.
        averaging: Decay of the weight average a step; the averaged weights are what is evaluated and kept.
        epochs: Passes over the training rows at most, a phase.
        evaluations: Evaluations on the validation split an epoch.
        patience: Evaluations without a better one before a phase stops.
        monitor: What early stopping looks at.
        table_scale: Standard deviation of the tables' initial values.
        half_scale_at: Times that a value is seen in training at which its row begins with half of that: with n / (n +
            half_scale_at) of it for n times, so that what is rare begins near zero; 0: all rows begin alike. By
            default both are tried, and validation chooses (`towers.search`).
        device: "auto" takes a GPU where there is one.
        precision: "auto" is bfloat16 autocast of the dense layers on a GPU, float32 elsewhere.
        threads: Threads of the dense layers on a CPU; small towers are fastest on one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: Annotated[int, Field(ge=2)] | None = None
    rate: Rate = 1e-3
    table_rate: Rate = 7e-3
    table_l2: Annotated[float, Field(ge=0.0)] | None = None
    table_decay: Share = 0.0
    weight_decay: Share = 0.0
    dropout: Share = 0.15
    unknown: Share = 0.01
    averaging: Share = 0.995
    epochs: Annotated[int, Field(ge=1)] = 50
    evaluations: Annotated[int, Field(ge=1)] = 2
    patience: Annotated[int, Field(ge=1)] = 6
    monitor: Literal["log_loss", "auc"] = "log_loss"
    table_scale: Annotated[float, Field(gt=0.0)] = 0.05
    half_scale_at: Annotated[float, Field(ge=0.0)] | None = None
    device: Literal["cpu", "cuda", "auto"] = "auto"
    precision: Literal["float32", "bfloat16", "auto"] = "auto"
    threads: Annotated[int, Field(ge=1)] = 1

    @property
    def first_table_l2(self) -> float:
        """The tables' L2 that is given, or the one that a search begins from."""
        return USUAL_L2 if self.table_l2 is None else self.table_l2

    @property
    def first_half_scale_at(self) -> float:
        """Where rows begin at half of their scale as it is given, or as a search begins."""
        return self.half_scale_at or 0.0

    def batch_rows(self, rows: int) -> int:
        """B for a training split of so many rows: a power of two near 1/100 of it, from 256 to 4096."""
        if self.batch_size is not None:
            return self.batch_size
        return 1 << min(12, max(8, (rows // 128).bit_length()))

    def resolved_device(self) -> torch.device:
        """The device to train on.

        Raises:
            DeviceError: "cuda" is asked for and there is none.
        """
        found = torch.cuda.is_available()
        if self.device == "cuda" and not found:
            raise DeviceError("train.device: expected a CUDA device, got none; use 'auto' or 'cpu'")
        return torch.device("cuda" if found and self.device != "cpu" else "cpu")

    def resolved_precision(self, device: torch.device) -> Literal["float32", "bfloat16"]:
        """The precision of the dense layers."""
        if self.precision == "auto":
            return "bfloat16" if device.type == "cuda" else "float32"
        return self.precision

    def table_settings(self, rows: int, l2_factor: float = 1.0) -> AdamSettings:
        """Constants of the tables' optimiser for a training split of so many rows."""
        return AdamSettings(
            l2=self.first_table_l2 * l2_factor / rows, decay=self.table_decay * l2_factor, averaging=self.averaging
        )

    def phase_settings(
        self, name: str, seed: int, rows: int, monitor: Monitor, *, rate_factor: float = 1.0, patience_factor: int = 1
    ) -> PhaseSettings:
        """How a phase is run.

        Args:
            name: Of the phase.
            seed: Its own.
            rows: Of the training split.
            monitor: What early stopping looks at.
            rate_factor: Of both learning rates.
            patience_factor: Of the patience.
        """
        return PhaseSettings(
            name=name,
            seed=seed,
            batch_size=self.batch_rows(rows),
            epochs=self.epochs,
            evaluations=self.evaluations,
            patience=self.patience * patience_factor,
            rate=self.rate * rate_factor,
            table_rate=self.table_rate * rate_factor,
            monitor=monitor,
            dense=self.dense_settings(),
            precision=self.resolved_precision(self.resolved_device()),
        )

    def dense_settings(self) -> AdamSettings:
        """Constants of the dense optimiser."""
        return AdamSettings(decay=self.weight_decay, averaging=self.averaging)
