"""What a baseline's run keeps in memory as the log grows: a permutation of its rows, and never the rows themselves."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from training.datasets.config import DataConfig
from training.prepare import prepare

ROOT = Path(__file__).resolve().parents[3]
FIELDS = 40
IDS = 4 * FIELDS
"""Bytes of a row's ids, were they loaded."""

CHILD = r"""
import json, re, sys, threading
from pathlib import Path
from benchmarks.accuracy import deep
from benchmarks.accuracy.fitted import Place
from training.loader import PreparedData

def anonymous():
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

def fit(path):
    most, over = anonymous(), threading.Event()
    before = most

    def watch():
        nonlocal most
        while not over.wait(0.002):
            most = max(most, anonymous())

    threading.Thread(target=watch, daemon=True).start()
    data = PreparedData.open(Path(path))
    train = {"batch_size": 512, "epochs": 1, "evaluations": 1, "patience": 1}
    train |= {"rate": 5e-3, "l2": 10.0, "averaging": 0.98}
    config = {"model": {"embedding_dim": 4}, "train": train}
    fitted = deep.fit("FM", Place("made-up", data, Path(), test=False), config, seed=1)
    over.set()
    return {"kib": most - before, "steps": fitted.steps}

small, large = sys.argv[1:]
fit(small)  # what is imported and kept once and for all
print(json.dumps([fit(small), fit(large)]))
"""


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


@pytest.mark.slow
def test_a_baselines_memory_grows_by_far_less_than_its_rows_would_take(tmp_path: Path) -> None:
    sizes = (100_000, 200_000)  # both have validation rows for a whole block
    logs = [data(tmp_path / str(rows), rows) for rows in sizes]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *logs], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    small, large = json.loads(done.stdout)
    assert large["steps"] == pytest.approx(2 * small["steps"], rel=0.02)
    grown = 1024 * (large["kib"] - small["kib"]) / (0.8 * (sizes[1] - sizes[0]))
    assert grown < 0.5 * IDS, f"{grown:.0f} bytes a training row"
