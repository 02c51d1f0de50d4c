"""The bench of defaults: tables with a known law, and a mark where logistic regression is ahead."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.defaults.__main__ import line
from benchmarks.defaults.measure import measure
from benchmarks.defaults.tables import TABLES, made

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("rate", [1e-3, 0.3, 0.9])
def test_labels_are_drawn_by_the_chances_that_are_told(rate: float) -> None:
    rng = np.random.default_rng(0)
    table = made(rng, {"a": np.arange(50_000) % 7}, rng.normal(0, 1, 50_000), rate=rate)
    assert table.chance is not None
    assert table.chance.mean() == pytest.approx(rate, rel=1e-6)
    error = (table.chance * (1 - table.chance)).mean() ** 0.5 / 50_000**0.5
    assert abs(table.label.mean() - rate) < 4 * error
    assert roc_auc_score(table.label, table.chance) > 0.6


@pytest.mark.parametrize("name", ["500 rows", "one field", "new values", "constant fields", "digits"])
def test_a_table_is_a_function_of_its_seed_and_its_splits_are_told_apart(name: str, tmp_path: Path) -> None:
    first, again = (TABLES[name](np.random.default_rng([1, 2])) for _ in range(2))
    assert all(np.array_equal(first.columns[key], again.columns[key]) for key in again.columns)
    config, known = first.write(tmp_path, 1)
    assert [field.name for field in config.fields] == list(first.columns)
    if first.chance is not None:
        assert sum(len(chances) for chances in known.values()) == len(first.label)


def test_a_table_is_measured_beside_the_baseline_and_the_best_possible_model_and_losses_are_marked(
    tmp_path: Path,
) -> None:
    found = measure("30 rows", 1, tmp_path, {"train.epochs": 2}, split="test")
    assert set(found.log_loss) == {"tower_a", "tower_b", "pair", "fused", "baseline", "best"}
    assert found.rows == 30
    ahead = dataclasses.replace(found, log_loss={**found.log_loss, "fused": 0.5, "baseline": 0.6})
    behind = dataclasses.replace(found, log_loss={**found.log_loss, "fused": 0.6, "baseline": 0.5})
    assert "WORSE" not in line("x", [ahead, ahead])
    assert "WORSE" in line("x", [behind, behind])
