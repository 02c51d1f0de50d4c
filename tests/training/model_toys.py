"""Small fields, ids and splits for the tests of models and training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.models.base import FieldSlot
from training.phases.optim import AdamSettings
from training.phases.tables import TableBank

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from training.models.reaction import FusionForm, Tower

SLOTS = (
    FieldSlot("user", "context", 0, 1, rows=11, dim=3),
    FieldSlot("tags", "candidate", 0, 3, rows=9, dim=2, pooling="mean", pad_id=2),
    FieldSlot("ad", "candidate", 3, 1, rows=7, dim=3),
    FieldSlot("genres", "context", 2, 2, rows=6, dim=3, pooling="sum", pad_id=2),
    FieldSlot("position", "candidate", 4, 1, rows=5, dim=4, serving_constant_id=3),
)
"""Mixed sides, dimensions and poolings; context column 1 belongs to a field that was dropped."""

CONTEXT_COLUMNS, CANDIDATE_COLUMNS = 4, 5


@dataclass(frozen=True)
class Arrays:
    """A split of arrays."""

    context_ids: NDArray[np.int32]
    candidate_ids: NDArray[np.int32]
    label: NDArray[np.uint8]
    weight: NDArray[np.float32] | None = None
    group: NDArray[np.int64] | None = None


def some_ids(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random ids on the layout of SLOTS, pad ids among them."""
    draw = np.random.default_rng(seed)
    sides = {"context": np.zeros((rows, CONTEXT_COLUMNS)), "candidate": np.zeros((rows, CANDIDATE_COLUMNS))}
    for slot in SLOTS:
        ids = draw.integers(0, slot.rows, (rows, slot.width))
        if slot.pad_id is not None:
            ids[draw.random(ids.shape) < 0.4] = slot.pad_id
        sides[slot.side][:, slot.first : slot.first + slot.width] = ids
    return torch.from_numpy(sides["context"]).int(), torch.from_numpy(sides["candidate"]).int()


def clicks(rows: int, seed: int = 0, weight: bool = False) -> Arrays:
    """Rows whose label follows from user and ad together (a parity) and from the tags."""
    context, candidate = (ids.numpy() for ids in some_ids(rows, seed))
    draw = np.random.default_rng(seed + 1)
    parity = (context[:, 0] + candidate[:, 3]) % 2
    odds = 2.0 * parity - 1.0 + 0.8 * (candidate[:, :3] == 4).any(1) - 0.5
    label = (draw.random(rows) < 1.0 / (1.0 + np.exp(-2.0 * odds))).astype(np.uint8)
    return Arrays(context, candidate, label, draw.uniform(0.5, 2.0, rows).astype(np.float32) if weight else None)


def scramble(module: torch.nn.Module, seed: int = 0) -> None:
    """Give every weight and statistic of a module a random value, so that nothing is tested at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if not value.is_floating_point() or name.endswith("mix"):
            continue
        value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
        if name.endswith("running_var"):
            value.abs_().add_(0.5)
    for slot, table in zip(module.slots, module.tables, strict=True):
        if slot.pad_id is not None:
            table.data[slot.pad_id] = 0.0


def bank_of(module: Tower | FusionForm, constants: AdamSettings | None = None) -> TableBank:
    return TableBank(
        module.slots,
        list(module.tables),
        constants or AdamSettings(),
        context_columns=CONTEXT_COLUMNS,
        total_columns=CONTEXT_COLUMNS + CANDIDATE_COLUMNS,
    )
