"""What is said of a model that does worse than the yardstick: at the end of a training and on the report."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import tiny

from training.pages.results import lost_to_baseline, warnings_of
from training.report import render_report
from training.runs import open_run

if TYPE_CHECKING:
    from pathlib import Path

UNTRAINED = "[train]\nrate = 1e-9\ntable_rate = 1e-9"
NARROW = "widths = [1, 1]"  # too narrow to begin as the regression


@pytest.mark.parametrize(
    ("auc", "log_loss", "lost"),
    [
        (0.8, 0.4, []),
        (0.7, 0.5, []),
        (0.6, 0.4, ["AUC 0.6000 against 0.7000"]),
        (0.8, 0.6, ["log loss 0.6000 against 0.5000"]),
        (0.6, 0.6, ["AUC 0.6000 against 0.7000", "log loss 0.6000 against 0.5000"]),
    ],
)
def test_only_what_is_worse_than_the_baseline_on_validation_is_said(
    auc: float, log_loss: float, lost: list[str]
) -> None:
    metrics = {
        "validation": {"fused": {"auc": auc, "log_loss": log_loss}},
        "test": {"fused": {"auc": 0.1, "log_loss": 9.0}},
        "baseline": {"validation": {"auc": 0.7, "log_loss": 0.5}, "test": {"auc": 0.7, "log_loss": 0.5}},
    }
    told = lost_to_baseline(metrics)
    assert bool(told) == bool(lost)
    for part in ("AUC", "log loss"):
        assert (part in told) == any(part in line for line in lost)
    for line in lost:
        assert line in told
    assert lost_to_baseline({"validation": metrics["validation"]}) == ""


def test_a_training_that_loses_to_its_baseline_warns_and_one_that_wins_does_not(
    tiny_home: Path, tmp_path: Path
) -> None:
    tiny.write_experiment(tmp_path, tiny.EXPERIMENT.replace("[train]", UNTRAINED).replace("widths = [8, 8]", NARROW))
    shutil.copytree(tiny_home / "data", tmp_path / "data")
    done = tiny.training_here("train", "exp.toml", "--data", "data", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = lost_to_baseline(open_run(tmp_path / "run").metrics)
    assert "AUC" in told
    assert f"warning: {told}\n" in done.stderr
    assert told in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")

    run = tmp_path / "winner"
    shutil.copytree(tiny_home / "run", run)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    metrics["notes"] = []
    metrics["validation"]["fused"] = {**metrics["baseline"]["validation"]}
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    assert 'class="warning"' not in render_report(open_run(run, verify=False))


def test_a_model_that_seems_to_have_read_the_label_is_warned_of() -> None:
    metrics = {"validation": {"fused": {"auc": 0.9995, "log_loss": 0.01}}, "notes": ["a note"]}
    note, told = warnings_of(metrics)
    assert note == "a note"
    assert told.startswith("AUC 0.9995 on validation is too good to be true")
    metrics["validation"]["fused"]["auc"] = 0.99
    assert warnings_of(metrics) == ["a note"]
