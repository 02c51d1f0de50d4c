"""How sure the pair is when it teaches: scaled to validation, and what stops the towers that make it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from model_toys import SLOTS, Arrays, bank_of, clicks, scramble, some_ids

from training.calibration import IDENTITY, Calibration
from training.dtf import DtfConfig, Teacher
from training.evaluate import model_probabilities
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


def a_pair(council: int = 0) -> TowerPair:
    """Towers of random weights."""
    towers = [Tower(SLOTS, WIDTHS) for _ in range(2 + council)]
    for seed, tower in enumerate(towers):
        scramble(tower, seed)
    return TowerPair(towers[0], towers[1], towers[2:])


def teacher_of(pair: TowerPair, calibration: Calibration = IDENTITY) -> Teacher:
    return Teacher(pair.all, [bank_of(tower) for tower in pair.all], calibration)


@pytest.mark.parametrize("council", [0, 1, 3])
def test_a_teacher_says_the_mean_of_its_towers_calibrated_as_a_served_model_is(council: int) -> None:
    pair = a_pair(council).eval()
    context, candidate = some_ids(50)
    ids = torch.cat([context, candidate], 1)
    with torch.no_grad():
        mean = sum(tower(context, candidate) for tower in pair.towers) / (2 + council)
    low, middle, high = np.quantile(mean.numpy(), (0.2, 0.5, 0.8))
    for calibration in (
        IDENTITY,
        Calibration(slopes=(0.4,), offset=-0.3),
        Calibration(slopes=(0.2, 1.5), knots=(float(middle),), offset=0.1),
        Calibration(slopes=(0.2, 0.7, 1.1, 0.9), knots=(float(low), float(middle), float(high)), offset=-1.0),
    ):
        expected = torch.from_numpy(calibration(mean.numpy())).float()
        torch.testing.assert_close(teacher_of(pair, calibration).logits(ids), expected)


@pytest.mark.parametrize("council", [0, 2])
def test_a_trainings_models_are_told_by_name_the_teachers_where_there_are_more_than_the_pair(
    council: int, tmp_path: Path
) -> None:
    dtf, valid = DtfConfig(widths=WIDTHS, council=council, sample_rows=100), clicks(300, seed=50)
    with torch.random.fork_rng():
        trained = schedule(tmp_path, dtf, TrainConfig(epochs=1, evaluations=1, table_l2=1.0), valid)
        result = trained.run()
    by_name = trained.logits(result, valid)
    ids = [torch.from_numpy(ids).long() for ids in (valid.context_ids, valid.candidate_ids)]
    with torch.no_grad():
        towers = np.array([tower(*ids).numpy() for tower in result.pair.all])
        expected = {"tower_a": towers[0], "tower_b": towers[1], "pair": towers[:2].mean(0), "fused": result.form(*ids)}
    if len(towers) > 2:
        expected["teachers"] = towers.mean(0)
    assert by_name.keys() == expected.keys()
    assert ("teachers" in by_name) == (council > 0)
    for name, logits in model_probabilities(result.pair, result.form, valid).items():  # type: ignore[arg-type]
        np.testing.assert_allclose(by_name[name], expected[name], atol=1e-5)
        np.testing.assert_allclose(logits, probabilities(by_name[name]), atol=1e-6)


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


@pytest.mark.parametrize("council", [0, 2])
def test_the_schedule_calibrates_its_teacher_on_validation_unless_told_not_to(council: int, tmp_path: Path) -> None:
    pair = a_pair(council)
    train = TrainConfig(device="cpu")
    arrays = clicks(30_000, seed=50)
    ids = torch.from_numpy(np.concatenate([arrays.context_ids, arrays.candidate_ids], 1)).long()
    said = teacher_of(pair).logits(ids).numpy()
    middle = float(np.median(said))

    def taught(truth: np.ndarray, **how: bool) -> np.ndarray:
        """What the teacher says where labels are drawn by some true log-odds."""
        label = (np.random.default_rng(3).random(len(truth)) < probabilities(truth)).astype(np.uint8)
        valid = Arrays(arrays.context_ids, arrays.candidate_ids, label)
        found = schedule(tmp_path, DtfConfig(widths=WIDTHS, **how), train, valid).teacher(pair).logits(ids).numpy()
        return np.abs(found - truth).mean() / np.abs(said - truth).mean()

    halved = (said / 2 - 1.0).astype(np.float32)
    # Too sure of what is unlikely alone: no scale makes that good.
    bent = np.where(said < middle, middle + 0.1 * (said - middle), said).astype(np.float32)
    assert taught(halved) < 0.15
    assert taught(bent) < 0.3
    assert taught(halved, calibrate_teacher=False) == taught(bent, calibrate_teacher=False) == 1.0


def test_a_teacher_that_is_calibrated_already_teaches_what_it_says(tmp_path: Path) -> None:
    pair = a_pair()
    arrays = clicks(30_000, seed=50)
    ids = torch.from_numpy(np.concatenate([arrays.context_ids, arrays.candidate_ids], 1)).long()
    said = teacher_of(pair).logits(ids).numpy()
    label = (np.random.default_rng(3).random(len(said)) < probabilities(said)).astype(np.uint8)
    valid = Arrays(arrays.context_ids, arrays.candidate_ids, label)
    found = schedule(tmp_path, DtfConfig(widths=WIDTHS), TrainConfig(device="cpu"), valid).teacher(pair)
    assert np.abs(found.logits(ids).numpy() - said).mean() < 0.1 * said.std()


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
