"""Phases of training: their order, early stopping, the order of rows, and what a lost loss says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from model_toys import SLOTS, Arrays, bank_of, clicks

from training.dtf import (
    DtfConfig,
    TowerLearner,
    cross_entropy,
)
from training.metrics import auc
from training.models.reaction import Tower, TowerPair
from training.phases.checkpoint import CheckpointStore
from training.phases.learner import Rows
from training.phases.optim import AdamSettings
from training.phases.phase import UNKNOWING, NonFiniteLossError, Phase, PhaseSettings
from training.towers.schedule import Schedule
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from training.towers.result import DtfResult


WIDTHS = (8, 6)
CPU = torch.device("cpu")


class Recorder:
    """Keeps what the progress was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, int, str]] = []

    def __call__(self, phase: str, done: int, total: int, note: str) -> None:
        self.told.append((phase, done, total, note))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[DtfResult, Recorder, Path, TowerPair]:
    """A whole schedule on 3,000 rows."""
    torch.set_num_threads(1)
    where, told = tmp_path_factory.mktemp("phases"), Recorder()
    schedule = Schedule(
        SLOTS,
        clicks(3000),
        clicks(800, seed=50),
        dtf=DtfConfig(widths=(16, 8)),
        config=TrainConfig(batch_size=128, epochs=12, table_l2=10.0, half_scale_at=0.0, rate=3e-3, device="cpu"),
        seed=1,
        store=CheckpointStore(where, "toy", resume=False),
        progress=told,
    )
    with torch.random.fork_rng():
        result = schedule.run()
    return result, told, where, result.pair


def test_a_pair_that_was_saved_goes_on_under_the_configured_dropout(tmp_path: Path) -> None:
    pair = TowerPair(Tower(SLOTS, WIDTHS), Tower(SLOTS, WIDTHS))  # as a run's file gives it: without dropout
    schedule = Schedule(
        SLOTS,
        clicks(300),
        clicks(100, seed=50),
        dtf=DtfConfig(widths=WIDTHS),
        config=TrainConfig(batch_size=64, epochs=1, dropout=0.25, half_scale_at=0.0, device="cpu"),
        seed=1,
        store=CheckpointStore(tmp_path, "toy", resume=False),
        progress=Recorder(),
    )
    with torch.random.fork_rng():
        result = schedule.run(pair)
    assert [tower.dropout for tower in (result.pair.a, result.pair.b)] == [0.25, 0.25]


def test_every_phase_runs_in_order_and_reports_its_end(trained: tuple[DtfResult, Recorder, Path, TowerPair]) -> None:
    result, told, where, _ = trained
    phases = list(dict.fromkeys(record["phase"] for record in result.history))
    towers = ["tower_a", "tower_b", "tower_c", "tower_d"]
    assert phases == [*towers[: len(result.pair.all)], "fusion"]
    for phase in phases:
        last = [t for t in told.told if t[0] == phase][-1]
        assert last[1] == last[2]
        assert "AUC" in last[3]
    assert sorted(path.stem for path in where.glob("*")) == ["fusion", "fusion_afresh", *towers]


def test_towers_of_different_seeds_differ_and_both_find_the_parity(
    trained: tuple[DtfResult, Recorder, Path, TowerPair],
) -> None:
    result, _, _, pair = trained
    held = clicks(2000, seed=99)
    context, candidate = torch.from_numpy(held.context_ids), torch.from_numpy(held.candidate_ids)
    with torch.no_grad():
        a, b = pair.both(context, candidate)
        fused = result.form(context, candidate)
    assert not torch.allclose(a, b, atol=1e-2)
    first = {r["phase"]: list(r.values())[-1] for r in reversed(result.history)}
    assert first["tower_a"] != first["tower_b"]
    truth = 2.0 * ((held.context_ids[:, 0] + held.candidate_ids[:, 3]) % 2) + 0.8 * (
        held.candidate_ids[:, :3] == 4
    ).any(1)
    best = auc(held.label, truth)
    for logits in (a, b, 0.5 * (a + b), fused):
        assert auc(held.label, logits.numpy()) > best - 0.02


def test_no_phase_ends_worse_than_it_began(trained: tuple[DtfResult, Recorder, Path, TowerPair]) -> None:
    result, *_ = trained
    for phase, name in (("tower_a", "tower_a"), ("fusion", "fused")):
        losses = [r[f"{name}.log_loss"] for r in result.history if r["phase"] == phase]
        assert min(losses) <= losses[0]


def phase_of(arrays: Arrays, **changes: object) -> Phase:
    torch.manual_seed(0)
    tower = Tower(SLOTS, WIDTHS)
    settings = {
        "name": "tower_a",
        "seed": 3,
        "batch_size": 64,
        "epochs": 3,
        "evaluations": 2,
        "patience": 3,
        "rate": 1e-3,
        "table_rate": 1e-2,
        "monitor": "log_loss",
        "dense": AdamSettings(),
    }
    learner = TowerLearner("tower_a", tower, bank_of(tower))
    return Phase(learner, Rows(arrays, CPU), Rows(clicks(300, 7), CPU), PhaseSettings(**{**settings, **changes}))


def quiet(*_: object) -> None:
    """Tell nobody."""


