"""A bundle with several precisions: one is asked for, one is loaded, all are digested."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from serving import ROOT, ROW_CANDIDATES, ROW_CONTEXT, HandModel, environment, serving

from service.bundle import BundleCorruptError, BundleFormatError, BundlePrecisionError, read_bundle
from service.features.files import digest_file
from service.scorer import Scorer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FACTS: dict[str, Any] = {
    "file": "model.int8.onnx",
    "tolerance": 0.25,
    "parity": 0.1,
    "rows": 9,
    "auc_change": -1e-5,
    "log_loss_change": 1e-5,
    "bytes": 1,
    "bytes_ratio": 0.5,
    "time_ratio": {"1": 1.0},
}


def add_variant(source: Path, path: Path, change: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """A copy of the bundle with a variant whose scores are a little off: its biases are."""
    shutil.copytree(source, path)
    model = onnx.load(path / "model.onnx")
    for constant in model.graph.initializer:
        if constant.data_type == constant.FLOAT:
            values = numpy_helper.to_array(constant)
            constant.CopyFrom(numpy_helper.from_array(values + np.float32(0.01), constant.name))
    onnx.save(model, path / FACTS["file"])
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    found = digest_file(path / FACTS["file"])
    manifest["files"][FACTS["file"]] = {"sha256": found.sha256, "bytes": found.bytes}
    manifest["variants"] = {"int8": dict(FACTS)}
    if change is not None:
        change(manifest)
    file.write_text(json.dumps(manifest))
    return path


@pytest.fixture
def varied(bundle: Path, tmp_path: Path) -> Path:
    return add_variant(bundle, tmp_path / "varied")


def test_the_precision_asked_for_is_loaded_and_tested_with_its_own_tolerance(
    varied: Path, hand_model: HandModel
) -> None:
    bundle = read_bundle(varied)
    assert list(bundle.variants) == ["float32", "int8"]
    exact, rough = Scorer(bundle), Scorer(bundle, precision="int8")
    expected = [hand_model.score(ROW_CONTEXT, row) for row in ROW_CANDIDATES]
    assert np.abs(exact.score(ROW_CONTEXT, ROW_CANDIDATES) - expected).max() < 1e-6
    assert 1e-4 < np.abs(rough.score(ROW_CONTEXT, ROW_CANDIDATES) - expected).max() < 0.25
    assert (exact.self_test().tolerance, rough.self_test().tolerance) == (1e-6, 0.25)


def test_only_the_graph_asked_for_is_opened(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "varied"

    def spoil(manifest: dict[str, Any]) -> None:
        """Make the other graph one that nobody can load, as it was digested."""
        model = onnx.load(path / "model.onnx")
        model.graph.node[0].op_type = "NoSuchOperator"
        onnx.save(model, path / "model.onnx")
        found = digest_file(path / "model.onnx")
        manifest["files"]["model.onnx"] = {"sha256": found.sha256, "bytes": found.bytes}

    read = read_bundle(add_variant(bundle, path, spoil))
    Scorer(read, precision="int8").self_test()
    with pytest.raises(BundleFormatError, match="expected a graph that ONNX Runtime can load"):
        Scorer(read)


def test_every_graph_is_digested_whichever_is_served(varied: Path) -> None:
    path = varied / FACTS["file"]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleCorruptError, match=r"model\.int8\.onnx: expected SHA-256"):
        read_bundle(varied)


def test_a_bundle_without_variants_has_float32_alone(bundle: Path) -> None:
    read = read_bundle(bundle)
    assert list(read.variants) == ["float32"]
    with pytest.raises(BundlePrecisionError, match=r"expected a precision of this bundle \(float32\), got float16"):
        read.variant("float16")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("file", "other.onnx", r"variants\.int8\.file: expected a file of the manifest, got 'other\.onnx'"),
        ("tolerance", 0.0, r"variants\.int8\.tolerance: expected above 0 and below 1, got 0\.0"),
        ("tolerance", 1.5, r"variants\.int8\.tolerance: expected above 0 and below 1, got 1\.5"),
        ("parity", "small", r"Expected `float`, got `str` - at `\$\.variants"),
        ("colour", "red", r"unknown field `colour` - at `\$\.variants"),
    ],
)
def test_a_manifest_that_says_nonsense_of_a_variant_is_refused(
    bundle: Path, tmp_path: Path, name: str, value: object, message: str
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["variants"]["int8"][name] = value

    with pytest.raises(BundleFormatError, match=message):
        read_bundle(add_variant(bundle, tmp_path / "varied", change))


def test_a_variant_of_an_unknown_precision_is_refused(bundle: Path, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["variants"]["int4"] = dict(FACTS)

    with pytest.raises(BundleFormatError, match="int4"):
        read_bundle(add_variant(bundle, tmp_path / "varied", change))


def test_the_service_serves_the_precision_of_its_settings_and_says_so(varied: Path) -> None:
    with serving(varied, precision="int8") as server:
        model = httpx.get(f"{server.url}/model").json()
        body = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}
        scores = httpx.post(f"{server.url}/score", json=body).json()["scores"]
    assert (model["precision"], model["precisions"]) == ("int8", ["float32", "int8"])
    expected = Scorer(read_bundle(varied), precision="int8").score(ROW_CONTEXT, ROW_CANDIDATES)
    assert scores == pytest.approx(expected.tolist(), abs=1e-7)
    ready = [line for line in server.log if line["event"] == "ready"]
    assert [line["precision"] for line in ready] == ["int8"]


def test_a_service_asked_for_a_precision_that_its_bundle_lacks_ends_and_names_what_there_is(bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "--bundle", str(bundle), "--port", "0"],
        cwd=ROOT,
        env=environment(precision="float16"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    failed = [json.loads(line) for line in done.stderr.splitlines() if "start_failed" in line]
    assert "expected a precision of this bundle (float32), got float16" in failed[0]["error"]
