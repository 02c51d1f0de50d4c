"""From a run directory to a bundle that serves: what it scores, what it says, and that it is the same every time."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import pytest
import torch
from run_directory import (
    DROPPED,
    MUTED,
    RATE,
    fit_encoder,
    make_form,
    no_trace_of,
    raw_rows,
)
from typer.testing import CliRunner

from model_export import graph
from model_export.__main__ import app
from model_export.errors import NoRoomError
from model_export.export import ExportOptions, export_run
from model_export.fusion import CostModel, ParameterBudget
from model_export.report import measure_stages, render
from service.bundle import read_bundle
from service.features import UnknownFieldError
from service.scorer import Scorer

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.export import Exported


ANY = ParameterBudget(None)


def expected_scores(run: Path, rows: list[dict[str, dict[str, object]]]) -> np.ndarray:
    """The unfused torch model on raw rows: encoded by the run's encoder, its position at the serving constant."""
    encoder = fit_encoder(raw_rows(800, seed=1))
    form = make_form(encoder)
    ids = [
        torch.from_numpy(encoder.encode_rows(side, [row[side] for row in rows])) for side in ("context", "candidate")
    ]
    where = next(slot for slot in form.slots if slot.name == "position")
    ids[1][:, where.first] = encoder.vocabulary("position").id("1")
    with torch.no_grad():
        odds = torch.exp(form.double()(*ids)) * RATE
    return (odds / (1 + odds)).numpy()


def without(values: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in values.items() if name not in names}


