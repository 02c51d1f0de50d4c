"""Towers that begin as logistic regression: the same logits, and only where the regression is ahead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny
import torch
from model_toys import SLOTS, some_ids
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from training.baseline import fit_yardstick
from training.config import load_config
from training.dtf import DtfConfig
from training.loader import PreparedData
from training.loop import train_reaction
from training.models.base import slot_ids
from training.models.reaction import Tower, TowerPair
from training.phases.checkpoint import CheckpointStore
from training.prepare import prepare
from training.towers.alignment import build_fusion_form, count_ids
from training.towers.linear_start import Linear, Yardstick, begin_linear, fit_linear
from training.towers.recovery import recovered
from training.towers.schedule import Schedule
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 600
C = 0.5


def quiet(*_: object) -> None:
    """Tell nobody."""


@pytest.fixture(scope="module")
def split() -> Any:
    context, candidate = some_ids(ROWS, seed=3)
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 1.5, 100)[context[:, 0].numpy()] + rng.normal(0, 1.5, 100)[candidate[:, 0].numpy()]
    label = (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
    return SimpleNamespace(
        context_ids=context.numpy(), candidate_ids=candidate.numpy(), label=label, weight=None, group=None
    )


def design(split: Any) -> np.ndarray:
    """The regression's matrix, value by value."""
    sides = [torch.from_numpy(split.context_ids), torch.from_numpy(split.candidate_ids)]
    blocks = []
    for slot in SLOTS:
        block = np.zeros((ROWS, slot.rows))
        for row, ids in enumerate(slot_ids(slot, *sides).tolist()):
            used = [i for i in ids if i != slot.pad_id]
            for i in used:
                block[row, i] += 1.0 / len(used) if slot.pooling == "mean" else 1.0
        blocks.append(block)
    return np.concatenate(blocks, axis=1)


def logits(model: Any, split: Any) -> np.ndarray:
    """In evaluation, the norms' statistics those of all rows."""
    sides = [torch.from_numpy(split.context_ids), torch.from_numpy(split.candidate_ids)]
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        model.train()(*sides)
        return model.eval()(*sides).numpy()


def begun(split: Any, linear: Linear, seed: int) -> Tower:
    torch.manual_seed(seed)
    tower = Tower(SLOTS, (6, 5, 4), table_scale=0.05)
    begin_linear(tower, linear, split, table_l2=300.0, seed=1)
    return tower


def test_the_regression_is_that_of_a_reference_on_what_towers_see(split: Any) -> None:
    linear = fit_linear(SLOTS, split, C, seed=1)
    x = design(split)
    reference = LogisticRegression(C=C, tol=1e-8, max_iter=10_000).fit(x, split.label)
    found = x @ np.concatenate(linear.weights) + linear.bias
    assert np.abs(found - reference.decision_function(x)).max() < 0.15  # the intercept is regularised too
    assert np.corrcoef(found, reference.decision_function(x))[0, 1] > 0.999


def test_a_begun_tower_gives_the_regressions_logits(split: Any) -> None:
    linear = fit_linear(SLOTS, split, C, seed=1)
    expected = design(split) @ np.concatenate(linear.weights) + linear.bias
    # Within what a batch norm's two estimates of a variance differ by, a layer: 1 / 2N of the deviation.
    assert np.allclose(logits(begun(split, linear, 0), split), expected, rtol=3 / ROWS, atol=2e-3)


def test_the_fusion_form_of_two_begun_towers_gives_them_too(split: Any) -> None:
    linear = fit_linear(SLOTS, split, C, seed=1)
    towers = [begun(split, linear, seed) for seed in (0, 1)]
    expected = logits(towers[0], split)
    logits(towers[1], split)
    sides = [torch.from_numpy(ids).long() for ids in (split.context_ids, split.candidate_ids)]
    form = build_fusion_form(TowerPair(*towers), SLOTS, count_ids(SLOTS, split), *sides)
    assert np.allclose(logits(form, split), expected, rtol=3 / ROWS, atol=2e-3)


def test_a_fresh_tower_begins_with_the_regressions_scores(split: Any, tmp_path: Path) -> None:
    linear = fit_linear(SLOTS, split, C, seed=1)
    expected = design(split) @ np.concatenate(linear.weights) + linear.bias
    schedule = toy(split, tmp_path, Yardstick(C, expected))
    assert np.allclose(schedule.tower_logits(schedule.fresh(0, linear)), expected, rtol=3 / ROWS, atol=2e-3)


