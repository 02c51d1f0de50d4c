"""How sure the pair is when it teaches: scaled to validation, and what stops the towers that make it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from model_toys import SLOTS, Arrays, bank_of, clicks, scramble, some_ids

from training.dtf import DtfConfig, Teacher, best_scale
from training.metrics import log_loss
from training.models.reaction import Tower, TowerPair
from training.phases.checkpoint import CheckpointStore
from training.phases.phase import probabilities
from training.towers.schedule import Schedule
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

WIDTHS = (8, 6)


def drawn(rows: int = 20_000, sure: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of known log-odds, and those log-odds times `sure`."""
    generator = np.random.default_rng(7)
    odds = generator.normal(-1.0, 1.5, rows)
    label = (generator.random(rows) < 1.0 / (1.0 + np.exp(-odds))).astype(np.uint8)
    return label, (sure * odds).astype(np.float32)


@pytest.mark.parametrize("sure", [0.5, 1.0, 3.0])
def test_the_best_scale_undoes_how_sure_scores_are(sure: float) -> None:
    found = best_scale(*drawn(sure=sure), None)
    assert found * sure == pytest.approx(1.0, abs=0.05)


def test_the_best_scale_is_that_of_a_fine_grid_and_weights_count() -> None:
    label, logits = drawn(2_000, sure=1.7)
    weight = np.where(label, 3.0, 1.0).astype(np.float32)
    grid = np.exp(np.linspace(np.log(0.1), np.log(10.0), 4_001))
    for own in (None, weight):
        losses = [log_loss(label, probabilities(np.float32(scale) * logits), own) for scale in grid]
        assert best_scale(label, logits, own) == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)
    assert best_scale(label, logits, weight) != pytest.approx(best_scale(label, logits, None), rel=0.02)


def test_a_teacher_says_the_mean_of_its_towers_times_its_scale() -> None:
    pair = TowerPair(Tower(SLOTS, WIDTHS), Tower(SLOTS, WIDTHS))
    for seed, tower in enumerate((pair.a, pair.b)):
        scramble(tower, seed)
    banks = bank_of(pair.a), bank_of(pair.b)
    context, candidate = some_ids(50)
    ids = torch.cat([context, candidate], 1)
    with torch.no_grad():
        a, b = pair.eval().both(context, candidate)
    for scale in (1.0, 0.4):
        torch.testing.assert_close(Teacher(pair, banks, scale).logits(ids), scale * (a + b) / 2)


def schedule(where: Path, dtf: DtfConfig, train: TrainConfig, valid: Arrays | None = None) -> Schedule:
    return Schedule(
        SLOTS,
        clicks(400),
        valid or clicks(300, seed=50),
        dtf=dtf,
        config=train,
        seed=1,
        store=CheckpointStore(where, "toy", resume=False),
        progress=lambda *_: None,
    )


def test_the_schedule_scales_its_teacher_on_validation_unless_told_not_to(tmp_path: Path) -> None:
    pair = TowerPair(Tower(SLOTS, WIDTHS), Tower(SLOTS, WIDTHS))
    for seed, tower in enumerate((pair.a, pair.b)):
        scramble(tower, seed)
    banks = bank_of(pair.a), bank_of(pair.b)
    train = TrainConfig(device="cpu")
    valid = clicks(3_000, seed=50)
    ids = torch.from_numpy(np.concatenate([valid.context_ids, valid.candidate_ids], 1)).long()
    said = Teacher(pair, banks).logits(ids).numpy()
    # Labels by half of what the pair says: it is twice as sure as it should be.
    label = (np.random.default_rng(3).random(len(said)) < probabilities(said / 2)).astype(np.uint8)
    valid = Arrays(valid.context_ids, valid.candidate_ids, label)
    scaled = schedule(tmp_path, DtfConfig(widths=WIDTHS), train, valid).teacher(pair)

    def loss(scale: float) -> float:
        return log_loss(valid.label, probabilities(np.float32(scale) * said))

    assert scaled.scale == pytest.approx(0.5, abs=0.1)
    assert all(loss(scaled.scale) <= loss(scaled.scale * near) for near in (0.9, 0.97, 1.03, 1.1))
    plain = schedule(tmp_path, DtfConfig(widths=WIDTHS, scale_teacher=False), train, valid).teacher(pair)
    assert plain.scale == 1.0


@pytest.mark.parametrize(
    ("train", "tower", "expected"),
    [("log_loss", None, "scaled_log_loss"), ("auc", None, "auc"), ("log_loss", "log_loss", "log_loss")],
)
def test_towers_are_stopped_by_what_they_know_and_the_fused_model_by_what_is_asked_for(
    train: str, tower: str | None, expected: str, tmp_path: Path
) -> None:
    config = TrainConfig(batch_size=64, epochs=3, table_l2=10.0, rate=1e-2, device="cpu", monitor=train)
    found = schedule(tmp_path, DtfConfig(widths=WIDTHS, tower_monitor=tower), config)
    with torch.random.fork_rng():
        result = found.run()
    assert found.tower_monitor == expected
    shown = {record["phase"]: "fused.scaled_log_loss" in record for record in result.history if record["step"]}
    assert shown["fusion"] is False  # what is looked at is recorded, and that is the plain log loss or the AUC
    for phase in ("tower_a", "tower_b"):
        records = [record for record in result.history if record["phase"] == phase]
        assert all((f"{phase}.scaled_log_loss" in record) is (expected == "scaled_log_loss") for record in records)
