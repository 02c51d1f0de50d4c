"""Checkpoints of a training: another's are refused, broken ones named, and none is ever half written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tiny
import torch

from training.config import load_config
from training.loader import PreparedData
from training.loop import train_reaction
from training.phases.checkpoint import CheckpointError, CheckpointStore

if TYPE_CHECKING:
    from pathlib import Path


def quiet(*_: object) -> None:
    """Tell nobody."""


def test_a_checkpoint_of_another_configuration_is_refused(tiny_home: Path, tmp_path: Path) -> None:
    data, config = PreparedData.open(tiny_home / "data"), tiny.brief(load_config(tiny_home / "exp.toml"))
    train_reaction(data, config, tmp_path, resume=False, progress=quiet)
    other = config.model_copy(update={"train": config.train.model_copy(update={"rate": 0.01})})
    with pytest.raises(CheckpointError, match="another configuration or of other data"):
        train_reaction(data, other, tmp_path, resume=True, progress=quiet)
    train_reaction(data, other, tmp_path, resume=False, progress=quiet)  # a new start removes it


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "x", resume=True)
    (tmp_path / "tower_a.safetensors").write_bytes(b"half a fi")
    with pytest.raises(CheckpointError, match=r"tower_a\.safetensors: expected a checkpoint"):
        store.finished("tower_a")


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path, "x", resume=False)
    store.save("tower_b", {"w": torch.ones(3)}, {"step": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("training.phases.checkpoint.save_file", full)
    with pytest.raises(OSError, match="no space"):
        store.save("tower_b", {"w": torch.zeros(3)}, {"step": 2})
    found = store.current("tower_b")
    assert found is not None
    assert (found[0]["w"].tolist(), found[1]) == ([1.0, 1.0, 1.0], {"step": 1})
