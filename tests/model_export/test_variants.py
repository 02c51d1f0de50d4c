"""Precisions of an export: gated, weighed, written and served, or dropped with a reason."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import torch
from rich.console import Console
from run_directory import fit_encoder, make_form, no_trace_of, raw_rows, write_run
from sklearn.metrics import log_loss, roc_auc_score

from model_export.errors import PrecisionListError
from model_export.export import ExportOptions, export_run
from model_export.report_variants import variants_table
from model_export.variants import Attempt, VariantGates, _weighed, parse_precisions
from service.bundle import BundlePrecisionError, read_bundle
from service.scorer import Scorer, SelfTestError

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.export import Exported

ALL = ("float32", "float16", "int8")
# The tiny model's tables are a few rows, so that size and time say nothing; 300 rows give AUC steps of their own.
KEEP = VariantGates(auc=1.0, log_loss=1.0, smaller=-9.0)


@pytest.fixture(scope="module")
def reduced(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    options = ExportOptions(precisions=ALL, gates=KEEP, external_above=0, seconds=0.05)
    return export_run(run, tmp_path_factory.mktemp("bundles") / "reduced", options)


def attempts_with(run: Path, out: Path, gates: VariantGates) -> tuple[Attempt, ...]:
    return export_run(run, out, ExportOptions(precisions=ALL, gates=gates, seconds=0.05)).variants


def test_every_kept_precision_is_a_digested_file_with_its_own_tolerance(reduced: Exported) -> None:
    bundle = read_bundle(reduced.path)
    assert list(bundle.variants) == list(ALL)
    assert bundle.variants["float32"].path == bundle.model_path
    for precision in ALL[1:]:
        variant = bundle.variants[precision]
        assert variant.path.name == f"model.{precision}.onnx"
        assert {variant.path.name, f"{variant.path.name}.data"} <= set(bundle.manifest.files)
        assert variant.facts is not None
        assert variant.facts.bytes == sum(
            bundle.manifest.files[name].bytes for name in (variant.path.name, f"{variant.path.name}.data")
        )
        assert set(variant.facts.time_ratio) == {"1", "100", "1000"}
        assert 1e-6 < variant.facts.parity <= variant.tolerance < 2e-2
    data = {precision: bundle.manifest.files[f"{bundle.variants[precision].path.name}.data"].bytes for precision in ALL}
    assert data["float32"] > data["float16"]


def test_each_precision_scores_raw_rows_as_training_did_within_its_tolerance_and_not_all_alike(
    run: Path, reduced: Exported
) -> None:
    bundle = read_bundle(reduced.path)
    rows = raw_rows(100, seed=9)
    requests = [
        {**row["context"], **{name: value for name, value in row["candidate"].items() if name != "position"}}
        for row in rows
    ]
    scores = {precision: Scorer(bundle, precision=precision).score(None, requests) for precision in ALL}
    off = {precision: float(np.abs(scores[precision] - scores["float32"]).max()) for precision in ALL[1:]}
    assert 0 < off["float16"] < off["int8"] < 2e-2
    for precision in ALL:
        report = Scorer(bundle, precision=precision).self_test()
        assert report.tolerance == bundle.variants[precision].tolerance
        assert report.largest_difference <= report.tolerance


def test_the_self_test_refuses_a_variant_that_scores_otherwise_than_at_export(reduced: Exported) -> None:
    bundle = read_bundle(reduced.path)
    strict = msgspec.structs.replace(bundle.manifest.variants["int8"], tolerance=1e-9)
    manifest = msgspec.structs.replace(bundle.manifest, variants={"int8": strict})
    with pytest.raises(SelfTestError, match="within 1e-09"):
        Scorer(replace(bundle, manifest=manifest), precision="int8").self_test()


def test_a_precision_that_the_bundle_lacks_is_refused_with_what_there_is(exported: Exported) -> None:
    with pytest.raises(BundlePrecisionError, match=r"expected a precision of this bundle \(float32\), got int8"):
        Scorer(read_bundle(exported.path), precision="int8")


def test_metrics_are_those_of_the_labels_as_they_were_sampled(run: Path, reduced: Exported) -> None:
    encoder = fit_encoder(raw_rows(800, seed=1))
    sample = reduced.loaded.run.validation()
    form = make_form(encoder)
    served = replace_position(form, encoder, sample.candidate_ids)
    with torch.no_grad():
        pctr = torch.sigmoid(form.double()(torch.tensor(sample.context_ids), torch.tensor(served))).numpy()
    first = reduced.variants[0]
    assert first.precision == "float32"
    assert first.auc == pytest.approx(roc_auc_score(sample.label, pctr), abs=1e-4)
    assert first.log_loss == pytest.approx(log_loss(sample.label, pctr), abs=1e-5)
    facts = read_bundle(reduced.path).manifest.variants["int8"]
    assert facts.auc_change == pytest.approx(reduced.variants[2].auc - first.auc)


def replace_position(form: object, encoder: object, ids: np.ndarray) -> np.ndarray:
    """The ids with the training-only field at its serving constant."""
    served = ids.copy()
    column = next(slot for slot in form.slots if slot.name == "position")  # type: ignore[attr-defined]
    served[:, column.first] = encoder.vocabulary("position").id("1")  # type: ignore[attr-defined]
    return served


@pytest.mark.parametrize(
    ("gates", "why"),
    [
        (replace(KEEP, parity={"float16": 1e-9, "int8": 1e-9}), "a score is off by .*, more than 1e-09"),
        (replace(KEEP, auc=-1.0), "AUC falls by .*, more than -1"),
        (replace(KEEP, log_loss=-1.0), "log loss rises by .*, more than -1"),
        (replace(KEEP, smaller=0.99, faster=0.99), "not 99% smaller .* or 99% faster .* than float32"),
    ],
)
def test_a_precision_that_fails_a_gate_is_dropped_with_the_reason_and_leaves_no_file(
    run: Path, tmp_path: Path, gates: VariantGates, why: str
) -> None:
    attempts = attempts_with(run, tmp_path / "bundle", gates)
    assert [attempt.kept for attempt in attempts] == [True, False, False]
    assert all(re.match(why, attempt.why) for attempt in attempts[1:])
    bundle = read_bundle(tmp_path / "bundle")
    assert list(bundle.variants) == ["float32"]
    assert not [path for path in bundle.path.iterdir() if "float16" in path.name or "int8" in path.name]


def test_values_beyond_float16_fail_its_gate(tmp_path: Path) -> None:
    encoder = fit_encoder(raw_rows(800, seed=1))
    form = make_form(encoder)
    item = [slot.name for slot in form.slots].index("item")
    form.tables[item].data[5] = 1e5
    run = write_run(tmp_path / "run", form=form)
    attempts = attempts_with(run, tmp_path / "bundle", KEEP)
    assert attempts[1].why.startswith("a score is off by inf")
    assert not attempts[1].kept


def test_a_validation_sample_of_one_class_keeps_float32_alone(own_run: Path, tmp_path: Path) -> None:
    from run_directory import seal

    from training.runs import ValidationSample

    path = own_run / "validation.safetensors"
    sample = ValidationSample.open(path)
    path.unlink()
    replace(sample, label=np.zeros_like(sample.label)).save(path)
    seal(own_run)
    attempts = attempts_with(own_run, tmp_path / "bundle", KEEP)
    assert [attempt.kept for attempt in attempts] == [True, False, False]
    assert "one class" in attempts[1].why


def made(precision: str, size: int, time: float, *, kept: bool = True) -> Attempt:
    return Attempt(precision, kept=kept, why="", bytes=size, parity=0.0, latency_us={100: time})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attempt", "kept", "why"),
    [
        (made("int8", 30, 80.0), True, "smaller (0.30x) than float32, smaller (0.60x) than float16"),
        (made("int8", 50, 40.0), True, "smaller (0.50x) and faster (0.80x) than float32, faster (0.50x) than float16"),
        (made("int8", 50, 80.0), False, "not 25% smaller (1.00x) or 5% faster (1.00x) than float16"),
        (made("int8", 99, 49.0), False, "not 25% smaller (0.99x) or 5% faster (0.98x) than float32"),
    ],
)
def test_a_precision_is_kept_where_it_is_smaller_or_faster_than_every_one_before_it(
    attempt: Attempt, kept: bool, why: str
) -> None:
    before = [made("float32", 100, 50.0), made("float16", 50, 80.0)]
    weighed = _weighed(VariantGates(), attempt, before)
    assert (weighed.kept, weighed.why) == (kept, why)


def test_the_table_shows_every_precision_and_why_it_was_kept_or_dropped(reduced: Exported) -> None:
    page = StringIO()
    dropped = Attempt("int8", kept=False, why="AUC falls by 0.1, more than 0.0002", bytes=9, parity=0.01)
    Console(file=page, width=80).print(variants_table([*reduced.variants[:2], dropped]))
    head, *lines = [line for line in page.getvalue().splitlines() if "│" in line or "┃" in line]
    assert [cell.strip() for cell in head.split("┃")[2:-1]] == list(ALL)
    assert {len(line) for line in lines} == {len(head)}
    cells = {line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]] for line in lines}
    assert cells["largest error of a score"] == [*(f"{one.parity:.1e}" for one in reduced.variants[:2]), "1.0e-02"]
    assert cells["of float32's"][0] == "1.00x"
    assert cells["AUC"][0] == f"{reduced.variants[0].auc:.4f}"
    assert cells["AUC"][2] == cells["µs a call, 100 rows"][2] == "–"
    assert "…" not in page.getvalue()
    text = page.getvalue().splitlines()
    assert "int8 dropped: AUC falls by 0.1, more than 0.0002" in text
    assert any(line.startswith("float16 kept: smaller") for line in text)


def test_a_list_of_precisions_is_read_and_an_unknown_one_is_refused() -> None:
    assert parse_precisions("int8, float32") == ("float32", "int8")
    with pytest.raises(PrecisionListError, match="expected names of float32, float16, int8, got 'int4'"):
        parse_precisions("float16,int4")
    for nothing in ("", " , "):
        with pytest.raises(PrecisionListError, match="expected names of float32, float16, int8, got none"):
            parse_precisions(nothing)


def test_an_export_of_an_unknown_precision_leaves_nothing(run: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from model_export.__main__ import app

    result = CliRunner().invoke(app, [str(run), "--out", str(tmp_path / "bundle"), "--precisions", "int4"])
    assert result.exit_code == 2
    assert "got 'int4'" in result.stderr
    assert no_trace_of(tmp_path / "bundle")


def test_the_manifest_says_what_was_measured(reduced: Exported) -> None:
    document = json.loads((reduced.path / "manifest.json").read_text())
    assert set(document["variants"]) == {"float16", "int8"}
    for facts in document["variants"].values():
        assert facts["rows"] == reduced.parity.rows
        assert facts["bytes_ratio"] > 0
