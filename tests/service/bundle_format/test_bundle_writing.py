"""Writing a bundle: it appears whole, checked and on disk, or leaves nothing."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from serving import HandModel, build_bundle, build_encoder

from service.bundle import (
    BundleExistsError,
    BundleFormatError,
    GoldenRow,
    Inputs,
    StagedBundle,
    read_bundle,
    write_bundle,
)

REFERENCE = {"format": "reaction-reference", "version": 1}
GOLDEN = GoldenRow({}, {}, [0, 0], [0, 0, 0, 2, 2], 0.5)


def fill(staged: StagedBundle, **changes: Any) -> None:
    """A bundle with everything in it; changes are arguments of `describe`, or files."""
    encoder = build_encoder()
    onnx.save(HandModel().graph(encoder), staged.path / "model.onnx")
    staged.write_encoder(encoder)
    staged.write_golden(changes.pop("golden", [GOLDEN]))
    staged.write_reference(changes.pop("reference", REFERENCE))
    plain: dict[str, Any] = {"model_id": "m", "inputs": Inputs(context_ids=2, candidate_ids=5)}
    staged.describe(**(plain | {"training": {}, "model": {}} | changes))


class TestWriting:
    def test_what_exists_is_never_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        for name in ("link", "file", "folder"):
            with (
                pytest.raises(BundleExistsError, match=f"^{tmp_path / name}: expected a path that does not exist"),
                write_bundle(tmp_path / name),
            ):
                pytest.fail("the body must not run")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]

    def test_what_came_up_meanwhile_is_not_overwritten(self, tmp_path: Path) -> None:
        destination = tmp_path / "b"
        with pytest.raises(BundleExistsError), write_bundle(destination) as staged:  # noqa: PT012 - all of it
            fill(staged)
            destination.mkdir()
        assert list(tmp_path.iterdir()) == [destination]

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, FileExistsError])
    def test_nothing_is_left_when_the_writing_fails(self, tmp_path: Path, error: type[BaseException]) -> None:
        def write() -> None:
            with write_bundle(tmp_path / "deep" / "b") as staged:
                fill(staged)
                raise error("in the middle")

        with pytest.raises(error, match="in the middle"):
            write()
        assert list((tmp_path / "deep").iterdir()) == []

    def test_nothing_is_visible_before_the_end(self, tmp_path: Path) -> None:
        with write_bundle(tmp_path / "b") as staged:
            fill(staged)
            assert not (tmp_path / "b").exists()
            assert staged.path.parent == tmp_path
        assert [path.name for path in tmp_path.iterdir()] == ["b"]
        assert (tmp_path / "b").stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"golden": []}, "golden.jsonl: expected one row or more"),
            (
                {"golden": [msgspec.structs.replace(GOLDEN, pctr=float("nan"))]},
                "golden.jsonl: expected values that JSON",
            ),
            ({"golden": [msgspec.structs.replace(GOLDEN, context_ids=[0])]}, "expected as many ids"),
            (
                {"golden": [msgspec.structs.replace(GOLDEN, context={"user": {1}})]},
                "expected values that JSON can hold",
            ),
            ({"reference": {}}, "reference.json, format: expected 'reaction-reference', got None"),
            ({"reference": REFERENCE | {"x": float("inf")}}, "reference.json: expected values that JSON can hold"),
            ({"model_id": "a/b"}, "model_id: expected 1 to 128 letters"),
            ({"inputs": Inputs(context_ids=3, candidate_ids=5)}, "expected the columns of"),
            ({"model": {"tolerance": -1.0}}, "model.tolerance: expected above 0"),
            ({"training": {"x": {1}, "y": object()}}, "expected values that JSON can hold"),
            ({"created": datetime(2026, 1, 1)}, "created: expected a time with an offset"),  # noqa: DTZ001
        ],
    )
    def test_what_the_service_would_refuse_is_not_written(
        self, tmp_path: Path, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(BundleFormatError, match=message), write_bundle(tmp_path / "b") as staged:
            fill(staged, **changes)
        assert list(tmp_path.iterdir()) == []

    def test_a_bundle_without_a_graph_or_a_description_is_not_written(self, tmp_path: Path) -> None:
        def without_graph() -> None:
            with write_bundle(tmp_path / "b") as staged:
                fill(staged)
                (staged.path / "model.onnx").unlink()

        with pytest.raises(BundleFormatError, match=r"expected model\.onnx, got none"):
            without_graph()
        with pytest.raises(BundleFormatError, match="expected a description"), write_bundle(tmp_path / "b") as staged:
            staged.write_encoder(build_encoder())
        assert list(tmp_path.iterdir()) == []

    def test_the_same_bundle_is_the_same_bytes(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            with write_bundle(tmp_path / name) as staged:
                fill(staged, created=datetime(2026, 1, 1, tzinfo=UTC))
        assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()

    def test_raw_values_of_golden_rows_come_back_exactly(self, tmp_path: Path) -> None:
        raw = {
            "text": '\u2028\n\r\0é\U0001d4b3"\\', "seven": "007", "integer": 7, "large": -(10**600), "float": 7.0,
            "zero": -0.0, "tenth": 0.1, "tiny": 5e-324, "list": ["a", 7, ""], "null": None, "empty": "",
        }  # fmt: skip
        golden = [
            msgspec.structs.replace(GOLDEN, context=raw, candidate=raw, pctr=value) for value in (0.1, 1 / 3, 0, 1)
        ]
        with write_bundle(tmp_path / "b") as staged:
            fill(staged, golden=golden)
        read = read_bundle(tmp_path / "b").golden
        assert list(read) == golden
        for row in read:
            assert {key: repr(value) for key, value in row.context.items()} == {k: repr(v) for k, v in raw.items()}

    def test_free_facts_of_the_model_are_kept_beside_the_typed_ones(self, tmp_path: Path) -> None:
        facts = {"parameters": 10, "folded_fields": ["ad"], "negative_sampling_rate": 0.1, "note": {"x": [1, None]}}
        with write_bundle(tmp_path / "b") as staged:
            fill(staged, model=facts, training={"run": "r", "versions": {"torch": "2"}})
        manifest = read_bundle(tmp_path / "b").manifest
        assert manifest.model == facts
        assert (manifest.facts.parameters, manifest.facts.folded_fields) == (10, ("ad",))
        assert manifest.facts.negative_sampling_rate == 0.1


def test_a_packed_vocabulary_travels_in_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.features.vocabulary.LARGEST_TABLE", 1)
    build_bundle(tmp_path / "b")
    monkeypatch.undo()
    encoder = read_bundle(tmp_path / "b").encoder
    assert encoder.vocabulary("ad").packed  # type: ignore[union-attr]
    plain = build_encoder()
    rows = [{"ad": "a1"}, {"ad": "é"}, {"ad": "unseen"}, {"ad": None}]
    assert (encoder.encode_rows("candidate", rows) == plain.encode_rows("candidate", rows)).all()
