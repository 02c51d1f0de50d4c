"""Towers that only teach: trained as the others are, kept with the pair, left out where they do harm."""

from __future__ import annotations

import math
import re
import shutil
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
from training.paired import gain
from training.phases.checkpoint import CheckpointStore
from training.towers.council import ALONE, FIRST, with_council
from training.towers.schedule import Schedule
from training.towers.table_prior import STEP
from training.train_config import USUAL_L2, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

VALID = clicks(400, seed=50)


@pytest.fixture(scope="module")
def trained_for(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Epochs -> a directory with four towers, trained once: they know nothing of what becomes of them."""
    found = {epochs: tmp_path_factory.mktemp("towers") for epochs in (6, 12)}
    for epochs, where in found.items():
        with torch.random.fork_rng():
            four(toy(where, 2, epochs=epochs))
    return found


def four(schedule: Schedule) -> list[Tower]:
    """A pair's towers and two further ones, as a schedule trains them."""
    found = [schedule.gated_tower(), schedule.tower("tower_b", 1)]
    return found + [schedule.tower(name, FIRST + i) for i, name in enumerate(("tower_c", "tower_d"))]


def toy(
    where: Path,
    council: int,
    told: list[str] | None = None,
    seed: int = 1,
    after: dict[int, Path] | None = None,
    **train: Any,
) -> Schedule:
    if after is not None:
        shutil.copytree(after[train.get("epochs", 6)], where, dirs_exist_ok=True)

    def progress(phase: str, done: int, total: int, _note: str) -> None:
        if told is not None and phase not in told:
            told.append(phase)

    torch.set_num_threads(1)
    return Schedule(
        SLOTS,
        clicks(1000),
        VALID,
        dtf=DtfConfig(widths=(8, 6), council=council),
        config=TrainConfig(
            **{
                "batch_size": 64,
                "epochs": 6,
                "rate": 3e-3,
                "table_l2": 1.0,
                "half_scale_at": 0.0,
                "device": "cpu",
                **train,
            }
        ),
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


def best_of(schedule: Schedule, towers: Iterable[Tower]) -> tuple[float, list[Tower]]:
    """As many of the ranked towers, two at least, as fewer are not clearly better than; and what their mean loses."""
    ranked = sorted(towers, key=lambda tower: loss(schedule, tower))
    said = np.cumsum([schedule.tower_logits(tower) for tower in ranked], axis=0)
    losses = {count: loss(schedule, *ranked[:count]) for count in range(2, len(ranked) + 1)}
    best = min(losses, key=losses.__getitem__)
    held = [
        count
        for count in losses
        if not gain("scaled_log_loss", VALID, said[best - 1] / best, said[count - 1] / count).clear()
    ]
    return losses[max(held)], ranked[: max(held)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_towers_are_ranked_the_first_ones_teach_and_are_told_of_by_rank(seed: int, tmp_path: Path) -> None:
    told: list[str] = []
    schedule = toy(tmp_path, 2, told, seed=seed)
    with torch.random.fork_rng():
        found = with_council(schedule, TowerPair(schedule.tower("tower_a", 0), schedule.tower("tower_b", 1)))
        teacher = schedule.teacher(found)
    assert told == ["tower_a", "tower_b", "tower_c", "tower_d"]
    losses = [loss(schedule, tower) for tower in found.all]
    assert losses == sorted(set(losses))
    assert teacher.towers == list(found.all)
    for name, expected in zip(told, losses, strict=False):
        records = [record for record in schedule.history if record["phase"] == name]
        assert min(record[f"{name}.scaled_log_loss"] for record in records) == pytest.approx(expected, abs=1e-5)
        assert not any(f"{other}.auc" in record for other in told if other != name for record in records)


def test_a_council_changes_the_fused_model_and_not_its_size(trained_for: dict[int, Path], tmp_path: Path) -> None:
    alone, taught = (run(toy(tmp_path / str(further), further, after=trained_for)) for further in (0, 2))
    assert [record["phase"] for record in taught.history if record["step"] == 0][-1] == "fusion"
    assert not same(alone.form, taught.form)
    assert [table.shape for table in alone.form.tables] == [table.shape for table in taught.form.tables]


def test_what_a_council_was_trained_to_is_taken_up_and_not_trained_again(tmp_path: Path) -> None:
    first = run(toy(tmp_path, 2))
    for path in tmp_path.glob("fusion*"):
        path.unlink()
    told: list[str] = []
    again = run(toy(tmp_path, 2, told))
    assert told == ["fusion"]
    assert again.history == first.history
    assert same(again.form, first.form)


def test_a_council_is_kept_with_the_pair_and_goes_on_when_that_is_trained_on(
    trained_for: dict[int, Path], tmp_path: Path
) -> None:
    schedule = toy(tmp_path / "first", 2, after=trained_for)
    with torch.random.fork_rng():
        a, b, *council = four(schedule)
        pair = TowerPair(a, b, council)
        save_model(tmp_path, schedule.fusion(pair))
    save_pair(tmp_path, pair)
    back = load_pair(tmp_path)
    assert [same(one, other) for one, other in zip(back.all, pair.all, strict=True)] == [True] * 4
    told: list[str] = []
    on = run(toy(tmp_path / "on", 0, told, epochs=1), back)  # as many as the earlier run had
    assert told == ["tower_a", "tower_b", "tower_c", "tower_d", "fusion"]
    assert len(on.pair.council) == 2
    for before, after in zip(council, on.pair.council, strict=True):
        assert not same(before, after)
        moved, size = (torch.dist(before.tables[0], table).item() for table in (after.tables[0], torch.zeros(1)))
        assert moved < 0.5 * size  # went on, was not begun anew


@pytest.mark.parametrize("spoilt", ["", "d", "c", "cd", "bcd", "acd"])
def test_as_many_of_the_best_towers_teach_as_do_no_harm(
    spoilt: str, trained_for: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = toy(tmp_path, 2, after=trained_for, epochs=12)
    train = schedule.tower
    towers: dict[str, Tower] = {}

    def tower(name: str, number: int, **how: Any) -> Tower:
        towers[name[-1]] = train(name, number, **how)
        if name[-1] in spoilt:
            scramble(towers[name[-1]])
        return towers[name[-1]]

    monkeypatch.setattr(schedule, "tower", tower)
    with torch.random.fork_rng():
        found = with_council(schedule, TowerPair(tower("tower_a", 0), tower("tower_b", 1)))
    ranked = sorted(towers, key=lambda name: loss(schedule, towers[name]))
    assert set(ranked[len(ranked) - len(spoilt) :]) == set(spoilt)
    _, teachers = best_of(schedule, towers.values())
    best = len(teachers)
    if len(spoilt) == 3:  # no other is of use
        best = 1
        assert schedule.notes == [ALONE.format(towers=4)]
        assert same(found.a, found.b)
        assert found.a is not found.b
        assert found.council == ()
    else:
        assert list(found.all) == teachers
    # What is told is of those that teach, by rank.
    phases = [record["phase"] for record in schedule.history if record["step"] == 0]
    assert phases == ["tower_a", "tower_b", "tower_c", "tower_d"][:best]


def test_a_tower_that_is_left_out_for_good_reason_is_told_of(
    trained_for: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = toy(tmp_path, 2, after=trained_for, epochs=12)
    train = schedule.tower

    def tower(name: str, number: int, **how: Any) -> Tower:
        found = train(name, number, **how)
        if name == "tower_d":
            with torch.no_grad():  # the order of rows the wrong way round
                found.body.output.weight.mul_(-9.0)
                found.body.quadratic.mul_(-9.0)
        return found

    monkeypatch.setattr(schedule, "tower", tower)
    with torch.random.fork_rng():
        found = with_council(schedule, TowerPair(tower("tower_a", 0), tower("tower_b", 1)))
    (note,) = schedule.notes
    left, worse, better = re.fullmatch(
        r"(\d) of 4 towers made the others' mean worse on validation \((\S+) for (\S+)\)", note
    ).groups()  # type: ignore[union-attr]
    assert int(left) == 4 - len(found.all)
    assert float(better) == pytest.approx(loss(schedule, *found.all), abs=1e-4)
    assert float(worse) > float(better)


@pytest.mark.parametrize("seed", [1])
def test_where_one_tower_cannot_tell_which_l2_is_better_four_decide(seed: int, tmp_path: Path) -> None:
    schedule = toy(tmp_path / "search", 2, seed=seed, table_l2=None)
    with torch.random.fork_rng():
        pair = schedule.search.pair()
        chosen = schedule.config.first_table_l2
        found = with_council(schedule, pair)
    tried = trained(tmp_path / "search", "tower_a")
    near = {chosen, *(l2 for l2 in (chosen * STEP, chosen / STEP) if l2 in tried)}
    towers = {l2: given(tmp_path / str(l2), seed, l2) for l2 in near}
    alone = {l2: [loss(schedule, tower) for tower in some] for l2, some in towers.items()}
    spread = np.std([loss(schedule, tower) for tower in best_of(schedule, towers[chosen])[1]], ddof=1)
    unsure = {l2 for l2 in near if alone[l2][0] - alone[chosen][0] < 2 * np.sqrt(2) * spread}
    assert spread > 0.001
    means = {l2: best_of(schedule, towers[l2]) for l2 in unsure}
    best = min(unsure, key=lambda l2: means[l2][0])
    assert schedule.config.first_table_l2 == best
    expected = [loss(schedule, tower) for tower in means[best][1]]
    assert [loss(schedule, tower) for tower in found.all] == pytest.approx(expected, abs=1e-6)
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
        return four(schedule)
