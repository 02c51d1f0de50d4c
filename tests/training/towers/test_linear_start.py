"""Towers that begin as logistic regression: the same logits, and only where the regression is ahead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from model_toys import SLOTS, some_ids
from sklearn.linear_model import LogisticRegression

from training.baseline import fit_yardstick
from training.config import load_config
from training.loader import PreparedData
from training.loop import train_reaction
from training.models.base import slot_ids
from training.models.reaction import Tower, TowerPair
from training.towers.alignment import build_fusion_form, count_ids
from training.towers.linear_start import Linear, Yardstick, applies, begin_linear, fit_linear

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
    return SimpleNamespace(context_ids=context.numpy(), candidate_ids=candidate.numpy(), label=label, weight=None)


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


def test_towers_begin_anew_only_where_the_regression_is_ahead() -> None:
    yardstick = Yardstick(C=1.0, scores={"log_loss": 0.5, "auc": 0.7})
    assert applies(yardstick, 0.51, "log_loss", (8, 8))
    assert not applies(yardstick, 0.5, "log_loss", (8, 8))
    assert applies(yardstick, 0.69, "auc", (8, 8))
    assert not applies(yardstick, 0.71, "auc", (8, 8))
    assert not applies(yardstick, 0.51, "log_loss", (8, 1))
    assert not applies(None, 0.51, "log_loss", (8, 8))


def test_a_training_that_begins_linear_is_at_least_as_good_as_the_regression_and_resumes_bit_by_bit(
    tiny_home: Path, tmp_path: Path
) -> None:
    data, config = PreparedData.open(tiny_home / "data"), load_config(tiny_home / "exp.toml")
    known = fit_yardstick(data, config.seed)
    ahead = Yardstick(known.C, {"log_loss": 0.0, "auc": 1.0})
    first = train_reaction(data, config, tmp_path, resume=False, progress=quiet, yardstick=ahead)
    starts = [record for record in first.history if record["step"] == 0]
    assert [record["phase"] for record in starts] == ["tower_a", "tower_b", "fusion"]
    # All but the fields that AFE dropped say what they say in the yardstick.
    assert starts[0]["tower_a.log_loss"] == pytest.approx(known.scores["log_loss"], abs=0.02)
    assert first.metrics["validation"]["pair"]["log_loss"] <= starts[0]["tower_a.log_loss"]
    (tmp_path / "fusion.safetensors").unlink()
    again = train_reaction(data, config, tmp_path, resume=True, progress=quiet, yardstick=ahead)
    assert again.history == first.history
    assert again.metrics == first.metrics
