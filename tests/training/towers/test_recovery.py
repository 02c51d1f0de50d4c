"""A tower that ends far behind the other one: trained again, left out if it stays behind, and said so."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from model_toys import SLOTS, clicks, scramble

from training.dtf import DtfConfig
from training.models.reaction import TowerPair
from training.paired import Gain
from training.phases.checkpoint import CheckpointStore
from training.towers import recovery
from training.towers.recovery import without_weak
from training.towers.schedule import Schedule
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both towers, trained once: they know nothing of what becomes of them."""
    where = tmp_path_factory.mktemp("trained")
    schedule = toy(where)
    with torch.random.fork_rng():
        for number, name in enumerate(("tower_a", "tower_b")):
            schedule.tower(name, number)
    return where


def toy(where: Path, after: Path | None = None, **train: Any) -> Schedule:
    torch.set_num_threads(1)
    if after is not None:
        shutil.copytree(after, where, dirs_exist_ok=True)
    return Schedule(
        SLOTS,
        clicks(1000),
        clicks(400, seed=50),
        dtf=DtfConfig(widths=(8, 6)),
        config=TrainConfig(
            **{
                "batch_size": 64,
                "epochs": 8,
                "rate": 3e-3,
                "table_l2": 1.0,
                "half_scale_at": 0.0,
                "device": "cpu",
                **train,
            }
        ),
        seed=1,
        store=CheckpointStore(where, "toy", resume=True),
        progress=lambda *_: None,
    )


@pytest.mark.parametrize("weak", ["tower_a", "tower_b"])
@pytest.mark.parametrize("learns", [True, False])
def test_a_tower_that_spoils_the_pair_is_trained_again_and_left_out_if_it_stays_behind(
    weak: str, learns: bool, trained: Path, tmp_path: Path
) -> None:
    schedule = toy(tmp_path, trained)
    with torch.random.fork_rng():
        a, b = schedule.tower("tower_a", 0), schedule.tower("tower_b", 1)
        before = {record["phase"]: record for record in schedule.history}
        good = b if weak == "tower_a" else a
        bad = a if weak == "tower_a" else b
        scramble(bad)
        if not learns:
            schedule.config = schedule.config.model_copy(update={"rate": 1e-9, "table_rate": 1e-9, "epochs": 1})
        said = schedule.pair_logits(TowerPair(a, b))
        pair = without_weak(schedule, TowerPair(a, b))
    name = "tower A" if weak == "tower_a" else "tower B"
    assert schedule.notes[0].startswith(f"{name} ended far behind the other one on validation (scaled log loss 0.")
    assert schedule.notes[0].endswith("and was trained again")
    kept = pair.b if weak == "tower_a" else pair.a
    other = pair.a if weak == "tower_a" else pair.b
    assert all(torch.equal(value, good.state_dict()[key]) for key, value in kept.state_dict().items())
    assert [*dict.fromkeys(record["phase"] for record in schedule.history)] == ["tower_a", "tower_b"]
    last = {record["phase"]: record for record in schedule.history}
    if learns:
        assert len(schedule.notes) == 1
        assert schedule.loss_of(pair) < schedule.loss_of(TowerPair(good, good)) + 0.02
        assert not torch.equal(other.tables[0], good.tables[0])
        assert last[weak] != before[weak]
    else:
        assert len(schedule.notes) == 2
        assert "teaches alone" in schedule.notes[1]
        assert all(torch.equal(value, good.state_dict()[key]) for key, value in other.state_dict().items())
        assert other is not kept
    assert schedule.loss_of(pair) < schedule.loss_of(TowerPair(a, b)) - 0.001
    assert said["pair"].shape == (400,)


def test_a_pair_that_is_as_good_as_its_better_tower_is_left_alone(trained: Path, tmp_path: Path) -> None:
    schedule = toy(tmp_path, trained)
    with torch.random.fork_rng():
        pair = TowerPair(schedule.tower("tower_a", 0), schedule.tower("tower_b", 1))
        assert without_weak(schedule, pair) is pair
    assert schedule.notes == []
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["tower_a", "tower_b"]


@pytest.mark.parametrize("errors", [0.5, 1.5, 2.5])
def test_being_behind_by_an_error_is_enough_to_be_trained_again_and_by_two_to_be_left_out(
    errors: float, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, alone = errors > 1.0, errors > 2.0
    schedule = toy(tmp_path, trained)
    with torch.random.fork_rng():
        pair = TowerPair(schedule.tower("tower_a", 0), schedule.tower("tower_b", 1))
        monkeypatch.setattr(recovery, "gain", lambda *_: Gain(0.01 * errors, 0.01))
        found = without_weak(schedule, pair)
    assert (tmp_path / "tower_a_again.safetensors").exists() == again
    assert any("trained again" in note for note in schedule.notes) == again
    assert any("teaches alone" in note for note in schedule.notes) == alone
    same = all(torch.equal(x, y) for x, y in zip(found.a.parameters(), found.b.parameters(), strict=True))
    assert same == alone
