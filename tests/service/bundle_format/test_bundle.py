"""The bundle: whole or not at all, written and read."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from serving import DROPPED, MODEL_ID, build_encoder

from service.bundle import (
    BundleChangedError,
    BundleCorruptError,
    BundleError,
    BundleFormatError,
    BundleMissingError,
    read_bundle,
)
from service.features import files
from service.features.files import digest_file


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may spoil."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


class TestReading:
    def test_a_bundle_gives_back_what_was_written(self, bundle: Path) -> None:
        read = read_bundle(bundle)
        assert read.manifest.model_id == MODEL_ID
        assert read.manifest.facts.dropped_fields == DROPPED
        assert read.manifest.facts.tolerance == 1e-6
        assert read.manifest.facts.negative_sampling_rate == 1.0
        assert read.manifest.training["metrics"]["validation"]["fused"]["auc"] == 0.75
        assert datetime.fromisoformat(read.manifest.created).tzinfo is not None
        assert read.encoder.digest == build_encoder().digest
        assert read.reference["base_rate"] == 0.25
        assert read.model_path == bundle.resolve() / "model.onnx"
        assert len(read.golden) == 9

    def test_the_manifest_digests_every_other_file(self, bundle: Path) -> None:
        files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
        listed = read_bundle(bundle).manifest.files
        assert set(listed) == files - {"manifest.json"}
        for name, entry in listed.items():
            found = digest_file(bundle / name)
            assert (entry.bytes, entry.sha256) == (found.bytes, found.sha256)

    @pytest.mark.parametrize("large", [0, 5, 1000])
    def test_files_digested_side_by_side_have_their_own_digests(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
    ) -> None:
        monkeypatch.setattr(files, "_LARGE_BYTES", large)
        contents = {
            tmp_path / f"{number}": bytes([number]) * size for number, size in enumerate((3, 9, 0, 200_000, 7, 9))
        }
        for path, content in contents.items():
            path.write_bytes(content)
        found = files.digest_files(contents)
        assert {path: (digest.bytes, digest.sha256) for path, digest in found.items()} == {
            path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in contents.items()
        }

    def test_another_manifest_than_the_one_asked_for_is_refused(self, bundle: Path) -> None:
        own = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
        assert read_bundle(bundle, manifest_sha256=own).path == bundle.resolve()
        with pytest.raises(BundleChangedError, match=f"expected SHA-256 {'0' * 64}, got {own}: the bundle changed on"):
            read_bundle(bundle, manifest_sha256="0" * 64)

    def test_the_path_may_be_a_link_that_moves(self, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "current").symlink_to(bundle)
        assert read_bundle(tmp_path / "current").path == bundle.resolve()

    def test_no_bundle_is_named(self, bundle: Path, tmp_path: Path) -> None:
        with pytest.raises(
            BundleMissingError, match=f"^{tmp_path / 'x'}: expected the directory of a bundle, got noth"
        ):
            read_bundle(tmp_path / "x")
        with pytest.raises(BundleMissingError, match="expected the directory of a bundle, got a file"):
            read_bundle(bundle / "manifest.json")
        with pytest.raises(
            BundleMissingError, match=f"^{tmp_path / 'manifest.json'}: expected a file, got No such file"
        ):
            read_bundle(tmp_path)

    @pytest.mark.parametrize("verify", [True, False])
    def test_every_single_missing_file_is_noticed(self, copy: Path, verify: bool) -> None:
        for path in [path for path in copy.rglob("*") if path.is_file()]:
            content = path.read_bytes()
            path.unlink()
            with pytest.raises(BundleMissingError, match=f"^{path}: expected a file, got No such file or directory"):
                read_bundle(copy, verify=verify)
            path.write_bytes(content)
        read_bundle(copy)

    def test_a_flipped_bit_in_any_file_is_noticed(self, copy: Path) -> None:
        for path in [path for path in copy.rglob("*") if path.is_file() and path.name != "manifest.json"]:
            content = path.read_bytes()
            middle = len(content) // 2
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
            with pytest.raises(
                BundleCorruptError, match=f"^{path}: expected SHA-256 [0-9a-f]{{64}}, got [0-9a-f]{{64}}$"
            ):
                read_bundle(copy)
            path.write_bytes(content)

    @pytest.mark.parametrize("verify", [True, False])
    def test_a_file_of_another_size_is_noticed(self, copy: Path, verify: bool) -> None:
        for path in [path for path in copy.rglob("*") if path.is_file() and path.name != "manifest.json"]:
            content = path.read_bytes()
            path.write_bytes(content + b"\n")
            with pytest.raises(
                BundleCorruptError, match=f"^{path}: expected {len(content)} bytes, got {len(content) + 1}$"
            ):
                read_bundle(copy, verify=verify)
            path.write_bytes(content)

    @pytest.mark.parametrize("name", ["extra", "vocabularies/extra", "new/extra", ".hidden"])
    def test_a_file_that_the_manifest_does_not_name_is_refused(self, copy: Path, name: str) -> None:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("x")
        with pytest.raises(BundleCorruptError, match=f"expected only files of the manifest, got '{name}' beside them"):
            read_bundle(copy)

    def test_no_link_inside_is_followed(self, copy: Path, tmp_path: Path) -> None:
        for name in ("model.onnx", "vocabularies"):
            outside = tmp_path / f"outside-{name}"
            (copy / name).rename(outside)
            (copy / name).symlink_to(outside)
            with pytest.raises(BundleCorruptError, match=f"got a symbolic link at '{name}'"):
                read_bundle(copy)
            (copy / name).unlink()
            outside.rename(copy / name)
        (copy / "link").symlink_to(tmp_path)
        with pytest.raises(BundleCorruptError, match="got 'link' beside them"):
            read_bundle(copy)

    def test_a_pipe_in_the_place_of_a_file_is_not_opened(self, copy: Path) -> None:
        (copy / "golden.jsonl").unlink()
        os.mkfifo(copy / "golden.jsonl")
        with pytest.raises(BundleCorruptError, match=r"'golden.jsonl': expected a regular file, got something else"):
            read_bundle(copy)

    def test_skipping_the_digests_still_compares_those_of_manifest_and_schema(self, copy: Path) -> None:
        change(copy, lambda m: m["files"]["vocabularies/000.safetensors"].update(sha256="0" * 64))
        with pytest.raises(BundleFormatError, match=r"expected SHA-256 [0-9a-f]{64}, got 0{64}"):
            read_bundle(copy, verify=False)


def change(path: Path, edit: Callable[[Any], object]) -> None:
    document = json.loads((path / "manifest.json").read_text())
    edit(document)
    (path / "manifest.json").write_text(json.dumps(document))


def replace(path: Path, name: str, content: bytes) -> None:
    """Another content of a file, with its right digest: what a careless writer, not a thief, leaves."""
    (path / name).write_bytes(content)
    found = digest_file(path / name)
    change(path, lambda m: m["files"][name].update(sha256=found.sha256, bytes=found.bytes))


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda m: m.update(format="zip"), BundleFormatError, "expected format 'reaction-bundle', got 'zip'"),
        (lambda m: m.update(version=2), BundleFormatError, "expected version 1, got 2"),
        (lambda m: m.pop("version"), BundleFormatError, "missing required field `version`"),
        (lambda m: m.update(extra=1), BundleFormatError, "unknown field `extra`"),
        (lambda m: m.pop("files"), BundleFormatError, "missing required field `files`"),
        (lambda m: m["files"].pop("model.onnx"), BundleFormatError, "files: expected model.onnx, got none"),
        (lambda m: m["files"].pop("vocabularies/000.safetensors"), BundleCorruptError, "beside them"),
        (lambda m: m.update(model_id=3), BundleFormatError, r"Expected `str`, got `int` - at `\$.model_id`"),
        (lambda m: m.update(model_id="a b"), BundleFormatError, "model_id: expected 1 to 128 letters"),
        (lambda m: m.update(model_id=""), BundleFormatError, "model_id: expected 1 to 128 letters"),
        (lambda m: m.update(model_id="../up"), BundleFormatError, "model_id: expected 1 to 128 letters"),
        (lambda m: m.update(created="now"), BundleFormatError, "created: expected an ISO 8601 time, got 'now'"),
        (lambda m: m.update(created="2026-01-01T00:00:00"), BundleFormatError, "created: expected a time with"),
        (lambda m: m.update(output="ctr"), BundleFormatError, r"at `\$.output`"),
        (lambda m: m["inputs"].update(context_ids=9), BundleFormatError, "expected the columns of Inputs"),
        (lambda m: m["inputs"].update(context_ids=-1), BundleFormatError, "inputs: expected counts of columns"),
        (lambda m: m["inputs"].update(other=1), BundleFormatError, "unknown field `other`"),
        (lambda m: m["files"]["model.onnx"].update(bytes=-1), BundleFormatError, "a SHA-256 and a size for"),
        (lambda m: m["files"]["model.onnx"].update(sha256="AB"), BundleFormatError, "a SHA-256 and a size for"),
        (lambda m: m["files"]["model.onnx"].update(mode=1), BundleFormatError, "unknown field `mode`"),
        (lambda m: m["model"].update(tolerance="x"), BundleFormatError, "Expected `float`, got `str`"),
        (lambda m: m["model"].update(tolerance=0.0), BundleFormatError, "model.tolerance: expected above 0"),
        (lambda m: m["model"].update(negative_sampling_rate=2), BundleFormatError, "rate: expected above 0"),
    ],
)  # fmt: skip
def test_a_manifest_that_breaks_the_format_is_refused(
    copy: Path, edit: Callable[[Any], object], error: type[BundleError], message: str
) -> None:
    change(copy, edit)
    with pytest.raises(error, match=f"{copy}.*{message}"):
        read_bundle(copy)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b"{",
        pytest.param(b"[" * 100_000, id="nested"),
        pytest.param(b'{"training": ' + b"[" * 100_000, id="nested within"),
        b'{"format": "reaction-bundle", "version": 1}',
    ],
)
def test_a_manifest_that_is_none_is_refused(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(BundleFormatError, match=f"^{copy / 'manifest.json'}: "):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["/etc/passwd", "../copy/model.onnx", "./model.onnx", "a//b", "", "a\\b", "a\0b"])
def test_a_path_that_leaves_the_bundle_is_refused(copy: Path, name: str) -> None:
    change(copy, lambda m: m["files"].update({name: {"sha256": "0" * 64, "bytes": 1}}))
    with pytest.raises(BundleCorruptError, match="expected a relative path of plain names"):
        read_bundle(copy)


GOOD_LINE = {"context": {}, "candidate": {}, "context_ids": [0, 0], "candidate_ids": [0, 0, 0, 2, 2], "pctr": 0.5}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "line 1: Expecting value"),
        ("{", "line 1: Expecting property name"),
        pytest.param("[" * 100_000, "line 1: maximum recursion depth exceeded", id="nested"),
        (GOOD_LINE | {"pctr": 1.5}, "line 1, pctr: expected a probability, got 1.5"),
        (GOOD_LINE | {"pctr": "0.5"}, r"line 1: Expected `float`, got `str` - at `\$.pctr`"),
        (json.dumps(GOOD_LINE).replace("0.5", "NaN"), "line 1: NaN is no JSON"),
        (GOOD_LINE | {"context_ids": [0]}, "line 1: expected as many ids as Inputs"),
        (
            GOOD_LINE | {"candidate_ids": [0, 0, 0, 2, True]},
            r"line 1: Expected `int`, got `bool` - at `\$.candidate_ids\[4\]`",
        ),
        (GOOD_LINE | {"extra": 1}, "line 1: Object contains unknown field `extra`"),
        ({key: GOOD_LINE[key] for key in ("context", "candidate")}, "line 1: Object missing required field"),
    ],
)
def test_golden_rows_that_break_the_format_are_refused(copy: Path, line: object, message: str) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    replace(copy, "golden.jsonl", f"{text}\n".encode())
    with pytest.raises(BundleFormatError, match=f"^{copy / 'golden.jsonl'}, {message}"):
        read_bundle(copy)


def test_a_bundle_without_golden_rows_is_refused(copy: Path) -> None:
    replace(copy, "golden.jsonl", b"")
    with pytest.raises(BundleFormatError, match=r"golden.jsonl: expected one row or more, got none"):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"[]", "expected an object, got list"),
        pytest.param(b"[" * 100_000, "maximum recursion depth exceeded", id="nested"),
        (b'{"format": "other", "version": 1}', "format: expected 'reaction-reference', got 'other'"),
        (b'{"format": "reaction-reference", "version": 2}', "version: expected 1, got 2"),
        (b'{"format": "reaction-reference", "version": 1, "x": Infinity}', "Infinity is no JSON"),
    ],
)
def test_reference_statistics_that_break_the_format_are_refused(copy: Path, content: bytes, message: str) -> None:
    replace(copy, "reference.json", content)
    with pytest.raises(BundleFormatError, match=f"reference.json(: |, ){message}"):
        read_bundle(copy)
