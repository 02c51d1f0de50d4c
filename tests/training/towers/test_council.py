"""Towers that only teach: trained as the others are, kept with the pair, left out where they do harm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from model_toys import SLOTS, clicks, scramble
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from training.dtf import DtfConfig
from training.models.files import load_pair, save_model, save_pair
from training.models.reaction import Tower, TowerPair
from training.phases.checkpoint import CheckpointStore
from training.towers.council import FIRST, HARMFUL, with_council
from training.towers.schedule import Schedule
from training.towers.table_prior import STEP
from training.train_config import USUAL_L2, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VALID = clicks(400, seed=50)


def toy(where: Path, council: int, told: list[str] | None = None, seed: int = 1, **train: Any) -> Schedule:
    def progress(phase: str, done: int, total: int, _note: str) -> None:
        if told is not None and phase not in told:
            told.append(phase)

    torch.set_num_threads(1)
    return Schedule(
        SLOTS,
        clicks(1000),
        VALID,
        dtf=DtfConfig(widths=(8, 6), council=council),
        config=TrainConfig(**{"batch_size": 64, "epochs": 6, "rate": 3e-3, "table_l2": 1.0, "device": "cpu", **train}),
        seed=seed,
        store=CheckpointStore(where, "toy", resume=True),
        progress=progress,
    )


def run(schedule: Schedule, pair: TowerPair | None = None) -> Any:
    with torch.random.fork_rng():
        return schedule.run(pair)


def same(one: Tower, other: Tower) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def loss(schedule: Schedule, *towers: Tower) -> float:
    """What towers' mean logit comes to on validation, once slope and offset are fitted."""
    logits = np.mean([schedule.tower_logits(tower) for tower in towers], axis=0)[:, None]
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logits, VALID.label)
    return float(log_loss(VALID.label, fitted.predict_proba(logits)[:, 1]))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_best_two_towers_become_one_and_all_teach(seed: int, tmp_path: Path) -> None:
    told: list[str] = []
    schedule = toy(tmp_path, 2, told, seed=seed)
    with torch.random.fork_rng():
        trained = [schedule.tower("tower_a", 0), schedule.tower("tower_b", 1)]
        found = with_council(schedule, TowerPair(*trained))
        teacher = schedule.teacher(found)
    assert told == ["tower_a", "tower_b", "tower_c", "tower_d"]
    losses = [loss(schedule, tower) for tower in found.all]
    assert losses == sorted(losses)
    assert len(set(losses)) == len(found.all) == 4
    assert all(any(same(one, tower) for tower in found.all) for one in trained)
    assert teacher.towers == list(found.all)
    # The history is told by rank: its best evaluations are those of the tower that has the name.
    for name, expected in zip(told, losses, strict=True):
        records = [record for record in schedule.history if record["phase"] == name]
        assert min(record[f"{name}.scaled_log_loss"] for record in records) == pytest.approx(expected, abs=1e-5)
        assert not any(f"{other}.auc" in record for other in told if other != name for record in records)


def test_a_council_changes_the_fused_model_and_not_its_size(tmp_path: Path) -> None:
    alone, taught = run(toy(tmp_path / "alone", 0)), run(toy(tmp_path / "taught", 2))
    assert [record["phase"] for record in taught.history if record["step"] == 0][-1] == "fusion"
    assert not same(alone.form, taught.form)
    assert [table.shape for table in alone.form.tables] == [table.shape for table in taught.form.tables]


def test_what_a_council_was_trained_to_is_taken_up_and_not_trained_again(tmp_path: Path) -> None:
    first = run(toy(tmp_path, 2))
    (tmp_path / "fusion.safetensors").unlink()
    told: list[str] = []
    again = run(toy(tmp_path, 2, told))
    assert told == ["fusion"]
    assert again.history == first.history
    assert same(again.form, first.form)


