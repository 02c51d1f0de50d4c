"""Prepared data against the experiment that is to be trained on it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import tiny

from training.config import load_config, with_absolute_paths
from training.loader import PreparedData
from training.runs import RunMismatchError
from training.same_data import refuse_other_data

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def data(tiny_home: Path) -> PreparedData:
    return PreparedData.open(tiny_home / "data")


@pytest.fixture
def here(tiny_home: Path, tmp_path: Path) -> Path:
    """A directory with the log that the data was prepared from."""
    shutil.copy(tiny_home / "log.csv", tmp_path / "log.csv")
    return tmp_path


def compare(data: PreparedData, here: Path, log: str) -> None:
    (here / "exp.toml").write_text(tiny.EXPERIMENT.replace('"log.csv"', f'"{log}"'), encoding="utf-8")
    refuse_other_data(with_absolute_paths(load_config(here / "exp.toml"), here), data)


def test_a_path_that_leads_nowhere_or_to_other_content_is_refused(data: PreparedData, here: Path) -> None:
    expected = "data.path: expected 'log.csv' \\(as it was prepared\\) or files of the same content, got "
    with pytest.raises(RunMismatchError, match=expected + ".*gone.csv"):
        compare(data, here, "gone.csv")
    (here / "other.csv").write_bytes((here / "log.csv").read_bytes().replace(b"ad1", b"ad2", 1))
    with pytest.raises(RunMismatchError, match=expected + ".*other.csv, which differs from log.csv"):
        compare(data, here, "other.csv")
    shutil.copy(here / "log.csv", here / "log2.csv")
    with pytest.raises(RunMismatchError, match=expected + "2 files for 1"):
        compare(data, here, "log*.csv")


def test_files_of_the_same_content_and_raw_data_that_is_gone_do(data: PreparedData, here: Path) -> None:
    compare(data, here, "log.csv")
    (here / "log.csv").rename(here / "moved.csv")
    compare(data, here, "log.csv")
    compare(data, here, "moved.csv")


def test_fields_that_differ_are_named_and_no_more(data: PreparedData, here: Path) -> None:
    text = tiny.EXPERIMENT.replace('name = "price"', 'name = "cost"\ncolumn = "price"')
    text += '\n[[data.fields]]\nname = "more"\ncolumn = "price"\nkind = "categorical"\nside = "candidate"\n'
    (here / "exp.toml").write_text(text, encoding="utf-8")
    config = with_absolute_paths(load_config(here / "exp.toml"), here)
    with pytest.raises(RunMismatchError) as caught:
        refuse_other_data(config, data)
    assert str(caught.value).endswith(
        "data.fields (names that only one has): expected ['price'] (as it was prepared), got ['cost', 'more'] "
        "in the experiment"
    )
