"""What a baseline's run keeps in memory as the log grows: a permutation of its rows, and never the rows themselves."""

import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from benchmarks.accuracy import deep
from benchmarks.accuracy.fitted import Place
from training.datasets.config import DataConfig
from training.loader import PreparedData
from training.phases.learner import Rows
from training.prepare import prepare

FIELDS = 40
IDS = 4 * FIELDS
"""Bytes of a row's ids, were they loaded."""


def data(path: Path, rows: int) -> Path:
    draw = np.random.default_rng(rows)
    columns = {f"f{i}": draw.integers(0, 50, rows) for i in range(FIELDS)}
    label = (draw.random(rows) < 1 / (1 + np.exp(-(columns["f0"] % 3 - 1.0)))).astype(int)
    path.mkdir()
    pl.DataFrame({**columns, "click": label}).write_csv(path / "log.csv")
    fields = [{"name": name, "kind": "categorical", "side": "candidate"} for name in columns]
    fields[0]["side"] = "context"
    section = {"dataset": "table", "path": str(path / "log.csv"), "table": {"label": "click"}, "fields": fields}
    prepare(DataConfig.model_validate(section), base=path, seed=1, name="made-up", out=path / "data")
    return path / "data"


def peak(path: Path) -> tuple[int, int]:
    """The most bytes that NumPy and Python held while a baseline was trained on prepared data, and its steps."""
    train = {"batch_size": 512, "epochs": 1, "evaluations": 1, "patience": 1}
    train |= {"rate": 5e-3, "l2": 10.0, "averaging": 0.98}
    place = Place("made-up", PreparedData.open(path), Path(), test=False)
    tracemalloc.start()
    try:
        with torch.random.fork_rng():
            fitted = deep.fit("FM", place, {"model": {"embedding_dim": 4}, "train": train}, seed=1)
        return tracemalloc.get_traced_memory()[1], fitted.steps or 0
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_baselines_memory_grows_by_far_less_than_its_rows_would_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rows.blocks, "__defaults__", (500,))  # both have validation rows for a whole block
    sizes = (10_000, 30_000)
    peak(data(tmp_path / "warm", 2000))  # what is imported and kept once and for all
    (small, few), (large, many) = (peak(data(tmp_path / str(rows), rows)) for rows in sizes)
    assert many == pytest.approx(3 * few, rel=0.05)
    grown = (large - small) / (0.8 * (sizes[1] - sizes[0]))
    assert grown < 0.75 * IDS, f"{grown:.0f} bytes a training row"
