"""Schedules of the ablation on a toy's clicks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from model_toys import SLOTS, clicks

from benchmarks.ablation.run import phase_facts
from benchmarks.ablation.store import SharedPhases
from training.dtf import DtfConfig
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.ablation.schedules import Ablated, ControlSettings

TRAIN = TrainConfig(batch_size=128, epochs=3, patience=2, table_l2=10.0, half_scale_at=0.0, rate=3e-3, device="cpu")
AN_EPOCH = 8  # steps: 1,000 rows in batches of 128


def toy(kind: type[Ablated], where: Path, train: TrainConfig, settings: ControlSettings | None = None) -> Ablated:
    found: list[Ablated] = []
    store = SharedPhases(where, lambda phase: phase_facts(found[0], phase, "toy"))
    dtf = DtfConfig(widths=(8, 6))
    found.append(
        kind(
            SLOTS,
            clicks(1000),
            clicks(300, seed=50),
            dtf=dtf if settings is None else settings.applied(dtf),
            config=train,
            seed=1,
            store=store,
            progress=lambda *_: None,
        )
    )
    return found[0]


def fitted(kind: type[Ablated], where: Path, budget: int = 0) -> Ablated:
    found = toy(kind, where, TRAIN)
    found.budget = budget
    with torch.random.fork_rng():
        torch.set_num_threads(1)
        found.fit()
    return found
