"""The demonstration, on fewer rows and epochs: it goes the whole way, may be run again, and spares what others made."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model_export.demo import steps
from model_export.demo.__main__ import app
from model_export.demo.requests import requests_of
from model_export.demo.workplace import DemoError, Workplace
from service.bundle import read_bundle
from service.scorer import Scorer
from training.datasets.synthetic import generate

ROOT = Path(__file__).resolve().parents[1]
TINY = """
format = 1
name = "tiny"

[data]
dataset = "synthetic"
options = { rows = 12000 }

[train]
epochs = 1
evaluations = 1
"""


def demo(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_export.demo", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory of a demonstration, and what it printed."""
    place = tmp_path_factory.mktemp("demonstration")
    (place / "tiny.toml").write_text(TINY, encoding="utf-8")
    done = demo("--dir", place / "demo", "--experiment", place / "tiny.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "demo", done.stdout


@pytest.mark.slow
def test_it_shows_the_models_beside_the_best_possible_and_leaves_a_request_that_scores(
    shown: tuple[Path, str],
) -> None:
    place, text = shown
    for word in ("Bayes-optimal", "XOR pair", "noise", "dense FLOPs a row", "true probability", "candidates/s"):
        assert word in text
    request = json.loads((place / "request.json").read_text(encoding="utf-8"))
    scores = Scorer(read_bundle(place / "bundle")).score(request["context"], request["candidates"])
    for score in scores:
        assert f"{score:.4f}" in text
    assert (place / "run" / "report.html").is_file()
    assert '"stopped"' in (place / "service.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_bundle_that_is_whole_is_kept_and_one_that_was_changed_is_not_taken_for_whole(
    shown: tuple[Path, str],
) -> None:
    place, _ = shown
    before = (place / "bundle" / "manifest.json").stat().st_mtime_ns
    done = demo("--dir", place, "--bundle-only")
    assert (done.returncode, done.stdout) == (0, f"{place / 'bundle'} is there already\n")
    assert (place / "bundle" / "manifest.json").stat().st_mtime_ns == before
    golden = place / "bundle" / "golden.jsonl"
    content = golden.read_bytes()
    golden.write_bytes(content.replace(b"0.", b"1.", 1))
    assert not Workplace(place).has_bundle()
    golden.write_bytes(content)
    assert Workplace(place).has_bundle()


def test_what_an_earlier_demonstration_made_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path / "demo")
    workplace.clear()
    for part in ("data", "run", "bundle", ".data.x.partial", "mine"):
        (workplace.root / part).mkdir()
        (workplace.root / part / "file").touch()
    workplace.clear()
    assert {path.name for path in workplace.root.iterdir()} == {".reaction-demo", "mine"}


def test_a_directory_with_a_run_of_somebody_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(DemoError, match=r"expected a new directory or one of an earlier demonstration.*'run'"):
        Workplace(tmp_path).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_other_data_than_the_generators_is_refused_for_its_truth_is_not_known(tmp_path: Path) -> None:
    avazu = steps.EXPERIMENT.with_name("avazu.toml")
    done = CliRunner().invoke(app, ["--dir", str(tmp_path / "demo"), "--experiment", str(avazu)])
    assert done.exit_code == 2
    assert "expected data.dataset 'synthetic', whose truth is known, got 'avazu'" in done.stderr


def test_requests_hold_the_test_splits_rows_request_by_request() -> None:
    log = generate(2000, 3)
    requests = list(requests_of(log, 10**9))
    assert np.array_equal(np.concatenate([request.rows for request in requests]), np.flatnonzero(log.split == 2))
    sides = {field.name: field.side for field in log.fields}
    for request in requests:
        assert len(set(log.group[request.rows])) == 1
        for row, candidate in zip(request.rows.tolist(), request.candidates, strict=True):
            logged = {name: value for name, value in log.frame.row(row, named=True).items() if name in sides}
            assert {**request.context, **candidate} == {
                name: value for name, value in logged.items() if value is not None
            }
            assert all(sides[name] == "candidate" for name in candidate)
