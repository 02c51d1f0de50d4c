"""What stops an export, by name, and that nothing is left of it."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from forms import random_form
from run_directory import (
    fit_encoder,
    model_slots,
    no_trace_of,
    raw_rows,
    seal,
)
from safetensors.torch import load_file, save_file

from model_export import export, facts
from model_export.errors import (
    ExportError,
    FusionMissingError,
    GraphError,
    NonFiniteError,
    OutputExistsError,
    ParityError,
    ParityValueError,
    RunChangedError,
    RunNotFinishedError,
    RunRefusedError,
    VarianceError,
)
from model_export.export import ExportOptions, export_run
from model_export.parity import Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def poison(path: Path, name: str, value: float) -> None:
    weights = load_file(path / "weights.safetensors")
    weights[name].view(-1)[0] = value
    save_file(weights, path / "weights.safetensors")
    seal(path)


def overflowing(path: Path) -> None:
    weights = load_file(path / "weights.safetensors")
    for name, tensor in weights.items():
        if name.endswith(("projection", "weight", "mix", "gates")):
            tensor.fill_(
                1e38
            )  # the largest powers of ten of a float32: their products leave float64 after a few layers
    save_file(weights, path / "weights.safetensors")
    seal(path)


def drop_fusion_phase(path: Path) -> None:
    lines = (path / "history.jsonl").read_text().splitlines()
    (path / "history.jsonl").write_text("".join(f"{line}\n" for line in lines if "fusion" not in line))
    seal(path)


def drop_fused_metrics(path: Path) -> None:
    metrics = json.loads((path / "metrics.json").read_text())
    del metrics["validation"]["fused"]
    (path / "metrics.json").write_text(json.dumps(metrics))
    seal(path)


def other_vocabulary(path: Path) -> None:
    form = random_form(model_slots(fit_encoder(raw_rows(300, seed=8))), (16, 8))
    from training.models.files import save_model

    save_model(path, form)
    seal(path)


def unfinished(path: Path) -> None:
    path.rename(path.with_name("run.partial"))


def append(path: Path, name: str) -> None:
    with (path / name).open("ab") as file:
        file.write(b" ")


def unknown_raw_field(path: Path) -> None:
    row = {"context": {"user": 1.5}, "candidate": {}, "row": 0}
    (path / "raw_sample.jsonl").write_text(json.dumps(row) + "\n")
    seal(path)


def no_raw_rows(path: Path) -> None:
    (path / "raw_sample.jsonl").write_text("")
    seal(path)


BAD_RUNS: dict[str, tuple[Callable[[Path], object], type[ExportError], str]] = {
    "unfinished": (
        unfinished,
        RunNotFinishedError,
        r"got an unfinished one \(run.partial\)",
    ),
    "still training": (lambda p: (p / "start.json").write_text("{}"), RunNotFinishedError, "got an unfinished"),
    "no run.json": (
        lambda p: (p / "run.json").unlink(),
        RunRefusedError,
        r"expected a run directory",
    ),
    "no directory": (shutil.rmtree, RunRefusedError, "got no such path"),
    "changed weights": (
        lambda p: append(p, "weights.safetensors"),
        RunChangedError,
        r"weights.safetensors: expected .*sha256.*, got .*sha256",
    ),
    "changed features": (lambda p: append(p, "features.json"), RunChangedError, "features.json: expected .*, got "),
    "missing sample": (
        lambda p: (p / "raw_sample.jsonl").unlink(),
        RunChangedError,
        "raw_sample.jsonl: expected a file",
    ),
    "NaN": (
        lambda p: poison(p, "branches.1.linears.0.weight", float("nan")),
        NonFiniteError,
        r"weights.safetensors: branches.1.linears.0.weight\[0\]\[0\]: expected finite weights, got nan",
    ),
    "infinity": (
        lambda p: poison(p, "tables.2", float("-inf")),
        NonFiniteError,
        r"tables.2\[0\]\[0\]: expected finite weights, got -inf",
    ),
    "negative variance": (
        lambda p: poison(p, "branches.1.norms.0.running_var", -1.0),
        VarianceError,
        r"weights.safetensors: branches.1.norms.0.running_var\[0\]: expected variances of at least 0, got -1.0",
    ),
    "finite weights whose product overflows": (
        overflowing,
        GraphError,
        r"constant 'start.*': expected values in the range of float32, got -?\d",
    ),
    "no fusion phase": (
        drop_fusion_phase,
        FusionMissingError,
        r"expected a run whose fusion phase ran .* got the phases \['tower_a', 'tower_b'\]",
    ),
    "no fused metrics": (drop_fused_metrics, FusionMissingError, r"metrics of \['pair', 'tower_a', 'tower_b'\]"),
    "another run's model": (other_vocabulary, RunChangedError, "model.json: slot 'user': expected .*, got "),
    "a raw value the encoder refuses": (
        unknown_raw_field,
        RunChangedError,
        "raw_sample.jsonl: context.*user: expected",
    ),
    "no raw rows": (no_raw_rows, RunChangedError, "raw_sample.jsonl: expected at least one row, got none"),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_a_bad_run_is_refused_with_its_reason_and_leaves_nothing_behind(
    own_run: Path, tmp_path: Path, case: str
) -> None:
    damage, error, message = BAD_RUNS[case]
    damage(own_run)
    with pytest.raises(error, match=message):
        export_run(own_run, tmp_path / "bundle")
    assert no_trace_of(tmp_path / "bundle")


@pytest.mark.parametrize("kind", ["directory", "file", "dangling link"])
def test_an_output_that_exists_is_refused_and_left_alone(run: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "bundle"
    match kind:
        case "directory":
            out.mkdir()
        case "file":
            out.write_text("mine")
        case _:
            out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExistsError, match="bundle: expected a path that does not exist yet, got an existing one"):
        export_run(run, out)
    assert os.path.lexists(out)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert kind != "file" or out.read_text() == "mine"


@pytest.mark.parametrize(
    ("tolerance", "message"),
    [
        (Tolerance(algebra=1e-20), "logit of the merged tower"),
        (Tolerance(logit=1e-20), "logit in float32 against float64"),
        (Tolerance(pctr=1e-20), r"pctr of model\.onnx against the fusion form"),
    ],
)
def test_a_score_out_of_tolerance_fails_the_export_and_leaves_nothing_behind(
    run: Path, tmp_path: Path, tolerance: Tolerance, message: str
) -> None:
    with pytest.raises(ParityValueError, match=rf"golden rows, row \d+: {message}.*expected a difference of at most"):
        export_run(run, tmp_path / "bundle", ExportOptions(tolerance=tolerance))
    assert no_trace_of(tmp_path / "bundle")


def test_a_graph_that_costs_more_than_one_tower_is_not_published(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "tower_flops", lambda form: 2 * form.widths[0])
    with pytest.raises(GraphError, match="expected at most the 32 dense FLOPs a row of one tower"):
        export_run(run, tmp_path / "bundle")
    assert no_trace_of(tmp_path / "bundle")


def test_a_bundle_that_fails_the_services_self_test_is_not_published(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The golden scores are spoiled after the gate, as a fault between the gate and the disk would.
    from msgspec.structs import replace

    right = export.golden_rows

    def spoiled(*arguments: object) -> object:
        rows, ids = right(*arguments)  # type: ignore[arg-type]
        return (replace(rows[0], pctr=rows[0].pctr / 2), *rows[1:]), ids

    monkeypatch.setattr(export, "golden_rows", spoiled)
    with pytest.raises(ParityError, match="does not pass the service's self-test: golden row 0"):
        export_run(run, tmp_path / "bundle")
    assert no_trace_of(tmp_path / "bundle")