def toy(split: Any, where: Path, yardstick: Yardstick, **more: Any) -> Schedule:
    """A schedule whose validation rows are those of training."""
    return Schedule(
        SLOTS,
        split,
        split,
        dtf=DtfConfig(widths=(6, 5), council=0),
        config=TrainConfig(batch_size=64, epochs=2, table_l2=300.0, half_scale_at=0.0, device="cpu"),
        seed=1,
        store=CheckpointStore(where, "toy", resume=False),
        progress=quiet,
        yardstick=yardstick,
        **more,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny log, its sets summed up as the yardstick does."""
    where = tmp_path_factory.mktemp("summed")
    summed = tiny.EXPERIMENT.replace("max_values = 2", 'max_values = 2\npooling = "sum"')
    config = load_config(tiny.write_experiment(where, summed))
    prepare(config.data, base=where, seed=config.seed, name=config.name, out=where / "data")
    return where


def loss_of(yardstick: Yardstick, split: Any) -> float:
    return float(sk.log_loss(split.label, 1 / (1 + np.exp(-yardstick.logits)), sample_weight=split.weight))


RANDOM = {"rate": 1e-6, "table_rate": 1e-6}
"""Rates at which towers stay what they were: those of random weights end behind a regression."""


@pytest.mark.parametrize("below", [0.0, 1e9])
def test_a_training_whose_towers_learn_nothing_ends_at_least_as_good_as_its_yardstick(
    below: float, home: Path, tmp_path: Path
) -> None:
    data, config = PreparedData.open(home / "data"), load_config(home / "exp.toml")
    known = fit_yardstick(data, config.seed)
    train = config.train.model_copy(update={**RANDOM, "table_l2": 300.0, "epochs": 1})
    afe = config.afe.model_copy(update={"share_below": below, "filter": False, "gates": False})
    dtf = config.dtf.model_copy(update={"council": 2})
    config = config.model_copy(update={"train": train, "afe": afe, "dtf": dtf})
    first = train_reaction(data, config, tmp_path, resume=False, progress=quiet, yardstick=known)
    starts = [record for record in first.history if record["step"] == 0]
    assert [record["phase"] for record in starts] == ["tower_a", "tower_b", "fusion"]
    bound = loss_of(known, data.split("valid"))
    assert starts[0]["tower_a.log_loss"] == pytest.approx(bound, abs=1e-3)
    assert first.metrics["validation"]["fused"]["log_loss"] <= bound + 1e-4  # of norms' estimates
    assert first.pair.council == ()  # towers that begin alike have nothing to add
    assert first.share_below == 0.0  # the yardstick's rows are not shared
    assert any("logistic regression" in note for note in first.notes)
    for path in tmp_path.glob("fusion*"):
        path.unlink()
    again = train_reaction(data, config, tmp_path, resume=True, progress=quiet, yardstick=known)
    assert (again.history, again.metrics, again.notes) == (first.history, first.metrics, first.notes)


def test_a_fused_model_behind_its_yardstick_is_trained_again_from_it(split: Any, tmp_path: Path) -> None:
    linear = fit_linear(SLOTS, split, C, seed=1)
    yardstick = Yardstick(C, design(split) @ np.concatenate(linear.weights) + linear.bias)
    schedule = toy(split, tmp_path, yardstick, share_below=0.0)
    with torch.random.fork_rng():
        torch.set_num_threads(1)
        pair = TowerPair(schedule.fresh(0), schedule.fresh(1))
        untrained = schedule.beginning(pair, "towers")
        _, form = recovered(schedule, pair, untrained)
    assert loss_of(Yardstick(C, schedule.form_logits(form)), split) <= loss_of(yardstick, split)
    assert "fused model ended behind" in schedule.notes[-1]


def test_what_is_ahead_of_its_yardstick_is_left_alone(split: Any, tmp_path: Path) -> None:
    hopeless = Yardstick(C, np.full(ROWS, 5.0))
    schedule = toy(split, tmp_path, hopeless)
    with torch.random.fork_rng():
        result = schedule.run()
    assert result.notes == ()
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["fusion", "fusion_afresh", "tower_a", "tower_b"]
