"""The bench of defaults: tables with a known law, and a mark where logistic regression is ahead."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.accuracy.models import METHOD
from benchmarks.defaults import __main__ as door
from benchmarks.defaults.__main__ import finished, page, read
from benchmarks.defaults.measure import Measured, measure
from benchmarks.defaults.report import line
from benchmarks.defaults.tables import TABLES, made
from benchmarks.overrides import overrides


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the folder may be named relative to where one is
    found = measure("30 rows", 1, Path("work"), {"train.epochs": 2}, split="test")
    assert {"tower_a", "tower_b", "pair", "fused", "baseline", "best"} <= set(found.log_loss)
    assert found.rows == 30
    ahead = dataclasses.replace(found, log_loss={**found.log_loss, "fused": 0.5, "baseline": 0.6})
    behind = dataclasses.replace(found, log_loss={**found.log_loss, "fused": 0.6, "baseline": 0.5})
    assert "WORSE" not in line("x", [ahead, ahead])
    assert "WORSE" in line("x", [behind, behind])


def test_a_finished_run_is_a_line_that_is_not_run_again_and_the_page_is_of_the_newest_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_up(table: str, seed: int, _work: Path, changed: object, *, split: str) -> Measured:
        ran.append((table, seed, split, changed))
        losses = {"fused": 0.5 + (table == "noise"), "baseline": 0.6}
        return Measured(table, seed, 1000, 0.25, {"fused": 0.7, "baseline": 0.65}, losses, 1, 5000, {}, 12.0)

    ran: list[object] = []
    monkeypatch.setattr(door, "measure", made_up)
    ledger = tmp_path / "defaults.jsonl"
    plain = {"split": "test", "set": {}}
    asked = [
        ("noise", 1, {**plain, "method": METHOD}),
        ("noise", 2, {**plain, "method": METHOD}),
        ("numbers", 1, {**plain, "method": METHOD}),
        ("30 rows", 1, {**plain, "method": METHOD - 1}),
        ("one field", 1, {**plain, "set": {"train.rate": 0.1}, "method": METHOD}),
        ("digits", 1, {**plain, "split": "valid", "method": METHOD}),
    ]
    for _ in range(2):
        for table, seed, about in asked:
            finished(ledger, table, seed, tmp_path, about)
    assert len(ran) == len(read(ledger)) == len(asked)
    page(ledger)
    text = (tmp_path / "DEFAULTS.md").read_text()
    rows = [row.split(" | ")[0].strip("| ") for row in text.splitlines() if row.startswith("| ")]
    assert rows[2:] == ["numbers", "noise"]  # in the order of the tables; no older method, split or setting
    assert "Of 2 tables 1 are: noise." in text
    assert "+0.9000 ± 0.0000 **worse**" in text
    assert "Not measured by this method: 30 rows" in text


@pytest.mark.parametrize("text", ["train.rate", "train.rate=abc", "rate=1", ".x=1", "train.=1"])
def test_a_setting_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r'SECTION\.KEY=JSON.*got "' + text):
        overrides(["train.rate=1", text])
    assert overrides(["dtf.widths=[8, 8]", "afe.filter=false"]) == {"dtf.widths": [8, 8], "afe.filter": False}
