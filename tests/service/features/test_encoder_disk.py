"""An encoder on disk: the same bytes back, and nothing else is opened."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fields_of_all_kinds import FIELDS, VOCABULARIES

from service.features import (
    CategoricalField,
    FeatureEncoder,
    Field,
    HashedVocabulary,
    MultiValuedField,
    NumericField,
    SchemaError,
    Vocabulary,
)
from service.features.files import digest_file


@pytest.fixture
def encoder() -> FeatureEncoder:
    return FeatureEncoder(FIELDS, VOCABULARIES)


@pytest.fixture
def serving(encoder: FeatureEncoder) -> FeatureEncoder:
    return encoder.for_serving({"hour", "price"})


class TestDisk:
    def test_an_opened_encoder_is_the_same_and_saves_the_same_bytes(
        self, encoder: FeatureEncoder, serving: FeatureEncoder, tmp_path: Path
    ) -> None:
        for name, original in (("whole", encoder), ("serving", serving)):
            first, second = tmp_path / name, tmp_path / f"{name}-again"
            first.mkdir()
            second.mkdir()
            original.save(first)
            opened = FeatureEncoder.open(first)
            opened.save(second)
            files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
            assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
            assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
            assert (opened.fields, opened.ignored, opened.refused) == (
                original.fields,
                original.ignored,
                original.refused,
            )
            assert opened.digest == original.digest == digest_file(first / "features.json").sha256
            rows = [{"ad": "a2", "tags": "y|z"}, {"ad": "a1"}]
            assert (opened.encode_rows("candidate", rows) == original.encode_rows("candidate", rows)).all()

    def test_a_packed_vocabulary_stays_packed(self, encoder: FeatureEncoder, tmp_path: Path) -> None:
        encoder.save(tmp_path)
        opened = FeatureEncoder.open(tmp_path)
        packed = {name: v.packed for name in VOCABULARIES if isinstance(v := opened.vocabulary(name), Vocabulary)}
        assert packed == {name: name == "ad" for name in packed}

    def test_nothing_is_overwritten(self, encoder: FeatureEncoder, tmp_path: Path) -> None:
        encoder.save(tmp_path)
        with pytest.raises(FileExistsError):
            encoder.save(tmp_path)

    def test_any_change_of_a_vocabulary_changes_the_digest(self, encoder: FeatureEncoder) -> None:
        digests = {encoder.digest}
        for name, changed in (("user", Vocabulary(["u1"])), ("price", HashedVocabulary(101))):
            digests.add(FeatureEncoder(FIELDS, VOCABULARIES | {name: changed}).digest)
        assert len(digests) == 3

    @pytest.mark.parametrize("file", ["features.json", "vocabularies/000.safetensors"])
    def test_a_missing_file_is_named(self, encoder: FeatureEncoder, tmp_path: Path, file: str) -> None:
        encoder.save(tmp_path)
        (tmp_path / file).unlink()
        with pytest.raises(SchemaError, match=f"{tmp_path / file}: expected a readable file, got No such file"):
            FeatureEncoder.open(tmp_path)

    def test_a_changed_vocabulary_is_refused_before_it_is_parsed(self, encoder: FeatureEncoder, tmp_path: Path) -> None:
        encoder.save(tmp_path)
        path = tmp_path / "vocabularies/000.safetensors"
        content = path.read_bytes()
        path.write_bytes(bytes(len(content)))
        with pytest.raises(SchemaError, match=f"{path}: expected SHA-256 [0-9a-f]{{64}}, got [0-9a-f]{{64}}"):
            FeatureEncoder.open(tmp_path)
        for other in (content[:-1], content + b"\0", b""):
            path.write_bytes(other)
            with pytest.raises(SchemaError, match=f"{path}: expected {len(content)} bytes, got {len(other)}"):
                FeatureEncoder.open(tmp_path)

    def test_digests_that_the_caller_knows_are_compared(self, encoder: FeatureEncoder, tmp_path: Path) -> None:
        encoder.save(tmp_path)
        files = [f"vocabularies/{path.name}" for path in (tmp_path / "vocabularies").iterdir()]
        known = {file: digest_file(tmp_path / file).sha256 for file in files}
        assert FeatureEncoder.open(tmp_path, verified=known).digest == encoder.digest
        with pytest.raises(SchemaError, match=r"expected SHA-256 [0-9a-f]{64}, got 00"):
            FeatureEncoder.open(tmp_path, verified=known | {"vocabularies/000.safetensors": "00"})

    def test_a_link_out_of_the_directory_is_not_followed(self, encoder: FeatureEncoder, tmp_path: Path) -> None:
        inside = tmp_path / "inside"
        inside.mkdir()
        encoder.save(inside)
        path = inside / "vocabularies/000.safetensors"
        path.rename(tmp_path / "outside")
        path.symlink_to(tmp_path / "outside")
        with pytest.raises(SchemaError, match=r"expected plain files and directories, got a symbolic link at '000"):
            FeatureEncoder.open(inside)
        (inside / "vocabularies").rename(tmp_path / "elsewhere")
        (inside / "vocabularies").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(SchemaError, match="got a symbolic link at 'vocabularies'"):
            FeatureEncoder.open(inside)

    def test_what_is_no_regular_file_is_not_opened(self, encoder: FeatureEncoder, tmp_path: Path) -> None:
        encoder.save(tmp_path)
        path = tmp_path / "vocabularies/000.safetensors"
        path.unlink()
        os.mkfifo(path)  # reading it would wait for ever
        with pytest.raises(SchemaError, match="expected a regular file, got something else"):
            FeatureEncoder.open(tmp_path)

    @pytest.mark.parametrize(
        "path",
        [
            "/etc/passwd",
            "../features.json",
            "vocabularies/../000",
            "./x",
            "a//b",
            "",
            "vocabularies\\000",
            "a\0b",
            "a/.",
        ],
    )
    def test_a_path_that_leaves_the_directory_is_refused(
        self, encoder: FeatureEncoder, tmp_path: Path, path: str
    ) -> None:
        encoder.save(tmp_path)
        change(tmp_path, lambda schema: schema["fields"][0]["vocabulary"].update(file=path))
        with pytest.raises(SchemaError, match="expected a relative path"):
            FeatureEncoder.open(tmp_path)


def change(directory: Path, edit: Callable[[Any], object]) -> None:
    document = json.loads((directory / "features.json").read_text())
    edit(document)
    (directory / "features.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(format="other"), "expected format 'reaction-features', got 'other'"),
        (lambda d: d.update(version=2), "expected version 1, got 2"),
        (lambda d: d.pop("version"), "missing required field `version`"),
        (lambda d: d.update(extra=1), "unknown field `extra`"),
        (lambda d: d.pop("fields"), "missing required field `fields`"),
        (lambda d: d["fields"][0].update(extra=1), r"unknown field `extra` - at `\$.fields\[0\]`"),
        (lambda d: d["fields"][0].update(kind="other"), r"Invalid value 'other' - at `\$.fields\[0\].kind`"),
        (lambda d: d["fields"][0].update(name=3), r"Expected `str`, got `int` - at `\$.fields\[0\].name`"),
        (lambda d: d["fields"][0].update(name=""), "field name: expected non-empty UTF-8 text"),
        (lambda d: d["fields"][0].update(side="item"), r"at `\$.fields\[0\].side`"),
        (lambda d: d["fields"][0].update(use="maybe"), r"at `\$.fields\[0\].use`"),
        (lambda d: d["fields"][0].update(use="ignored"), "field 'user': expected a vocabulary if and only if"),
        (lambda d: d["fields"][0].pop("vocabulary"), "field 'user': expected a vocabulary if and only if"),
        (lambda d: d["fields"][0]["vocabulary"].update(extra=1), r"at `\$.fields\[0\].vocabulary`"),
        (lambda d: d["fields"][0]["vocabulary"].update(bytes="9"), r"at `\$.fields\[0\].vocabulary.bytes`"),
        (lambda d: d["fields"][0]["vocabulary"].update(size=99), "expected 99 ids, got 5"),
        (lambda d: d["fields"][0].update(edges=[1.0]), "unknown field `edges`"),
        (
            lambda d: d["fields"][0].update(serving_constant=1.5),
            "serving_constant: expected text or an integer",
        ),
        (lambda d: d["fields"][1].update(max_values=0), "field 'tags', max_values: expected an integer from 1"),
        (lambda d: d["fields"][1].update(max_values=2.5), r"at `\$.fields\[1\].max_values`"),
        (lambda d: d["fields"][1].update(pooling="max"), r"at `\$.fields\[1\].pooling`"),
        (lambda d: d["fields"][1].update(separator=""), "field 'tags', separator: expected non-empty text"),
        (lambda d: d["fields"][2].update(edges=[2.0, 1.0]), r"field 'hour', edges\[1\]: expected more than"),
        (lambda d: d["fields"][2].update(edges=["1"]), r"at `\$.fields\[2\].edges\[0\]`"),
        (lambda d: d["fields"][4]["vocabulary"].update(buckets=0), "buckets: expected an integer from 1"),
        (lambda d: d["fields"].append(d["fields"][0]), "field 'user': expected a file of its own"),
        (lambda d: d["fields"].append(d["fields"][4]), "fields: expected distinct names, got 'price' twice"),
    ],
)
def test_a_schema_that_breaks_the_format_is_refused(
    encoder: FeatureEncoder, tmp_path: Path, edit: Callable[[Any], object], message: str
) -> None:
    encoder.save(tmp_path)
    change(tmp_path, edit)
    with pytest.raises(SchemaError, match=message):
        FeatureEncoder.open(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        pytest.param(b"[" * 100_000, id="nested"),
        b'{"format": NaN, "version": 1}',
    ],
)
def test_a_schema_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "features.json").write_bytes(content)
    with pytest.raises(SchemaError, match=f"^{tmp_path / 'features.json'}: "):
        FeatureEncoder.open(tmp_path)


def test_edges_that_overflow_in_the_file_are_refused(encoder: FeatureEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    path = tmp_path / "features.json"
    path.write_bytes(path.read_bytes().replace(b"12.0", b"1e999"))
    with pytest.raises(SchemaError, match="out of range"):
        FeatureEncoder.open(tmp_path)


@pytest.mark.parametrize(
    "field",
    [
        CategoricalField("n", "context", ""),
        CategoricalField("n", "context", "é\0\n"),
        CategoricalField("n", "context", 10**30),
        CategoricalField("n", "context", -7),
        NumericField("n", "context", (0.1, 1 / 3), 0.1),
        NumericField("n", "context", (-5e-324, 1.7976931348623157e308), 2),
        NumericField("n", "context", (), "1e5"),
        MultiValuedField("n", "context", 2, "mean", "\0", ["a", 7]),
        MultiValuedField("n", "context", 2, serving_constant=""),
    ],
)
def test_a_declaration_survives_the_file(tmp_path: Path, field: Field) -> None:
    FeatureEncoder([field], {"n": HashedVocabulary(10, field.reserved)}).save(tmp_path)
    opened = FeatureEncoder.open(tmp_path).fields[0]
    assert opened == field
    assert type(opened.serving_constant) is type(field.serving_constant)
