"""Rows a second of `prepare` and of FuxiCTR's preprocessing, on the same three CSV files, in turns.

    python -m tests.training.preparation.bench_prepare --fuxictr VENV/bin/python [--rounds 5] [--copies 1]

FuxiCTR needs an environment of its own:
    python -m venv VENV && VENV/bin/pip install torch==2.13.0 "polars<2" "fuxictr==2.3.10" "ray[data]"

Both read the Criteo sample as plain CSV with a header, in three files for the splits, and turn all 39 fields into ids
(counts in log-squared buckets, tokens of at least 2 occurrences). The first round of both is a warm-up and not counted;
start-up of Python and of Ray is outside of the times.
"""

# ruff: noqa: T201 - a bench prints
import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import psutil

from training.datasets.base import BuildContext
from training.datasets.config import DataConfig
from training.datasets.criteo import CATEGORIES, COLUMNS, CONTEXT, COUNTS, build
from training.prepare import prepare


def write_files(folder: Path, copies: int) -> int:
    """Write train.csv, valid.csv and test.csv from the sample; returns the rows in all.

    Copies beyond the first get every tail value suffixed, so that the number of distinct values grows with the rows.
    """
    config = DataConfig(dataset="criteo", path="criteo/train.tsv.xz")
    table = build(config, BuildContext(Path.cwd(), 1))
    frame = pl.concat([batch.frame for batch in table.source.batches()])
    uniform = np.random.default_rng(0).random(frame.height)
    for name, low, high in (("train", 0.0, 0.8), ("valid", 0.8, 0.9), ("test", 0.9, 1.0)):
        part = frame.filter(pl.Series((uniform >= low) & (uniform < high)))
        with (folder / f"{name}.csv").open("wb") as file:
            for copy in range(copies):
                suffixed = part.with_columns(
                    pl.when(pl.len().over(column) > 1).then(pl.col(column)).otherwise(pl.col(column) + f"-{copy}")
                    for column in CATEGORIES
                )
                (suffixed if copy else part).write_csv(file, include_header=copy == 0)
    return frame.height * copies


def ours(folder: Path) -> tuple[float, float]:
    """Seconds of one preparation, by the clock and of CPU."""
    fields = [
        {
            "name": name,
            "kind": "numeric" if name in COUNTS else "categorical",
            "side": "context" if name in CONTEXT else "candidate",
        }
        for name in COLUMNS[1:]
    ]
    config = DataConfig.model_validate(
        {
            "dataset": "table",
            "path": str(folder / "train.csv"),
            "split": {"kind": "given", "valid": str(folder / "valid.csv"), "test": str(folder / "test.csv")},
            "table": {"label": "label"},
            "fields": fields,
        }
    )
    out = folder / "ours"
    shutil.rmtree(out, ignore_errors=True)
    start, cpu = time.perf_counter(), time.process_time()
    prepare(config, base=folder, seed=1, name="bench", out=out)
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuxictr", help="Python interpreter that has FuxiCTR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=1)
    arguments = parser.parse_args()
    if not arguments.fuxictr:
        print("skipped: --fuxictr names no interpreter that has FuxiCTR (see --help for how to make one)")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_files(folder, arguments.copies)
        worker = subprocess.Popen(
            [arguments.fuxictr, str(Path(__file__).parents[1] / "fuxictr_worker.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "fuxictr.log").open("w"),
            text=True,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        if worker.stdout.readline().strip() != "ready":
            print((folder / "fuxictr.log").read_text()[-2000:])
            print(f"failed: {arguments.fuxictr} cannot run FuxiCTR (see above)")
            sys.exit(1)
        rounds: list[list[tuple[float, float]]] = []
        for number in range(arguments.rounds + 1):
            before = cpu_seconds(worker.pid)
            worker.stdin.write("go\n")
            worker.stdin.flush()
            answer = worker.stdout.readline()
            if not answer:
                print((folder / "fuxictr.log").read_text()[-2000:])
                sys.exit(1)
            theirs = (float(answer), cpu_seconds(worker.pid) - before)
            pair = [ours(folder), theirs]
            print(f"round {number}{' (warm-up)' if number == 0 else ''}: {told(rows, pair)}", flush=True)
            if number:
                rounds.append(pair)
        worker.stdin.close()
        worker.wait()
    medians = [tuple(map(statistics.median, zip(*times, strict=True))) for times in zip(*rounds, strict=True)]
    print(f"medians of {rows:,} rows: {told(rows, medians)}")


def cpu_seconds(process: int) -> float:
    """User and system time of a process and all that it started, Ray's workers among them."""
    root = psutil.Process(process)
    total = 0.0
    for part in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = part.cpu_times()
            total += times.user + times.system
    return total


def told(rows: int, pair: Sequence[tuple[float, ...]]) -> str:
    """Both sides' figures and their ratio."""
    shown = [
        f"{who} {wall:.2f} s ({cpu:.2f} s CPU) = {rows / wall:,.0f} rows/s"
        for who, (wall, cpu) in zip(("ours", "FuxiCTR"), pair, strict=True)
    ]
    (wall, cpu), (other_wall, other_cpu) = pair
    return f"{', '.join(shown)}, ratio {other_wall / wall:.1f} ({other_cpu / cpu:.1f} of CPU)"


if __name__ == "__main__":
    main()
