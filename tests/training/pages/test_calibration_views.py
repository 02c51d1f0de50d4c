"""What the report says about calibration, against counts by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import binom

from service.features import CategoricalField, FeatureEncoder, HashedVocabulary, MultiValuedField, Vocabulary
from training.calibration import Calibration, probability
from training.loader import PreparedData
from training.pages.calibration_views import (
    FEWEST_ROWS,
    ValueRatio,
    calibration_sentence,
    served_probabilities,
    value_ratios,
    wilson,
)
from training.report import render_report
from training.runs import Run, ValidationSample, open_run

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = (CategoricalField("user", "context"), MultiValuedField("tags", "candidate", max_values=2))


def made() -> tuple[ValidationSample, FeatureEncoder, np.ndarray]:
    generator = np.random.default_rng(0)
    vocabularies = {"user": Vocabulary(["a", "b", "c"]), "tags": Vocabulary(["x", "y"], reserved=3)}
    rows = 2_000
    user = generator.choice([0, 2, 3, 4], size=(rows, 1), p=[0.2, 0.5, 0.28, 0.02]).astype(np.int32)
    tags = generator.choice([2, 3, 4], size=(rows, 2)).astype(np.int32)
    pctr = generator.random(rows)
    label = (generator.random(rows) < pctr).astype(np.uint8)
    weight = generator.integers(1, 3, rows).astype(np.float32)
    sample = ValidationSample(user, tags, label, pctr.astype(np.float32), weight)
    return sample, FeatureEncoder(FIELDS, vocabularies), pctr


def test_every_frequent_value_has_its_mean_prediction_its_share_of_clicks_and_their_ratio() -> None:
    sample, encoder, pctr = made()
    assert sample.weight is not None
    found = {(one.field, one.value): one for one in value_ratios(sample, pctr, encoder, ["user", "tags"])}
    assert set(found) == {("user", "(missing)"), ("user", "a"), ("user", "b"), ("tags", "x"), ("tags", "y")}
    for field, value, ids, number in (
        ("user", "(missing)", sample.context_ids, 0),
        ("user", "b", sample.context_ids, 3),
        ("tags", "y", sample.candidate_ids, 4),
    ):
        rows = [n for n in range(len(pctr)) if number in ids[n]]
        assert len(rows) >= FEWEST_ROWS
        mass = float(sum(sample.weight[n] for n in rows))
        predicted = sum(sample.weight[n] * pctr[n] for n in rows) / mass
        observed = sum(sample.weight[n] * float(sample.label[n]) for n in rows) / mass
        one = found[field, value]
        assert (one.rows, one.predicted, one.observed) == (len(rows), pytest.approx(predicted), pytest.approx(observed))
        assert one.ratio == pytest.approx(predicted / observed)
        assert one.low < one.ratio < one.high
    assert value_ratios(sample, pctr, encoder, ["user"])[0].field == "user"
    assert {one.field for one in value_ratios(sample, pctr, encoder, ["user"])} == {"user"}


def test_hashed_values_are_called_by_their_place() -> None:
    sample, encoder, pctr = made()
    hashed = FeatureEncoder(
        (CategoricalField("user", "context"), FIELDS[1]),
        {"user": HashedVocabulary(8), "tags": encoder.vocabulary("tags")},
    )
    assert "hashed to 3" in {one.value for one in value_ratios(sample, pctr, hashed, ["user"])}


@pytest.mark.parametrize(("share", "rows"), [(0.02, 400), (0.3, 150), (0.5, 2000), (0.97, 300)])
def test_the_interval_of_a_share_covers_it_about_19_times_in_20(share: float, rows: int) -> None:
    clicks = np.arange(rows + 1)
    covered = [low <= share <= high for low, high in (wilson(k / rows, rows) for k in clicks)]
    assert binom.pmf(clicks, rows, share)[covered].sum() == pytest.approx(0.95, abs=0.02)
    assert wilson(0.0, rows)[0] == 0.0
    assert 0.0 < wilson(0.0, rows)[1] < 0.03


def test_nobody_clicked_is_a_ratio_without_an_end() -> None:
    sample, encoder, pctr = made()
    none = ValidationSample(sample.context_ids, sample.candidate_ids, np.zeros_like(sample.label), sample.pctr)
    for one in value_ratios(none, pctr, encoder, ["user"]):
        assert (one.ratio, one.high) == (float("inf"), float("inf"))
        assert 1.0 < one.low < float("inf")
        assert not one.fits


def test_probabilities_are_calibrated_by_their_logits() -> None:
    calibration = Calibration((0.5, 2.0), (0.1,), -0.2)
    logits = np.linspace(-8, 8, 41)
    found = served_probabilities(probability(logits).astype(np.float32), calibration)
    np.testing.assert_allclose(found, probability(calibration(logits)), atol=1e-4)


def test_the_sentence_names_what_was_tried_and_what_it_did_on_test() -> None:
    tried = SimpleNamespace(affine={"gain": 8.3e-4, "error": 2.8e-4, "log_loss": 0.4, "kept": True})
    metrics = {
        "test": {"fused": {"log_loss": 0.39, "ece": 0.0149}, "calibrated": {"log_loss": 0.3892, "ece": 0.0084}},
        "calibration": {"kind": "affine", "rows": 10, "log_loss": 0.4, "why": "", "candidates": vars(tried)},
    }
    assert calibration_sentence(metrics) == (
        "Calibration: affine; cross-fitted gain of validation log loss: affine +8.3e-04 ± 2.8e-04. "
        "On test: log loss 0.3900 to 0.3892, ECE 0.0149 to 0.0084."
    )
    alike = {"calibration": {"kind": "identity", "why": "none was asked for", "candidates": {}}}
    assert calibration_sentence(alike) == "Calibration: identity; none was asked for."
    assert calibration_sentence({}) == ""


def test_a_page_shows_ratios_of_all_encoded_fields_on_both_splits_or_that_there_are_none(tiny_home: Path) -> None:
    run = open_run(tiny_home / "run")
    ratios = [ValueRatio.from_json(one) for one in run.metrics["test_ratios"]]
    data = PreparedData.open(tiny_home / "data")
    split = data.split("test")
    columns = {c.name: (side, c) for side in ("context", "candidate") for c in data.encoder.columns(side)}
    expected = set()
    for name, (side, column) in columns.items():
        ids = split.context_ids if side == "context" else split.candidate_ids
        own = np.asarray(ids[:, column.first : column.first + column.width])
        counts = [((own == v).any(1)).sum() for v in range(len(data.encoder.vocabulary(name)))]
        expected |= {name} if max(counts[:2] + counts[data.encoder.field(name).reserved :]) >= 100 else set()
    assert {one.field for one in ratios} == expected
    page = render_report(run)
    assert f"on the test split: of {len(ratios)} values" in page
    bare = Run(run.path, run.record)
    vars(bare)["metrics"] = {**run.metrics, "test_ratios": []}
    assert "No value of any field has 100 rows on the test split" in render_report(bare)


def test_a_value_without_a_click_comes_back_from_json_as_it_went() -> None:
    one = ValueRatio("ad", "x", 200, 0.01, 0.0, float("inf"), 0.5, float("inf"))
    assert ValueRatio.from_json(json.loads(json.dumps(one.as_json(), allow_nan=False))) == one