def test_a_phase_stops_after_its_patience_and_keeps_its_best_averaged_weights() -> None:
    # Labels that follow from nothing: validation can only get worse once noise is learnt.
    arrays = clicks(600)
    noise = Arrays(arrays.context_ids, arrays.candidate_ids, np.random.default_rng(1).permutation(arrays.label))
    phase = phase_of(noise, epochs=60, patience=4, rate=1e-2)
    with torch.random.fork_rng():
        history = phase.run(quiet, quiet)
    losses = [record["tower_a.log_loss"] for record in history]
    best = int(np.argmin(losses))
    # Evaluations of an order that is no better than chance do not count, for a while.
    counted = [record["tower_a.auc"] > 0.5 or i >= UNKNOWING * 4 for i, record in enumerate(history)]
    assert sum(counted[best + 1 :]) == 4
    assert counted[-1]
    with torch.no_grad():
        valid = clicks(300, 7)
        tower = phase.learner.module
        logits = tower(torch.from_numpy(valid.context_ids), torch.from_numpy(valid.candidate_ids))
    again = cross_entropy(logits, torch.from_numpy(valid.label).float(), None)
    assert float(again) == pytest.approx(losses[best], abs=1e-5)


def test_weights_count_relative_to_each_other_only() -> None:
    arrays = clicks(50, weight=True)
    assert arrays.weight is not None
    heavy = Arrays(arrays.context_ids, arrays.candidate_ids, arrays.label, 10.0 * arrays.weight)
    light, same = (Rows(a, CPU).batch(slice(0, 50)).weight for a in (arrays, heavy))
    assert light is not None
    assert same is not None
    assert float(light.mean()) == pytest.approx(1.0)
    assert torch.allclose(light, same)


def test_every_epoch_reads_every_row_once_in_an_order_of_its_own() -> None:
    phase = phase_of(clicks(130))
    orders = []
    for _ in range(2):
        rows = []
        for _ in range(phase.steps_an_epoch):
            rows.append(phase._index())
            phase.position.step += 1
        orders.append(np.concatenate(rows))
        assert sorted(orders[-1]) == list(range(130))
    assert orders[0].tolist() != orders[1].tolist()


def test_a_remainder_of_one_row_is_spread_over_the_batches() -> None:
    phase = phase_of(clicks(129))
    assert phase.steps_an_epoch == 3
    assert len(phase._index()) == 43


def test_a_loss_that_is_not_finite_names_phase_and_step() -> None:
    phase = phase_of(clicks(200))
    phase.learner.module.body.output.bias.data.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"'tower_a', step 1 \(epoch 1\): expected a finite loss, got nan"):
        phase._step()


@pytest.mark.parametrize("monitor", ["log_loss", "auc", "scaled_log_loss"])
def test_what_is_monitored_decides_what_is_best(monitor: str) -> None:
    phase = phase_of(clicks(800), monitor=monitor, epochs=4)
    with torch.random.fork_rng():
        history = phase.run(quiet, quiet)
    scores = [record[f"tower_a.{monitor}"] for record in history]
    best = max(scores) if monitor == "auc" else min(scores)
    assert history[[r["step"] for r in history].index(phase.position.best_step)][f"tower_a.{monitor}"] == best


def by_ad(rows: int, seed: int) -> Arrays:
    """Clicks that follow from the ad alone, which is learnt soon."""
    plain = clicks(rows, seed)
    chance = np.where(plain.candidate_ids[:, 3] % 2, 0.8, 0.2)
    label = np.random.default_rng(seed).random(rows) < chance
    return Arrays(plain.context_ids, plain.candidate_ids, label.astype(np.uint8))


@pytest.mark.parametrize("monitor", ["log_loss", "auc", "scaled_log_loss"])
def test_a_tower_whose_order_is_the_wrong_way_round_at_first_is_trained_until_it_is_not(monitor: str) -> None:
    class Backwards(TowerLearner):
        """Learns the opposite for a while: as random weights may say it, and longer than the patience."""

        steps = 0

        def loss(self, embedded: Any, batch: Any) -> Any:
            self.steps += 1
            label = 1.0 - batch.label if self.steps <= an_epoch else batch.label
            return super().loss(embedded, replace(batch, label=label))

    phase = phase_of(by_ad(800, 0), monitor=monitor, epochs=20, patience=4)
    phase.valid = Rows(by_ad(300, 7), CPU)
    an_epoch = phase.steps_an_epoch
    learner = phase.learner
    assert isinstance(learner, TowerLearner)
    phase.learner = Backwards("tower_a", learner.tower, learner.banks[0])
    with torch.random.fork_rng():
        history = phase.run(quiet, quiet)
    assert sum(record["tower_a.auc"] < 0.5 for record in history) > 4
    assert phase.position.best_step > 4 * an_epoch
    assert max(record["tower_a.auc"] for record in history) > 0.6


def test_a_phase_that_learns_nothing_but_the_wrong_order_ends_all_the_same() -> None:
    class Backwards(TowerLearner):
        def loss(self, embedded: Any, batch: Any) -> Any:
            return super().loss(embedded, replace(batch, label=1.0 - batch.label))

    phase = phase_of(clicks(400), monitor="scaled_log_loss", epochs=40, patience=1)
    assert isinstance(phase.learner, TowerLearner)
    phase.learner = Backwards("tower_a", phase.learner.tower, phase.learner.banks[0])
    with torch.random.fork_rng():
        history = phase.run(quiet, quiet)
    assert 2 < len(history) <= UNKNOWING + 3
