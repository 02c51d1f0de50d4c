"""Squares of the projected units: what they say, and that pairs of fields are learnt by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from model_toys import SLOTS, Arrays, scramble, some_ids

from training.dtf import DtfConfig
from training.metrics import auc
from training.models.base import FieldSlot, embed
from training.models.reaction import Tower, TowerPair
from training.phases.checkpoint import CheckpointStore
from training.towers.schedule import Schedule
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SIZE, RANK = 30, 4
PAIR = tuple(
    FieldSlot(name, "candidate", n, 1, rows=SIZE + 2, dim=2 * RANK) for n, name in enumerate(("query", "item"))
)


def field_by_field(tower: Tower, context: Tensor, candidate: Tensor) -> list[Tensor]:
    """What each field adds to the projected units (B, K), and last what does not depend on any."""
    body, norm = tower.body, tower.body.norm_layers[0]
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    parts = [
        embed((slot,), [tower.tables[f]], context, candidate) @ body.projections[f] * body.gates[f] * scale
        for f, slot in enumerate(tower.slots)
    ]
    return [*parts, (norm.bias - scale * norm.running_mean).expand_as(parts[0])]


@torch.no_grad()
def test_the_squares_of_a_tower_are_a_bilinear_form_of_every_pair_of_fields() -> None:
    tower = Tower(SLOTS, (6, 5)).eval()
    scramble(tower, 2)
    context, candidate = some_ids(50)
    parts = field_by_field(tower, context, candidate)
    pairs = torch.zeros(50)
    for one in parts:
        for other in parts:
            for row in range(50):
                pairs[row] += sum(one[row, k] * tower.body.quadratic[k] * other[row, k] for k in range(6))
    whole = tower(context, candidate)
    tower.body.quadratic.zero_()
    torch.testing.assert_close(whole - tower(context, candidate), pairs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_each_tower_of_a_pair_reads_the_squares_of_its_own_units() -> None:
    pair = TowerPair(Tower(SLOTS, (6, 5)), Tower(SLOTS, (6, 5))).eval()
    scramble(pair.a, 1)
    scramble(pair.b, 2)
    ids = some_ids(30)
    before = pair.both(*ids)
    said = sum(field_by_field(pair.b, *ids)).square() @ pair.b.body.quadratic
    pair.b.body.quadratic.zero_()
    after = pair.both(*ids)
    assert torch.equal(before[0], after[0])
    torch.testing.assert_close(before[1] - after[1], said, rtol=1e-4, atol=1e-4)


def products(rows: int, seed: int) -> tuple[Arrays, np.ndarray]:
    """Clicks that follow from inner products of what two values are, from neither alone; and the true logits."""
    truth = np.random.default_rng(0).normal(0, 1, (2, SIZE + 2, RANK))
    draw = np.random.default_rng([seed, 1])
    ids = draw.integers(2, SIZE + 2, (rows, 2)).astype(np.int32)
    logits = 1.5 * (truth[0, ids[:, 0]] * truth[1, ids[:, 1]]).sum(1)
    label = (draw.random(rows) < 1.0 / (1.0 + np.exp(-logits))).astype(np.uint8)
    return Arrays(np.zeros((rows, 0), np.int32), ids, label), logits


def test_inner_products_of_two_fields_are_learnt_better_with_squares(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    train, valid = products(6000, 1)[0], products(1500, 2)[0]
    held, truth = products(4000, 3)
    found = {}
    for squares in (True, False):
        schedule = Schedule(
            PAIR,
            train,
            valid,
            dtf=DtfConfig(widths=(2 * RANK,), quadratic=squares),
            config=TrainConfig(batch_size=128, epochs=12, table_l2=10.0, rate=3e-3, dropout=0.0, device="cpu"),
            seed=1,
            store=CheckpointStore(tmp_path / str(squares), "toy", resume=False),
            progress=lambda *_: None,
        )
        with torch.random.fork_rng():
            tower = schedule.gated_tower()
        assert bool(tower.body.quadratic.any()) == squares
        with torch.no_grad():
            logits = tower(torch.from_numpy(held.context_ids), torch.from_numpy(held.candidate_ids))
        found[squares] = auc(held.label, logits.numpy())
    # A product is a difference of two squares, so that these units can say all of it.
    assert found[True] > found[False] + 0.02
    assert found[True] > auc(held.label, truth) - 0.03