def test_a_council_is_kept_with_the_pair_and_goes_on_when_that_is_trained_on(tmp_path: Path) -> None:
    first = run(toy(tmp_path / "first", 2))
    save_model(tmp_path, first.form)
    save_pair(tmp_path, first.pair)
    back = load_pair(tmp_path)
    assert [same(one, other) for one, other in zip(back.all, first.pair.all, strict=True)] == [True] * 4
    told: list[str] = []
    on = run(toy(tmp_path / "on", 0, told, epochs=1), back)  # as many as the earlier run had
    assert told == ["tower_a", "tower_b", "tower_c", "tower_d", "fusion"]
    assert len(on.pair.council) == 2
    for before, after in zip(first.pair.council, on.pair.council, strict=True):
        assert not same(before, after)
        moved, size = (torch.dist(before.tables[0], table).item() for table in (after.tables[0], torch.zeros(1)))
        assert moved < 0.5 * size  # went on, was not begun anew


def spoilt(_tower: Tower) -> None:
    scramble(_tower)


def left_alone(_tower: Tower) -> None:
    pass


@pytest.mark.parametrize(("change", "left"), [(spoilt, 1), (left_alone, 2)])
def test_a_tower_that_makes_the_mean_worse_does_not_teach(
    change: Callable[[Tower], None], left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = toy(tmp_path, 2)
    train = schedule.tower

    def tower(name: str, number: int, **how: Any) -> Tower:
        found = train(name, number, **how)
        if name == "tower_c":
            change(found)
        return found

    monkeypatch.setattr(schedule, "tower", tower)
    with torch.random.fork_rng():
        a, b = train("tower_a", 0), train("tower_b", 1)
        found = with_council(schedule, TowerPair(a, b))
    assert len(found.council) == left
    phases = [record["phase"] for record in schedule.history if record["step"] == 0]
    assert phases == ["tower_a", "tower_b", "tower_c", "tower_d"][: 2 + left]
    assert schedule.notes == ([] if left == 2 else [HARMFUL.format(towers=4)])
    assert loss(schedule, *found.all) < loss(schedule, a, b) + 0.01


@pytest.mark.parametrize("seed", [1, 2])
def test_where_one_tower_cannot_tell_which_l2_is_better_four_decide(seed: int, tmp_path: Path) -> None:
    schedule = toy(tmp_path / "search", 2, seed=seed, table_l2=None)
    with torch.random.fork_rng():
        pair = schedule.search.pair()
        chosen = schedule.config.first_table_l2
        found = with_council(schedule, pair)
    tried = trained(tmp_path / "search", "tower_a")
    towers = {l2: given(tmp_path / str(l2), seed, l2) for l2 in tried}
    alone = {l2: [loss(schedule, tower) for tower in some] for l2, some in towers.items()}
    spread = float(np.std(alone[chosen], ddof=1))
    near = {chosen, *(l2 for l2 in (chosen * STEP, chosen / STEP) if l2 in tried)}
    unsure = {l2 for l2 in near if alone[l2][0] - alone[chosen][0] < 2 * np.sqrt(2) * spread}
    assert spread > 0.001
    best = min(unsure, key=lambda l2: loss(schedule, *towers[l2]))
    assert schedule.config.first_table_l2 == best
    assert sorted(loss(schedule, tower) for tower in found.all) == pytest.approx(sorted(alone[best]), abs=1e-6)
    assert {record["table_l2"] for record in schedule.history if "table_l2" in record} == {best}
    assert trained(tmp_path / "search", "tower_c") == unsure  # of the others one tower was enough


def trained(store: Path, tower: str) -> set[float]:
    """The L2 that a tower was trained under."""
    shown = [float(path.stem.split("_")[2]) for path in store.glob(f"{tower}_*")]
    return {USUAL_L2 * STEP ** round(math.log(l2 / USUAL_L2, STEP)) for l2 in shown}


def given(where: Path, seed: int, l2: float) -> list[Tower]:
    """Four towers under a given L2, from a schedule that searches for nothing."""
    schedule = toy(where, 2, seed=seed, table_l2=l2)
    with torch.random.fork_rng():
        found = [schedule.gated_tower(), schedule.tower("tower_b", 1)]
        return found + [schedule.tower(name, FIRST + i) for i, name in enumerate(("tower_c", "tower_d"))]