def test_the_bundle_scores_raw_rows_as_the_unfused_torch_model_does_through_every_form(
    run: Path, exported: Exported
) -> None:
    rows = raw_rows(200, seed=9)  # rows that neither training nor the golden file has seen
    expected = expected_scores(run, rows)
    scorer = Scorer(read_bundle(exported.path))
    context = [row["context"] for row in rows]
    candidates = [without(row["candidate"], "position") for row in rows]
    pointwise = scorer.score(None, [{**one, **two} for one, two in zip(context, candidates, strict=True)])
    alone = [scorer.score(one, [two])[0] for one, two in zip(context, candidates, strict=True)]
    np.testing.assert_allclose(pointwise, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(alone, expected, rtol=0, atol=1e-6)
    shared = [{"context": context[0], "candidate": row["candidate"]} for row in rows]
    columns = {name: [row[name] for row in candidates] for name in candidates[0]}
    np.testing.assert_allclose(scorer.score(context[0], columns), expected_scores(run, shared), rtol=0, atol=1e-6)


def test_a_request_may_hold_dropped_fields_and_must_not_hold_training_only_ones(exported: Exported) -> None:
    scorer = Scorer(read_bundle(exported.path))
    row = raw_rows(1, seed=9)[0]
    candidate = without(row["candidate"], "position")
    with_all = scorer.score(row["context"], [candidate])
    np.testing.assert_array_equal(scorer.score(row["context"], [without(candidate, DROPPED, MUTED)]), with_all)
    with pytest.raises(UnknownFieldError, match="training only"):
        scorer.score(row["context"], [row["candidate"]])
    model = read_bundle(exported.path).manifest.model
    assert set(model["dropped_fields"]) == {DROPPED, MUTED}
    assert model["training_only_fields"] == ["position"]
    assert model["negative_sampling_rate"] == RATE


def test_golden_rows_are_real_cover_what_can_go_wrong_and_hold_only_fields_that_are_read(
    run: Path, exported: Exported
) -> None:
    bundle = read_bundle(exported.path)
    raw = [json.loads(line) for line in (run / "raw_sample.jsonl").read_text().splitlines()]
    read = {field.name for field in bundle.encoder.fields}
    assert 32 <= len(bundle.golden) <= 64
    for row in bundle.golden:
        kept = ({name: value for name, value in r["context"].items() if name in read} for r in raw)
        assert row.context in kept
        assert set(row.context) | set(row.candidate) == read
    ids = {
        "context": np.array([row.context_ids for row in bundle.golden]),
        "candidate": np.array([row.candidate_ids for row in bundle.golden]),
    }
    sample = {side: bundle.encoder.encode_rows(side, [without(r[side], "position") for r in raw]) for side in ids}
    for side, own in ids.items():
        for column in bundle.encoder.columns(side):
            first, all_rows = own[:, column.first], sample[side][:, column.first]
            for kind in (0, 1):  # missing, out of vocabulary: wherever the sample has one, so have the golden rows
                assert (kind in first) == (kind in all_rows), (column.name, kind)
    assert {6, 12, 18} & {row.context["hour"] for row in bundle.golden}
    scores = [row.pctr for row in bundle.golden]
    np.testing.assert_allclose(
        scores,
        expected_scores(
            run,
            [
                {"context": row.context, "candidate": {**row.candidate, DROPPED: None, MUTED: None, "position": None}}
                for row in bundle.golden
            ],
        ),
        rtol=0,
        atol=1e-12,
    )


def test_exporting_twice_gives_the_same_files_but_for_the_manifests_date(
    run: Path, exported: Exported, tmp_path: Path
) -> None:
    again = export_run(run, tmp_path / "again")
    one, two = (read_bundle(bundle.path).manifest for bundle in (exported, again))
    assert one.files == two.files
    assert {**json.loads(json.dumps(one.model))} == two.model


def test_the_manifest_says_where_the_model_came_from(run: Path, exported: Exported) -> None:
    manifest = read_bundle(exported.path).manifest
    assert manifest.model_id == "tiny-run-1"
    assert manifest.training["metrics"] == json.loads((run / "metrics.json").read_text())
    assert manifest.training["dataset"]["rows"] == {"train": 800, "valid": 300}
    assert manifest.model["flops"] <= manifest.model["tower_flops"]
    assert manifest.model["parity"]["rows"] > 300
    assert manifest.model["tolerance"] == 1e-6
    assert (exported.path / "reference.json").read_text() == json.dumps(
        json.loads((run / "reference.json").read_text()), indent=1
    ) + "\n"


@pytest.mark.parametrize("cost", [CostModel(flop_ns=1e3), CostModel(margin=1.0)])
def test_folding_all_or_nothing_and_external_tables_serve_the_same_scores(
    run: Path, exported: Exported, tmp_path: Path, cost: CostModel
) -> None:
    other = export_run(run, tmp_path / "other", ExportOptions(cost=cost, budget=ANY, external_above=0))
    assert len({field.folded for field in other.tower.fields}) == 1
    facts = read_bundle(other.path).manifest.model
    assert facts["folded_fields"] == [field.name for field in other.tower.fields if field.folded]
    assert facts["padded_fields"] == {}
    assert (other.path / "model.onnx.data").is_file()
    rows = [{**row["context"], **without(row["candidate"], "position")} for row in raw_rows(100, seed=4)]
    one, two = (Scorer(read_bundle(bundle.path)).score(None, rows) for bundle in (exported, other))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


def test_padded_fields_stand_in_the_manifest_and_serve_the_same_scores(
    run: Path, exported: Exported, tmp_path: Path
) -> None:
    # Where only nodes cost, padding saves some; a small limit leaves the widest tables unfolded.
    nodes = CostModel(node_us=50.0, flop_ns=0.0, weight_ns=0.0, growth_us=0.0, largest_folded_bytes=1100)
    other = export_run(run, tmp_path / "other", ExportOptions(cost=nodes, budget=ANY))
    padded = read_bundle(other.path).manifest.model["padded_fields"]
    assert padded
    assert padded == {field.name: field.dim for field in other.tower.fields if field.name in padded}
    rows = [{**row["context"], **without(row["candidate"], "position")} for row in raw_rows(100, seed=4)]
    one, two = (Scorer(read_bundle(bundle.path)).score(None, rows) for bundle in (exported, other))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


def test_a_bundle_holds_no_more_parameters_than_its_budget_and_says_what_that_bought(
    run: Path, exported: Exported, tmp_path: Path
) -> None:
    facts = read_bundle(exported.path).manifest.model
    kept, limit = facts["folding"]["kept"][0], facts["folding"]["limit"]
    assert limit == int(1.1 * kept)
    assert facts["parameters"] == facts["folding"]["chosen"][0] <= limit
    assert facts["embedding_parameters"] == sum(field.table.size for field in exported.tower.fields)
    assert facts["parameter_bytes"] == 4 * facts["parameters"]
    assert facts["folding"]["unlimited"][0] > limit
    wider = export_run(run, tmp_path / "wider", ExportOptions(budget=ANY))
    found = read_bundle(wider.path).manifest.model
    assert found["parameters"] == facts["folding"]["unlimited"][0]
    assert found["folding"]["limit"] is None
    assert found["folding"]["chosen"][1] < facts["folding"]["chosen"][1] < facts["folding"]["kept"][1]


def test_the_table_shows_the_model_before_and_after_merging(exported: Exported) -> None:
    from io import StringIO

    from rich.console import Console

    stages = measure_stages(exported, seconds=0.1)
    assert set(stages) == {"pair", "fusion form", "fused"}
    fused, form, pair = stages["fused"], stages["fusion form"], stages["pair"]
    assert fused.dense_flops * 2 <= form.dense_flops
    assert fused.parameters.dense < form.parameters.dense
    assert fused.parameters.embedding == sum(field.table.size for field in exported.tower.fields)
    assert form.parameters.embedding < pair.parameters.embedding
    assert fused.file_bytes < form.file_bytes
    assert set(fused.latency_us) == {1, 100, 1000}
    page = StringIO()
    Console(file=page, width=160).print(render(exported, stages))
    text = page.getvalue()
    for expected in ("dense FLOPs a row", "1000 rows", "Tower A", "0.7500", "genres", "largest differences"):
        assert expected in text
    assert "warning" not in text


def test_an_export_says_that_its_model_lost_to_the_baseline(exported: Exported) -> None:
    from io import StringIO

    from rich.console import Console

    run = exported.loaded.run
    metrics = {**run.metrics, "baseline": {"validation": {"auc": 0.76, "log_loss": 0.5}}}
    page = StringIO()
    with mock.patch.dict(vars(run), metrics=metrics):
        Console(file=page, width=300).print(render(exported, {}))
    assert "warning: the trained model does worse" in page.getvalue()
    assert "AUC 0.7500 against 0.7600" in page.getvalue()


def test_the_command_writes_the_same_bundle_prints_its_table_and_refuses_with_exit_code_2(
    run: Path, exported: Exported, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "model_export", str(run), "--out", str(tmp_path / "bundle"), "--seconds", "0.1"]
    command += ["--precisions", "float32"]  # what else is kept may depend on timing
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for expected in ("before and after merging", "cost model → measured", "all folded", "the better plain way"):
        assert expected in " ".join(done.stdout.split())
    bundle = read_bundle(tmp_path / "bundle")
    assert Scorer(bundle).self_test().rows >= 32
    # Another process has another hash seed: no set may have decided an order.
    assert bundle.manifest.files == read_bundle(exported.path).manifest.files
    again = CliRunner().invoke(app, command[3:])
    assert again.exit_code == 2
    assert again.stdout == ""
    assert "error:" in again.stderr
    assert "expected a path that does not exist yet" in again.stderr
    assert "Traceback" not in again.stderr
    budget = CliRunner().invoke(app, [str(run), "--out", str(tmp_path / "other"), "--parameter-budget", "100"])
    assert budget.exit_code == 2
    assert "parameter budget: expected at least" in budget.stderr
    wrong_prices = CliRunner().invoke(
        app, [str(run), "--out", str(tmp_path / "other"), "--cost", str(tmp_path / "none")]
    )
    assert wrong_prices.exit_code == 2
    assert "none: expected a file of prices" in wrong_prices.stderr
    assert no_trace_of(tmp_path / "other")


def test_where_the_graphs_to_be_timed_find_no_room_the_bundle_is_written_and_the_command_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(NoRoomError, match=r"expected room for .* GiB of tables, got 0\.0 GiB free"):
        measure_stages(export_run(run, tmp_path / "one"), seconds=0.1)
    done = CliRunner().invoke(app, [str(run), "--out", str(tmp_path / "two"), "--seconds", "0.1"])
    assert done.exit_code == 0
    assert "not timed: " in done.stdout
    assert "before and after merging" not in done.stdout
    assert Scorer(read_bundle(tmp_path / "two")).self_test().rows >= 32
