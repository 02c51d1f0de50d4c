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
import json, re, sys, threading, time
from pathlib import Path
from benchmarks.accuracy import deep
from benchmarks.accuracy.fitted import Place
from training.loader import PreparedData
from training.phases import learner, phase

phase.EVALUATION_ROWS = 1000  # less than the validation rows of either log: both fill a block
learner.Rows.blocks.__defaults__ = (1000,)
most, over = 0, threading.Event()

def watch():
    global most
    while not over.wait(0.005):
        status = Path("/proc/self/status").read_text()
        most = max(most, int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]))

data = PreparedData.open(Path(sys.argv[1]))
train = {"batch_size": 2048, "epochs": 1, "evaluations": 1, "patience": 1, "rate": 5e-3, "l2": 10.0, "averaging": 0.98}
config = {"model": {"embedding_dim": 4}, "train": train}
threading.Thread(target=watch, daemon=True).start()
fitted = deep.fit("FM", Place("made-up", data, Path(), test=False), config, seed=1)
scores = fitted.score(data.split("valid"))
over.set()
print(json.dumps({"kib": most, "steps": fitted.steps, "scores": len(scores)}))
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
    found = {}
    for rows in (20_000, 120_000):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, data(tmp_path / str(rows), rows)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        found[rows] = json.loads(done.stdout)
        assert found[rows]["steps"] == -(-0.8 * rows // 2048)
    grown = (found[120_000]["kib"] - found[20_000]["kib"]) * 1024 / 100_000
    assert grown < 0.5 * IDS, f"{grown:.0f} bytes a row"
