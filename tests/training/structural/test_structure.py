"""Curves of thinned models: intervals, the headline, what the commands and the pages show of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tiny
from test_pruning import planted, rows_of, tower_of

from training.metrics import auc
from training.pages.structural_views import headline
from training.runs import open_run
from training.structural import command as structural
from training.structural.pruning import nonzero
from training.structural.structure import (
    METHODS,
    SHARES,
    Measured,
    Point,
    Structure,
    measure_structure,
    resampled_auc,
    thinners,
)

if TYPE_CHECKING:
    from pathlib import Path


def point(left: float, change: float, low: float) -> Point:
    return Point(left, int(100 * left), change, low, 0.0, 0.0, 0.0, 0.0)


def test_auc_under_many_weightings_is_the_auc_under_each() -> None:
    rng = np.random.default_rng(1)
    label, score = rng.integers(0, 2, 300).astype(float), rng.integers(0, 40, 300).astype(float)
    weights = rng.integers(0, 4, (6, 300)) * rng.uniform(0.5, 2, 300)
    expected = [auc(label, score, weight) for weight in weights]
    np.testing.assert_allclose(resampled_auc(label, score, weights), expected)
    assert resampled_auc(np.ones(4), np.arange(4.0), np.ones((1, 4))).tolist() == [0.5]


def test_what_can_go_is_what_keeps_to_the_allowed_loss_up_to_there() -> None:
    curve = (point(1, 0, 0), point(0.8, -0.0005, -0.0009), point(0.5, 0.0002, -0.0011), point(0.3, -0.002, -0.003))
    again = (*curve, point(0.2, -0.0001, -0.0002))
    structure = Structure((4, 3), 100, 10, 10, 0.7, 0.5, {"rank": again, "units": curve[:2]})
    assert structure.removable("rank") == pytest.approx(0.5)
    assert structure.removable("rank", surely=True) == pytest.approx(0.2)
    assert structure.most_removable() == ("rank", pytest.approx(0.5))
    assert "50% of 100 dense parameters" in headline(structure)
    assert "20% with confidence" in headline(structure)
    assert Structure.from_json(json.loads(json.dumps(structure.as_json()))) == structure


def test_curves_are_those_of_the_thinned_models_and_stop_once_those_are_broken() -> None:
    tower = tower_of(9, (12, 32, 32, 1))
    known, valid = (Measured(*rows_of(tower, seed, 3000)) for seed in (0, 1))
    structure = measure_structure(tower, known, valid, resamples=20)
    assert tuple(structure.curves) == tuple(METHODS)
    assert structure.auc == pytest.approx(auc(valid.label, tower.logits(valid.x)))
    for method, curve in structure.curves.items():
        assert [found.left for found in curve] == sorted((found.left for found in curve), reverse=True)
        assert curve[0] == Point(1.0, tower.parameters, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        assert min(found.auc_change for found in curve[:-1]) > -0.05
        thin, parameters = thinners(tower, known)[method](int(SHARES[0] * tower.parameters))
        found = next(found for found in curve if found.parameters == parameters)
        assert found.auc_change == pytest.approx(auc(valid.label, thin.logits(valid.x)) - structure.auc)
        assert found.auc_low <= found.auc_high
        if method.startswith("magnitude"):
            assert parameters == nonzero(thin)
        # The boundary is found more finely than the first shares are apart.
        assert any(abs(found.left - 1 + structure.removable(method)) < 0.02 for found in curve)


def test_planted_redundancy_can_all_go() -> None:
    tower, _ = planted()
    known, valid = (Measured(*rows_of(tower, seed, 4000)) for seed in (0, 1))
    structure = measure_structure(tower, known, valid, resamples=10)
    # 5 of 20 first and 2 of 14 second units go for free: 12 + 1 + 14 parameters each, then 15 + 1 + 1.
    free = 5 * (12 + 1 + 14) + 2 * (15 + 1 + 1)
    assert structure.removable("units") * tower.parameters >= free - 27
    assert structure.removable("magnitude") * tower.parameters >= 3 * 12 + 14 + 14


def test_resamples_are_of_whole_groups_and_paired() -> None:
    tower = tower_of(10)
    known = Measured(*rows_of(tower, 0, 1000))
    x, label = rows_of(tower, 1, 500)
    copies = Measured(np.repeat(x, 20, axis=0), np.repeat(label, 20), None, np.repeat(np.arange(500), 20))
    widths = []
    for valid in (copies, Measured(copies.x, copies.label)):
        curve = measure_structure(tower, known, valid, shares=[0.5], resamples=60).curves["rank"]
        widths.append(curve[-1].auc_high - curve[-1].auc_low)
    # Twenty copies of a row are one piece of evidence: by rows, the interval would be too narrow by sqrt(20).
    assert widths[0] / widths[1] == pytest.approx(20**0.5, rel=0.4)


def test_a_run_holds_the_curves_of_its_fused_model_and_its_page_shows_them(tiny_home: Path) -> None:
    run = open_run(tiny_home / "run")
    assert run.structure is not None
    structure = Structure.from_json(run.structure)
    form = run.form()
    assert structure.widths == (sum(slot.dim for slot in form.slots), 8, 8)
    assert structure.auc == pytest.approx(run.metrics["validation"]["fused"]["auc"], abs=1e-6)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "What the dense layers can lose" in page
    assert headline(structure) in page
    shown = tiny.training_here("analyze-structure", "run", "--json", cwd=tiny_home)
    assert shown.returncode == 0, shown.stderr
    assert Structure.from_json(json.loads(shown.stdout)["models"]["fused"]) == structure


def test_a_plain_tower_is_trained_and_thinned_beside_it(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structural, "PLAIN_WIDTHS", (24, 24, 24))
    page = tmp_path / "layers.html"
    arguments = ["analyze-structure", "run", "--data", "data", "--baseline", "--page", page]
    done = tiny.training_here(*arguments, cwd=tiny_home)
    assert done.returncode == 0, done.stderr
    for word in ("Fused", "Plain tower", "singular values", "24-24-24", "can go at a loss of at most 0.001 AUC"):
        assert word in " ".join(done.stdout.split())
    text = page.read_text(encoding="utf-8")
    assert "At the same size" in text
    assert text.count("<svg") == 5
    assert "http" not in text


def test_a_training_may_train_a_plain_tower_too_and_its_page_shows_both(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structural, "PLAIN_WIDTHS", (24, 24, 24))
    done = tiny.training_here(
        "train", "exp.toml", "--data", "data", "--out", tmp_path / "run", "--plain-tower", cwd=tiny_home
    )
    assert done.returncode == 0, done.stderr
    run = open_run(tmp_path / "run")
    assert run.plain_structure is not None
    plain, fused = Structure.from_json(run.plain_structure), Structure.from_json(run.structure or {})
    assert plain.widths[1:] == (24, 24, 24)
    page = (run.path / "report.html").read_text(encoding="utf-8").partition("What the dense layers can lose")[2]
    page = page.partition("</section>")[0]
    assert page.count("<svg") == 5
    for structure in (plain, fused):
        assert headline(structure) in page
    before = open_run(tiny_home / "run")  # without one, the same model
    assert before.plain_structure is None
    assert before.metrics["test"]["fused"] == run.metrics["test"]["fused"]


def test_data_of_another_run_or_none_at_all_is_refused(tiny_home: Path, tmp_path: Path) -> None:
    done = tiny.training_here("analyze-structure", "run", "--baseline", cwd=tiny_home)
    assert done.returncode == 2
    assert "expected --data" in done.stderr
    tiny.write_experiment(tmp_path, log=tiny.rows(seed=5))
    tiny.training_here("prepare", "exp.toml", "--out", "data", cwd=tmp_path)
    done = tiny.training_here("analyze-structure", tiny_home / "run", "--data", "data", cwd=tmp_path)
    assert done.returncode == 2
    assert "data digest: expected" in done.stderr
