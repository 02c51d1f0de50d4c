"""A calibration is exact in the merged tower, in the graph and in the golden rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from forms import SLOTS, random_form, random_ids, served_ids
from run_directory import RATE, raw_rows, seal
from test_export import expected_scores, without

from model_export.errors import ParityValueError, RunChangedError
from model_export.export import ExportOptions, export_run
from model_export.facts import check_cost
from model_export.fusion import FusionFacts, fuse, fuse_towers, logits
from model_export.fusion.calibration import calibrate
from model_export.fusion.counts import parameters
from model_export.graph import serialise
from model_export.latency import session
from model_export.parity import Reference, Rows, check_parity, sigmoid
from model_export.passes import apply_passes
from model_export.to_onnx import to_onnx
from service.bundle import PRECISIONS, read_bundle
from service.scorer import Scorer
from training.calibration import IDENTITY, Calibration

if TYPE_CHECKING:
    from pathlib import Path

IDS = random_ids(SLOTS, 300)
AFFINE = Calibration((1.4,), (), -0.3)
BENT = Calibration((0.5, 1.7, 0.9, 2.2), (-0.6, 0.1, 0.8), -0.4)


@pytest.mark.parametrize("calibration", [IDENTITY, AFFINE, BENT, Calibration((2.0, 0.5), (0.2,), 1.0)])
def test_the_merged_tower_and_its_graph_are_the_calibrated_fusion_form(calibration: Calibration) -> None:
    form = random_form()
    plain = fuse_towers(form)
    np.testing.assert_allclose(
        logits(calibrate(plain, calibration), *IDS), calibration(logits(plain, *IDS)), rtol=1e-12, atol=1e-12
    )
    tower = fuse(plain, FusionFacts(0.2, calibration=calibration))
    graph = apply_passes(to_onnx(tower))
    check_cost(graph, form, calibration)
    reference = Reference(form, 0.2, calibration)
    rows = Rows("rows", IDS, served_ids(SLOTS, tower, IDS))
    check_parity(reference, tower, session(serialise(graph)), [rows])
    # Calibrated first, then the negatives that were left out are counted in.
    expected = calibration(Reference(form).logits(*IDS)) + np.log(0.2)
    np.testing.assert_allclose(reference.logits(*IDS), expected, rtol=1e-12)
    if calibration != IDENTITY:
        with pytest.raises(ParityValueError):
            check_parity(Reference(form, 0.2), tower, session(serialise(graph)), [rows])


def test_an_affine_one_costs_nothing_and_a_bent_one_a_layer_of_its_pieces() -> None:
    plain = fuse(fuse_towers(random_form()), FusionFacts())
    affine, bent = (fuse(fuse_towers(random_form()), FusionFacts(calibration=c)) for c in (AFFINE, BENT))
    nodes = [len(apply_passes(to_onnx(tower)).model.graph.node) for tower in (plain, affine, bent)]
    assert nodes == [nodes[0], nodes[0], nodes[0] + 1]  # a product that takes its ReLU
    assert parameters(affine) == parameters(plain)
    width, units = plain.output.weight.shape[0] + plain.width, len(BENT.slopes)  # last hidden units, and squares
    assert parameters(bent).dense - parameters(plain).dense == (width + 1) * (units - 1) + units + 1


@pytest.mark.parametrize("calibration", [AFFINE, BENT], ids=["affine", "piecewise"])
def test_a_bundle_serves_what_the_run_calibrated_in_every_precision(
    own_run: Path, tmp_path: Path, calibration: Calibration
) -> None:
    (own_run / "calibration.json").write_text(json.dumps(calibration.as_json()))
    seal(own_run)
    exported = export_run(own_run, tmp_path / "bundle", ExportOptions(precisions=PRECISIONS, seconds=0.05))
    rows = raw_rows(100, seed=9)
    odds = expected_scores(own_run, rows) / (1 - expected_scores(own_run, rows)) / RATE
    expected = sigmoid(calibration(np.log(odds)) + np.log(RATE))
    bundle = read_bundle(exported.path)
    sent = [{**row["context"], **without(row["candidate"], "position")} for row in rows]
    np.testing.assert_allclose(Scorer(bundle).score(None, sent), expected, rtol=0, atol=1e-6)
    golden = [row.pctr for row in bundle.golden]
    assert Scorer(bundle).self_test().rows == len(golden)
    assert {attempt.precision for attempt in exported.variants} == set(PRECISIONS)
    for attempt in exported.variants:
        assert attempt.parity < {"float32": 1e-6, "float16": 2e-3, "int8": 2e-2}[attempt.precision], attempt.why
    assert bundle.manifest.model["calibration"] == {
        "slopes": list(calibration.slopes),
        "knots": list(calibration.knots),
        "offset": calibration.offset,
    }


def test_a_damaged_calibration_is_refused(own_run: Path, tmp_path: Path) -> None:
    (own_run / "calibration.json").write_text(json.dumps({**AFFINE.as_json(), "slopes": [-1.0]}))
    seal(own_run)
    with pytest.raises(RunChangedError, match=r"calibration.json: .*positive slopes"):
        export_run(own_run, tmp_path / "bundle")
