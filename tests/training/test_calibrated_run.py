"""A run whose logits were calibrated: what it records, shows and measures again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from training import train
from training.calibrating import Candidate, Choice
from training.calibration import Calibration, probability
from training.evaluate import evaluate_run
from training.field_selection.measures import Measures
from training.field_selection.selection import Selection
from training.loader import PreparedData
from training.loop import TrainingResult
from training.metrics import ece, log_loss
from training.models.files import load_pair
from training.reference import correct_for_sampling
from training.runs import Run, open_run

if TYPE_CHECKING:
    from pathlib import Path

CALIBRATION = Calibration((0.5, 2.0), (0.0,), 0.1)


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run measured and written anew, as if validation had asked for a calibration."""
    trained = open_run(tiny_home / "run")
    plain = {split: trained.metrics[split] for split in ("validation", "test")}
    result = TrainingResult(
        form=trained.form(),
        pair=load_pair(trained.path),
        selection=Selection.from_json(trained.selection),
        measures=Measures.from_json(trained.measures),
        history=trained.history(),
        metrics=plain,
        table_l2=300.0,
        half_scale_at=0.0,
        share_below=0.0,
        fusion_start="towers",
    )
    choice = Choice(CALIBRATION, 300, 0.69, {"piecewise": Candidate(0.67, 0.02, 0.005, kept=True)})
    out = tmp_path_factory.mktemp("calibrated") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "train_reaction", lambda *_, **__: result)
        patch.setattr(train, "choose", lambda *_, **__: choice)
        train.train_run(trained.config, tiny_home / "data", out, progress=lambda *_: None)
    return open_run(out)


def logits(run: Run, ids: tuple[np.ndarray, np.ndarray], *, serving: bool = False) -> np.ndarray:
    form = run.form()
    model = form.serving() if serving else form
    with torch.inference_mode():
        return model(*(torch.from_numpy(np.array(own)).long() for own in ids)).double().numpy()


def test_its_metrics_have_the_fused_model_before_and_after(run: Run, tiny_home: Path) -> None:
    assert run.calibration == CALIBRATION
    test = PreparedData.open(tiny_home / "data").split("test")
    z = logits(run, (test.context_ids, test.candidate_ids))
    bent = np.where(z < 0.0, 0.1 + 0.5 * z, 0.1 + 2.0 * z)
    before, after = run.metrics["test"]["fused"], run.metrics["test"]["calibrated"]
    assert after["log_loss"] == pytest.approx(log_loss(test.label, probability(bent), test.weight), rel=1e-6)
    assert after["ece"] == pytest.approx(ece(test.label, probability(bent), test.weight), rel=1e-4)
    assert after["log_loss"] != pytest.approx(before["log_loss"], rel=1e-3)
    for ranked in ("auc", "gauc", "ndcg@10"):
        assert after[ranked] == pytest.approx(before[ranked], abs=1e-12)
    assert run.metrics["calibration"]["kind"] == "piecewise"
    assert run.metrics["calibration"]["candidates"]["piecewise"]["gain"] == 0.02


def test_measured_again_it_is_the_same(run: Run, tiny_home: Path) -> None:
    found = evaluate_run(run, tiny_home / "data", "test")["models"]["calibrated"]
    assert found == pytest.approx(run.metrics["test"]["calibrated"])


def test_the_reference_holds_the_scores_that_are_served_and_the_sample_those_that_were_trained(run: Run) -> None:
    sample = run.validation()
    ids = (sample.context_ids, sample.candidate_ids)
    served = correct_for_sampling(probability(CALIBRATION(logits(run, ids, serving=True))), 0.5)
    assert run.reference["mean_score"] == pytest.approx(served.mean(), rel=1e-6)
    np.testing.assert_allclose(sample.pctr, probability(logits(run, ids)), atol=1e-6)


def test_the_page_shows_the_curve_before_and_after_and_what_test_said(run: Run) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    for words in ("As trained", "As served: calibrated", "piecewise +2.0e-02 ± 5.0e-03", "On test: log loss", "hold 1"):
        assert words in page
