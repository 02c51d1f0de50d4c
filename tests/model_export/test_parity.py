"""The gate itself: names, then shapes, then values; out of tolerance and not-a-number both fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from forms import SLOTS, form_logits, random_form, random_ids, served_ids
from run_directory import fit_encoder, make_form, raw_rows

from model_export.errors import ParityNameError, ParityShapeError, ParityValueError
from model_export.fusion import FusionFacts, fuse, fuse_towers
from model_export.fusion.tower import Dense
from model_export.graph import serialise
from model_export.latency import session
from model_export.parity import CHUNK_ROWS, Reference, Rows, check_layout, check_parity, check_signature, sigmoid
from model_export.passes import apply_passes
from model_export.serving import serving_encoder, serving_ids
from model_export.to_onnx import to_onnx

FORM = random_form()
TOWER = fuse(fuse_towers(FORM), FusionFacts())
RUNNER = session(serialise(apply_passes(to_onnx(TOWER))))
IDS = random_ids(SLOTS, 100)
ROWS = Rows("rows", IDS, served_ids(SLOTS, TOWER, IDS))


def test_equal_models_pass_and_the_report_says_how_close_they_are() -> None:
    report = check_parity(Reference(FORM), TOWER, RUNNER, [ROWS, ROWS])
    assert report.rows == 200
    assert report.algebra < 1e-12
    assert 0 < report.logit < 1e-5
    assert 0 < report.pctr < 1e-6


def test_rows_are_compared_in_chunks_and_the_bad_row_is_named_by_its_place() -> None:
    ids = random_ids(SLOTS, CHUNK_ROWS + 50)
    served = served_ids(SLOTS, TOWER, ids)
    assert check_parity(Reference(FORM), TOWER, RUNNER, [Rows("many", ids, served)]).rows == CHUNK_ROWS + 50
    bad = served[1].copy()
    bad[CHUNK_ROWS + 7] = (bad[CHUNK_ROWS + 7] + 1) % 5
    with pytest.raises(ParityValueError, match=f"^many, row {CHUNK_ROWS + 7}: "):
        check_parity(Reference(FORM), TOWER, RUNNER, [Rows("many", ids, (served[0], bad))])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_no_number_fails(value: float) -> None:
    broken = replace(TOWER, output=Dense(TOWER.output.weight, TOWER.output.bias + value))
    with pytest.raises(ParityValueError, match="got inf"):
        check_parity(Reference(FORM), broken, RUNNER, [ROWS])


def test_no_rows_are_no_proof() -> None:
    none = Rows("rows", (IDS[0][:0], IDS[1][:0]), tuple(side[:0] for side in ROWS.serving))  # type: ignore[arg-type]
    for samples in ([], [none]):
        with pytest.raises(ParityShapeError, match="expected rows to compare, got none"):
            check_parity(Reference(FORM), TOWER, RUNNER, samples)


def test_another_graphs_columns_are_refused_before_any_value_is_compared() -> None:
    narrower = fuse(fuse_towers(random_form(SLOTS[:4])), FusionFacts())
    with pytest.raises(ParityShapeError, match=r"candidate_ids: expected 1 columns, got 4"):
        check_parity(Reference(FORM), narrower, RUNNER, [ROWS])
    graph = apply_passes(to_onnx(TOWER))
    renamed = serialise(graph).replace(b"context_ids", b"kontext_ids")
    with pytest.raises(ParityNameError, match=r"expected inputs \['candidate_ids', 'context_ids'\].*kontext_ids"):
        check_signature(TOWER, session(renamed))


def test_an_encoder_that_writes_other_fields_or_columns_is_refused() -> None:
    encoder = fit_encoder(raw_rows(400))
    tower = fuse(fuse_towers(make_form(encoder)), FusionFacts())
    serving = serving_encoder(encoder, tower)
    check_layout(tower, serving)
    with pytest.raises(ParityNameError, match=r"candidate fields: expected \[.*\], got \['item', .*'noise'"):
        check_layout(tower, encoder.for_serving())
    field = tower.fields[-1]
    shorter = replace(tower, fields=(*tower.fields[:-1], replace(field, table=field.table[:-1])))
    with pytest.raises(ParityShapeError, match=rf"field '{field.name}': expected \(first, width, ids\) "):
        check_layout(shorter, serving)


def test_ids_move_to_the_serving_layout_as_the_serving_encoder_would_write_them() -> None:
    encoder = fit_encoder(raw_rows(400))
    serving = serving_encoder(encoder, fuse(fuse_towers(make_form(encoder)), FusionFacts()))
    rows = raw_rows(50, seed=3)
    for row in rows:
        del row["candidate"]["position"]
    ids = tuple(encoder.encode_rows(side, [row[side] for row in rows]) for side in ("context", "candidate"))
    moved = serving_ids(encoder, serving, ids)  # type: ignore[arg-type]
    for side, own in zip(("context", "candidate"), moved, strict=True):
        np.testing.assert_array_equal(own, serving.encode_rows(side, [row[side] for row in rows]))


def test_the_reference_reads_serving_constants_and_corrects_the_odds() -> None:
    expected = sigmoid(form_logits(FORM.serving(), IDS))
    odds = expected / (1 - expected) * 0.2
    np.testing.assert_allclose(sigmoid(Reference(FORM, 0.2).logits(*IDS)), odds / (1 + odds), rtol=1e-9)


def test_a_form_in_training_mode_is_no_reference() -> None:
    with pytest.raises(ValueError, match="expected a fusion form in evaluation mode"):
        Reference(random_form().train())


def test_the_sigmoid_holds_at_both_ends() -> None:
    np.testing.assert_allclose(sigmoid(np.array([-800.0, -1.0, 0.0, 1.0, 800.0])), [0, 0.26894142, 0.5, 0.73105858, 1])
