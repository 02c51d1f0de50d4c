"""A benchmark that is killed in the middle goes on where it was, in real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prepared import make

from benchmarks.accuracy.ledger import Ledger
from benchmarks.accuracy.tasks import data_path

ROOT = Path(__file__).resolve().parents[3]
TASK = "avazu-random"


def start(work: Path, ledger: Path) -> subprocess.Popen[bytes]:
    options = {"tasks": TASK, "models": "LightGBM", "trials": 2, "seeds": 3, "jobs": 1, "work": work, "ledger": ledger}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "benchmarks.accuracy", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(condition: str, ledger: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= lines:
            return
        assert process.poll() is None, condition
        time.sleep(0.02)
    raise AssertionError(condition)


@pytest.mark.slow
def test_what_was_killed_goes_on_and_runs_nothing_twice(tmp_path: Path) -> None:
    make(data_path(TASK, tmp_path / "work"), rows=2000)
    path = tmp_path / "ledger.jsonl"
    first = start(tmp_path / "work", path)
    wait_for("a first line", path, 1, first)
    first.send_signal(signal.SIGKILL)
    first.wait(30)
    before = path.read_bytes()
    assert before.count(b"\n") >= 1
    path.write_bytes(before + b'{"format":"reaction-acc')  # as if the kill had met it while it wrote
    second = start(tmp_path / "work", path)
    assert second.wait(300) == 0
    after = path.read_bytes()
    assert after.startswith(before)
    ledger = Ledger(path)
    keys = [line.key for line in ledger]
    assert after.count(b"\n") == len(keys) == len(set(keys))
    assert sorted(line.seed for line in ledger if line.purpose == "seed") == [11, 12, 13]
    assert sum(line.purpose == "trial" and line.seed == 1 for line in ledger) == 2
    assert all(line.test is not None for line in ledger if line.purpose == "seed")
    assert all(line.test is None and line.bootstrap is None for line in ledger if line.purpose != "seed")
