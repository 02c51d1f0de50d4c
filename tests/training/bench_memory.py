"""Peak memory of preparing a log whose distinct values grow without bound.

    REACTION_DATA_DIR=... python -m tests.training.bench_memory [--copies 60] [--min-count 1 2]

Writes the Criteo sample several times, each time with every value of the tail (those seen once) suffixed, so that the
distinct values grow with the rows, and prepares that file in a process of its own. With --min-count 1 all of them get
into the vocabularies; with 2 they only pass through the counting. Says whether the peak stayed under 8 GiB.
"""

# ruff: noqa: T201 - a bench prints
import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from training.datasets.base import BuildContext
from training.datasets.config import DataConfig
from training.datasets.criteo import CATEGORIES, build
from training.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 8 << 30  # bytes
KIB = 1 << 10


def write_file(path: Path, copies: int) -> tuple[int, int]:
    """Write the grown file; returns rows and distinct values of the categorical columns."""
    table = build(DataConfig(dataset="criteo", path="criteo/train.tsv.xz"), BuildContext(Path.cwd(), 1))
    frame = pl.concat([batch.frame for batch in table.source.batches()])
    once = {name: (frame.select(pl.len().over(name)).to_series() == 1) for name in CATEGORIES}
    tail = sum(int((flags & frame.get_column(name).is_not_null()).sum()) for name, flags in once.items())
    distinct = sum(frame.get_column(name).drop_nulls().n_unique() for name in CATEGORIES)
    with path.open("wb") as file:
        for copy in range(copies):
            suffixed = frame.with_columns(
                pl.when(flags).then(pl.col(name) + f"-{copy}").otherwise(pl.col(name)).alias(name)
                for name, flags in once.items()
            )
            suffixed.write_csv(file, include_header=False, separator="\t", quote_style="never")
    return frame.height * copies, distinct - tail + tail * copies


def measured(path: Path, out: Path, min_count: int) -> None:
    """Prepare, and print what it took; meant for a process of its own."""
    start = time.perf_counter()
    data = prepare(
        DataConfig(dataset="criteo", path=str(path), min_count=min_count), base=path.parent, seed=1, name="x", out=out
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    tokens = sum(len(data.encoder.vocabulary(field.name)) for field in data.encoder.fields)
    rows = sum(data.info.rows.values())
    print(
        f"min_count {min_count}: {rows:,} rows, {tokens:,} ids, {seconds:.0f} s = {rows / seconds:,.0f} rows/s, "
        f"peak RSS {peak / 2**30:.2f} GiB: {'under' if peak < LIMIT else 'NOT under'} 8 GiB",
        flush=True,
    )


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=60)
    parser.add_argument("--min-count", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--measure", nargs=3, metavar=("FILE", "OUT", "MIN_COUNT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        path, out, min_count = arguments.measure
        measured(Path(path), Path(out), int(min_count))
        return
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "grown.tsv"
        rows, distinct = write_file(path, arguments.copies)
        size = path.stat().st_size
        print(f"{rows:,} rows, {distinct:,} distinct values in 26 columns, {size / 2**30:.2f} GiB of text", flush=True)
        for min_count in arguments.min_count:
            out = Path(name) / "out"
            command = [
                sys.executable,
                "-m",
                "tests.training.bench_memory",
                "--measure",
                str(path),
                str(out),
                str(min_count),
            ]
            subprocess.run(command, check=True, cwd=ROOT)
            shutil.rmtree(out)


if __name__ == "__main__":
    main()
