"""What the defaults come to on tables of every kind, as text, and as `DEFAULTS.md` from the ledger."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from benchmarks.defaults.tables import TABLES
from benchmarks.serving.report import prose, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.defaults.measure import Measured

ENOUGH: Final = 5e-4
"""Differences of log loss below this are none."""

HEAD: Final = (
    f"{'table':<24}{'rows':>8}{'rate':>8}  {'AUC':>7}{'LR':>8}{'best':>8}  {'log loss':>9}{'LR':>8}{'best':>8}"
    f"  {'loss - LR':>10}  {'dropped':>7}{'tables':>10}{'s':>7}"
)


def line(name: str, runs: Sequence[Measured]) -> str:
    """One table's figures, for a terminal."""
    auc, loss = ([_mean(runs, kind, model) for model in ("fused", "baseline", "best")] for kind in ("auc", "log_loss"))
    difference, error, worse = behind(runs)
    return (
        f"{name:<24}{runs[0].rows:>8,}{statistics.fmean(run.base_rate for run in runs):>8.4f}  "
        f"{auc[0]:>7}{auc[1]:>8}{auc[2]:>8}  {loss[0]:>9}{loss[1]:>8}{loss[2]:>8}"
        f"  {difference:>+8.4f}±{error:.4f}{' WORSE' if worse else ''}"
        f"  {statistics.fmean(run.dropped for run in runs):>5.1f}{runs[0].parameters:>10,}"
        f"{statistics.fmean(run.seconds for run in runs):>7.0f}"
    )


def behind(runs: Sequence[Measured]) -> tuple[float, float, bool]:
    """How far the fused model's log loss is above logistic regression's: mean, standard error, and whether clearly."""
    found = [run.log_loss["fused"] - run.log_loss["baseline"] for run in runs]
    error = statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    difference = statistics.fmean(found)
    return difference, error, difference > max(ENOUGH, 2.0 * error)


def markdown(runs_of: Mapping[str, Sequence[Measured]], method: int) -> str:
    """The page.

    Args:
        runs_of: Runs on the test split, by table.
        method: By which they were made.
    """
    rows = []
    worse = []
    for name in sorted(runs_of, key=lambda name: [*TABLES, name].index(name)):
        runs = runs_of[name]
        difference, error, clearly = behind(runs)
        worse += [name] * clearly
        shown = [_mean(runs, kind, model) for kind in ("auc", "log_loss") for model in ("fused", "baseline", "best")]
        spread = "" if math.isnan(error) else f" ± {error:.4f}"
        rows.append(
            [
                name,
                f"{runs[0].rows:,}",
                f"{statistics.fmean(run.base_rate for run in runs):.4f}",
                str(len(runs)),
                *shown,
                f"{difference:+.4f}{spread}" + (" **worse**" if clearly else ""),
                f"{statistics.fmean(run.dropped for run in runs):.1f}",
                f"{runs[0].parameters:,}",
                f"{statistics.fmean(run.seconds for run in runs):.0f}",
            ]
        )
    head = ["table", "rows", "rate", "seeds", "AUC", "LR", "best", "log loss", "LR", "best"]
    head += ["loss - LR", "dropped", "table parameters", "CPU s"]
    missing = [name for name in TABLES if name not in runs_of]
    text = "# Defaults on tables that nothing was tuned for\n\n" + prose(
        f"Written by `python -m benchmarks.defaults` from {sum(map(len, runs_of.values()))} runs of `defaults.jsonl`,",
        f"of method {method} of REACTION; do not edit. Each table is prepared and learnt with the defaults, beside",
        "one-hot logistic regression with its C tuned and, where the law of the data is known, the best model there",
        "is; means over seeds on the test split, and the standard error of the difference. *Worse*: the fused model's",
        "log loss is above logistic regression's by more than two standard errors and 0.0005 (of one seed, by the",
        "latter alone).",
        f"Of {len(rows)} tables {len(worse)} are" + (f": {', '.join(worse)}." if worse else "."),
    )
    text += "\n" + table(head, rows, texts=1)
    return text + ("\n" + prose(f"Not measured by this method: {', '.join(missing)}.") if missing else "")


def by_table(runs: Iterable[Measured]) -> dict[str, list[Measured]]:
    """Runs by the name of their table."""
    found: dict[str, list[Measured]] = defaultdict(list)
    for run in runs:
        found[run.table].append(run)
    return dict(found)


def _mean(runs: Sequence[Measured], kind: str, model: str) -> str:
    values = [getattr(run, kind)[model] for run in runs if model in getattr(run, kind)]
    return f"{statistics.fmean(values):.4f}" if values else "–"
