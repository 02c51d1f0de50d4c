"""A run directory: what it holds, and how a damaged, unfinished or foreign one is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny
import torch

from training import environment
from training.environment import git_revision, library_versions
from training.files import read_json, read_jsonl
from training.loader import PreparedData
from training.metrics import evaluate
from training.partial import differences
from training.runs import (
    Run,
    RunCorruptError,
    RunError,
    RunFormatError,
    RunMissingError,
    RunUnfinishedError,
    ValidationSample,
    open_run,
    sample_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HELD = {
    "config.toml",
    "run.json",
    "features.json",
    "vocabularies",
    "weights.safetensors",
    "model.json",
    "calibration.json",
    "pair.safetensors",
    "afe.json",
    "metrics.json",
    "history.jsonl",
    "structure.json",
    "validation.safetensors",
    "raw_sample.jsonl",
    "reference.json",
    "report.html",
}


@pytest.fixture(scope="module")
def run(tiny_home: Path) -> Run:
    return open_run(tiny_home / "run")


@pytest.fixture(scope="module")
def data(tiny_home: Path) -> PreparedData:
    return PreparedData.open(tiny_home / "data")


@pytest.fixture
def copy(tiny_home: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_home / "run", tmp_path / "copy")


def test_a_run_holds_all_there_is_to_reproduce_it_and_nothing_else(run: Run, tiny_home: Path) -> None:
    assert {path.name for path in run.path.iterdir()} == HELD
    assert sorted(path.name for path in tiny_home.iterdir()) == ["data", "exp.toml", "log.csv", "run"]


def test_every_file_of_a_run_may_be_read_by_another_user(run: Run) -> None:
    assert {path.stat().st_mode & 0o777 for path in run.path.rglob("*") if path.is_file()} == {0o644}


def test_run_json_holds_the_sha256_of_every_other_file(run: Run) -> None:
    files = {path.relative_to(run.path).as_posix(): path for path in run.path.rglob("*") if path.is_file()}
    del files["run.json"]
    assert run.record["files"].keys() == files.keys()
    for name, path in files.items():
        content = path.read_bytes()
        assert run.record["files"][name] == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_run_json_says_what_it_was_made_with(run: Run, data: PreparedData) -> None:
    record = run.record
    assert (record["format"], record["version"], record["status"]) == ("reaction-run", 2, "complete")
    assert record["id"].startswith("tiny-20")
    assert record["seed"] == 3
    assert record["data_digest"] == data.digest
    assert record["features_digest"] == data.encoder.digest == run.encoder.digest
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"]["numpy"] == np.__version__
    assert record["versions"]["python"].startswith("3.")
    assert set(record["wall_seconds"]) == {"training", "baseline", "measuring"}
    assert run.data_info["rows"] == {"train": 900, "valid": 300, "test": 300}
    assert run.data_info["negative_sampling_rate"] == 0.5


def test_the_config_of_a_run_trains_the_same_data_again(run: Run, tiny_home: Path) -> None:
    assert run.config.seed == 3
    assert run.config.dtf.widths == (8, 8)
    assert run.config.data.path == str(tiny_home.resolve() / "log.csv")


def test_the_validation_sample_is_the_split_and_the_scores_are_the_fusion_forms(run: Run, data: PreparedData) -> None:
    sample, split = run.validation(), data.split("valid")
    for name in ("context_ids", "candidate_ids", "label", "weight", "group"):
        assert np.array_equal(getattr(sample, name), getattr(split, name)), name
    with torch.inference_mode():
        logits = run.form()(torch.from_numpy(sample.context_ids).long(), torch.from_numpy(sample.candidate_ids).long())
    assert sample.pctr.dtype == np.float32
    assert sample.pctr == pytest.approx(torch.sigmoid(logits).numpy(), abs=1e-6)


def test_metrics_lay_both_towers_the_pair_the_fused_model_and_the_baseline_side_by_side(run: Run) -> None:
    for split in ("validation", "test"):
        assert set(run.metrics[split]) == {"tower_a", "tower_b", "pair", "fused"}
        for found in [*run.metrics[split].values(), run.metrics["baseline"][split]]:
            assert {"auc", "log_loss", "gauc", "ndcg@10", "ece", "base_rate", "mean_pctr"} <= set(found)
    sample = run.validation()
    expected = evaluate(sample.label, sample.pctr, sample.weight, sample.group)
    assert run.metrics["validation"]["fused"] == pytest.approx(expected, abs=1e-6)


def test_the_raw_sample_encodes_to_the_validation_rows_it_names(run: Run) -> None:
    sample, rows = run.validation(), run.raw_sample()
    assert len(rows) == 300
    for side, ids in (("context", sample.context_ids), ("candidate", sample.candidate_ids)):
        # A training-only field is in the training encoder like any other.
        encoded = run.encoder.encode_rows(side, [row[side] for row in rows])
        assert np.array_equal(encoded, ids[[row["row"] for row in rows]])


def test_the_reference_describes_the_training_split_on_the_scale_that_is_served(run: Run, data: PreparedData) -> None:
    train = data.split("train")
    rate = float(train.label.mean())
    assert run.reference["rows"] == 900
    assert run.reference["base_rate"] == pytest.approx(0.5 * rate / (0.5 * rate + 1 - rate))
    assert set(run.reference["fields"]) == {"user", "<script>", "ad", "copy_of_ad", "price", "tags"}
    assert run.reference["fields"]["user"]["missing"] == pytest.approx(float((train.context_ids[:, 0] == 0).mean()))
    assert run.reference["fields"]["tags"]["truncated"] == pytest.approx(0.25, abs=0.1)
    assert sum(run.reference["score_histogram"]["counts"]) == 300


def test_reference_scores_are_those_of_rows_shown_in_the_serving_position(run: Run) -> None:
    assert "position" in {slot.name for slot in run.form().slots}
    sample = run.validation()
    candidate_ids = sample.candidate_ids.copy()
    column = next(column for column in run.encoder.columns("candidate") if column.name == "position")
    candidate_ids[:, column.first] = run.encoder.encode_values("position", ["1"])[0, 0]
    with torch.inference_mode():
        logits = run.form()(torch.from_numpy(sample.context_ids).long(), torch.from_numpy(candidate_ids).long())
    served = torch.sigmoid(logits + np.log(0.5)).numpy()
    assert run.reference["mean_score"] == pytest.approx(float(served.mean()), abs=1e-6)
    expected, _ = np.histogram(served, bins=run.reference["score_histogram"]["edges"])
    assert run.reference["score_histogram"]["counts"] == expected.tolist()


def test_what_afe_kept_is_what_the_model_reads(run: Run) -> None:
    assert {slot.name for slot in run.form().slots} <= set(run.selection["kept"])
    assert {record["phase"] for record in run.history()} == {"tower_a", "tower_b", "fusion"}


def spoil_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        record = read_json(path / name)
        (path / name).write_text(json.dumps(record | changes), encoding="utf-8")

    return change


def flip_a_bit(path: Path) -> None:
    content = bytearray((path / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "weights.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (flip_a_bit, RunCorruptError, r"weights\.safetensors: expected \{.*'sha256': .*got \{.*'sha256'"),
        (lambda path: (path / "pair.safetensors").unlink(), RunCorruptError, r"pair\.safetensors: expected a file"),
        (
            lambda path: (path / "notes.txt").touch(),
            RunCorruptError,
            r"notes\.txt: expected only the files in run\.json",
        ),
        (
            lambda path: (path / "run.json").unlink(),
            RunMissingError,
            r"\(with run\.json\), got a directory without one",
        ),
        (lambda path: (path / "run.json").write_text("{"), RunFormatError, r"run\.json: expected JSON, got"),
        (spoil_json("run.json", format="x"), RunFormatError, "format: expected 'reaction-run', got 'x'"),
        (spoil_json("run.json", version=1), RunFormatError, "version: expected 2, got 1"),
        (spoil_json("run.json", status="training"), RunUnfinishedError, "expected 'complete', got 'training'"),
        (spoil_json("run.json", files=None), RunFormatError, "files: expected a table of digests, got None"),
        (spoil_json("metrics.json", test={}), RunCorruptError, r"metrics\.json: expected"),
    ],
)
def test_a_spoilt_run_is_refused_with_the_file_what_was_expected_and_what_was_found(
    copy: Path, spoil: Callable[[Path], None], error: type[RunError], message: str
) -> None:
    spoil(copy)
    with pytest.raises(error, match=message):
        open_run(copy)


def test_a_path_without_a_run_or_with_an_unfinished_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunMissingError, match="got no such path"):
        open_run(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(RunMissingError, match="got a file"):
        open_run(tmp_path / "file")
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial" / "start.json").touch()
    with pytest.raises(RunUnfinishedError, match=r"got an unfinished one \(run.partial\)"):
        open_run(tmp_path / "run")
    with pytest.raises(RunUnfinishedError, match="got an unfinished one"):
        open_run(tmp_path / "run.partial")


def test_a_sample_is_seeded_ascending_and_without_repeats() -> None:
    assert sample_rows(5, 10, seed=1).tolist() == [0, 1, 2, 3, 4]
    rows = sample_rows(1000, 100, seed=1)
    assert len(set(rows.tolist())) == 100
    assert np.array_equal(rows, np.sort(rows))
    assert np.array_equal(rows, sample_rows(1000, 100, seed=1))
    assert not np.array_equal(rows, sample_rows(1000, 100, seed=2))


def test_a_validation_sample_with_a_tensor_too_few_is_refused(tmp_path: Path) -> None:
    ids = np.zeros((2, 1), np.int32)
    sample = ValidationSample(ids, ids, np.zeros(2, np.uint8), np.zeros(2, np.float32))
    sample.save(tmp_path / "full.safetensors")
    again = ValidationSample.open(tmp_path / "full.safetensors")
    assert again.weight is None
    assert np.array_equal(again.context_ids, ids)
    ValidationSample(ids, ids, np.zeros(2, np.uint8), None).save(tmp_path / "less.safetensors")  # type: ignore[arg-type]
    with pytest.raises(RunCorruptError, match=r"less\.safetensors: expected the tensors"):
        ValidationSample.open(tmp_path / "less.safetensors")


def test_differences_name_the_path_of_every_value_that_changed() -> None:
    was = {"a": 1, "b": {"c": [1, {"d": 2}], "e": [1]}, "gone": 0}
    now = {"a": 1, "b": {"c": [1, {"d": 3}], "e": [1, 2]}, "new": 0}
    assert list(differences(was, was)) == []
    assert list(differences(was, now)) == [
        ("b.c[1].d", 2, 3),
        ("b.e", [1], [1, 2]),
        ("gone", 0, None),
        ("new", None, 0),
    ]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package in a repository of its own, one commit."""
    package = tmp_path / "repo" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for command in (
        ["init", "-q"],
        ["add", "package/__init__.py"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path / "repo", env=os.environ | settings, check=True)  # noqa: S607
    return package


def test_the_git_revision_is_the_commit_and_says_when_files_differ_from_it(checkout: Path) -> None:
    commit = git_revision(checkout)
    assert commit is not None
    assert len(commit) == 40
    (checkout / "__init__.py").write_text("changed = True\n")
    assert git_revision(checkout) == commit + "-dirty"


def test_a_package_that_is_not_tracked_or_on_a_machine_without_git_has_no_revision(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = checkout.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert git_revision(installed) is None
    assert git_revision(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision(checkout) is None


def test_a_library_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "LIBRARIES", ("numpy", "no-such-library"))
    assert library_versions() == {
        "python": library_versions()["python"],
        "numpy": np.__version__,
        "no-such-library": None,
    }


def test_history_and_samples_are_one_json_object_a_line(run: Run) -> None:
    lines = (run.path / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == read_jsonl(run.path / "history.jsonl")
    assert tiny.EXPERIMENT.count("[[data.fields]]") == len(run.encoder.fields)


def test_a_model_is_loaded_without_torchs_compiler_whose_import_takes_a_second(tiny_home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from training.models.files import load_fusion_form; "
        "load_fusion_form(Path(sys.argv[1])); sys.exit('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_home / "run"], env=tiny.environment(), check=False, timeout=60
    )
    assert done.returncode == 0
