"""Defaults on tables of every kind: `python -m benchmarks.defaults`.

Prints, for every table, AUC and log loss of the fused model beside one-hot logistic regression (its C tuned) and, where
the law of the data is known, the best possible model; the mean over seeds, and the spread of the differences. A line
is marked where the fused model is behind logistic regression by more than twice the standard error.

    python -m benchmarks.defaults                                   # every made-up table, three seeds, test split
    REACTION_DATA_DIR=... python -m benchmarks.defaults --tables criteo avazu --split valid
    python -m benchmarks.defaults --tables noise --set train.table_l2=100 --out found.jsonl
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from dataclasses import asdict
from pathlib import Path

from benchmarks.defaults.measure import Measured, measure
from benchmarks.defaults.tables import REAL, TABLES

ENOUGH = 5e-4
"""Differences of log loss below this are none."""


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*TABLES, *REAL]
    parser.add_argument("--tables", nargs="+", default=list(TABLES), metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--split", choices=["valid", "test"], default="test")
    parser.add_argument("--set", nargs="+", default=[], metavar="SECTION.KEY=VALUE", help="instead of a default")
    parser.add_argument("--work", type=Path, default=Path("build/defaults"), help="where prepared data are kept")
    parser.add_argument("--out", type=Path, help="file that every run's figures are appended to, as JSON lines")
    arguments = parser.parse_args()
    changed = {key: json.loads(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    print(HEAD, flush=True)
    for table in arguments.tables:
        runs = []
        for seed in arguments.seeds:
            runs.append(measure(table, seed, arguments.work, changed, split=arguments.split))
            if arguments.out is not None:
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**asdict(runs[-1]), "split": arguments.split, "set": changed}) + "\n")
        print(line(table, runs), flush=True)


HEAD = (
    f"{'table':<24}{'rows':>8}{'rate':>8}  {'AUC':>7}{'LR':>8}{'best':>8}  {'log loss':>9}{'LR':>8}{'best':>8}"
    f"  {'loss - LR':>10}  {'dropped':>7}{'tables':>10}{'s':>7}"
)


def line(table: str, runs: list[Measured]) -> str:
    """One table's figures."""

    def mean(kind: str, model: str) -> str:
        values = [getattr(run, kind)[model] for run in runs if model in getattr(run, kind)]
        return f"{statistics.fmean(values):.4f}" if values else "-"

    behind = [run.log_loss["fused"] - run.log_loss["baseline"] for run in runs]
    error = statistics.stdev(behind) / math.sqrt(len(behind)) if len(behind) > 1 else math.nan
    difference = statistics.fmean(behind)
    worse = difference > max(ENOUGH, 2.0 * error)
    return (
        f"{table:<24}{runs[0].rows:>8,}{statistics.fmean(run.base_rate for run in runs):>8.4f}  "
        f"{mean('auc', 'fused'):>7}{mean('auc', 'baseline'):>8}{mean('auc', 'best'):>8}  "
        f"{mean('log_loss', 'fused'):>9}{mean('log_loss', 'baseline'):>8}{mean('log_loss', 'best'):>8}"
        f"  {difference:>+8.4f}±{error:.4f}{' WORSE' if worse else ''}"
        f"  {statistics.fmean(run.dropped for run in runs):>5.1f}{runs[0].parameters:>10,}"
        f"{statistics.fmean(run.seconds for run in runs):>7.0f}"
    )


if __name__ == "__main__":
    main()
