"""Opening prepared data: what is damaged is refused with file, expected and got."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import made_up
import numpy as np
import pytest

from training.datasets.config import DataConfig
from training.loader import PreparedData, PreparedDataError
from training.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("loader")
    made_up.write(root / "log.csv", made_up.rows(120))
    prepare(made_up.config(str(root / "log.csv")), base=root, seed=1, name="t", out=root / "data")
    return root / "data"


@pytest.fixture
def data(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "data")
    return tmp_path / "data"


def test_what_was_prepared_opens_as_mapped_arrays(original: Path) -> None:
    opened = PreparedData.open(original, verify=True)
    assert opened.splits == ("train", "valid", "test")
    split = opened.split("train")
    assert isinstance(split.context_ids, np.memmap)
    assert split.context_ids.dtype == split.candidate_ids.dtype == np.int32
    assert split.context_ids.shape == (split.rows, opened.encoder.width("context"))
    assert split.candidate_ids.shape == (split.rows, opened.encoder.width("candidate"))
    assert split.label.dtype == np.uint8
    assert split.weight is not None
    assert split.weight.dtype == np.float32
    assert split.group is not None
    assert split.group.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        split.context_ids[0, 0] = 1


def test_prepare_hands_out_what_opening_would(tmp_path: Path) -> None:
    made_up.write(tmp_path / "log.csv", made_up.rows(120))
    data = prepare(made_up.config(str(tmp_path / "log.csv")), base=tmp_path, seed=1, name="t", out=tmp_path / "data")
    opened = PreparedData.open(tmp_path / "data", verify=True)
    assert data.info == opened.info
    assert data.digest == opened.digest
    assert data.encoder.digest == opened.encoder.digest


def test_a_side_without_fields_has_no_columns(tmp_path: Path) -> None:
    made_up.write(tmp_path / "log.csv", made_up.rows(60))
    section = made_up.section(str(tmp_path / "log.csv"), table={"label": "click"}, fields=made_up.FIELDS[2:4])
    config = DataConfig.model_validate(section)
    prepare(config, base=tmp_path, seed=1, name="t", out=tmp_path / "data")
    split = PreparedData.open(tmp_path / "data", verify=True).split("train")
    assert split.context_ids.shape == (split.rows, 0)
    assert split.weight is None
    assert split.group is None


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(version=2), "version: expected 'reaction-dataset' version 1, got"),
        (lambda info: info.update(format="other"), "format: expected 'reaction-dataset' version 1, got"),
        (lambda info: info.update(extra=1), "extra: expected"),
        (lambda info: info.pop("rows"), "rows: expected"),
        (lambda info: info.update(features_digest="0" * 64), "features.json: expected SHA-256 000"),
        (lambda info: info["columns"]["context"].reverse(), "columns.context: expected"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, data: Path
) -> None:
    change_json(data / "dataset.json", change)
    with pytest.raises(PreparedDataError) as caught:
        PreparedData.open(data)
    assert str(caught.value).startswith(str(data))
    assert message in str(caught.value)


def test_what_is_no_prepared_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreparedDataError, match=r"dataset\.json: expected a prepared data set, got No such file"):
        PreparedData.open(tmp_path)


@pytest.mark.parametrize("name", ["train/context_ids.npy", "valid/label.npy", "raw_sample.jsonl"])
def test_a_missing_or_cut_file_is_refused_at_opening(name: str, data: Path) -> None:
    content = (data / name).read_bytes()
    (data / name).write_bytes(content[:-1])
    with pytest.raises(PreparedDataError, match=rf"{name}: expected {len(content)} bytes, got {len(content) - 1}"):
        PreparedData.open(data)
    (data / name).unlink()
    with pytest.raises(PreparedDataError, match=rf"{name}: expected a file of {len(content)} bytes, got none"):
        PreparedData.open(data)


def test_a_changed_file_is_found_by_verifying(data: Path) -> None:
    path = data / "valid" / "label.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    PreparedData.open(data)
    with pytest.raises(PreparedDataError, match=r"valid/label\.npy: expected SHA-256 .*, got "):
        PreparedData.open(data, verify=True)


def test_a_changed_vocabulary_is_refused(data: Path) -> None:
    path = next((data / "vocabularies").iterdir())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PreparedDataError, match=r"vocabularies/.*expected SHA-256"):
        PreparedData.open(data)


@pytest.mark.parametrize("wrong", [-1, 9, 1 << 30])
def test_an_id_outside_of_its_vocabulary_is_refused(wrong: int, data: Path) -> None:
    path = data / "train" / "candidate_ids.npy"
    ids = np.load(path)
    ids[5, 1] = wrong
    np.save(path, ids)
    opened = PreparedData.open(data)
    with pytest.raises(
        PreparedDataError, match=rf"candidate_ids\.npy: row 5, column 1: expected an id from 0 to 8, got {wrong}"
    ):
        opened.split("train")


def test_a_wrong_label_or_type_is_refused(data: Path) -> None:
    path = data / "valid" / "label.npy"
    labels = np.load(path)
    labels[3] = 2
    np.save(path, labels)
    with pytest.raises(PreparedDataError, match=r"label\.npy: row 3: expected 0 or 1, got 2"):
        PreparedData.open(data).split("valid")
    np.save(path, labels.view(np.int8))
    with pytest.raises(PreparedDataError, match=r"label\.npy: expected uint8 of shape .*, got int8"):
        PreparedData.open(data).split("valid")


def test_a_pickled_array_is_never_loaded(data: Path) -> None:
    path = data / "valid" / "label.npy"
    size = path.stat().st_size
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    path.write_bytes(path.read_bytes()[:size].ljust(size, b"\0"))
    with pytest.raises(PreparedDataError, match=r"label\.npy: expected a NumPy array, got"):
        PreparedData.open(data).split("valid")


def test_an_unknown_split_is_refused(original: Path) -> None:
    with pytest.raises(PreparedDataError, match="expected one of the splits train, valid, test, got 'dev'"):
        PreparedData.open(original).split("dev")  # type: ignore[arg-type]
