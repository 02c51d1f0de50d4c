"""The page's first table: a task in a line, ours beside the best baseline, and what its claims came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from benchmarks.accuracy.cells import OURS, OUTSIDE
from benchmarks.accuracy.verdicts import RIVALS, best_by_metric, interval_text
from benchmarks.serving.report import number, prose, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_HEAD: Final = [
    "task",
    OURS,
    "AUC, ours minus the best baseline's",
    "log loss",
    f"AUC, minus {OUTSIDE[0]}'s",
    "stored numbers",
    "dense",
    "latency at 100",
    "claims: hold",
    "do not",
    "open",
]


def glance(document: Mapping[str, Any]) -> str:
    """Of every task that has runs of ours."""
    lines = []
    for ours in (row for row in document["rows"] if row["model"] == OURS and row["test_auc_mean"] is not None):
        task = ours["task"]
        against = {one["against"]: one for one in document["comparisons"] if one["task"] == task}
        best = best_by_metric(against.values())
        rivals = [against[name] for name in RIVALS if name in against]
        claims = [one["holds"] for one in document["verdicts"] if one["task"] == task]
        lines.append(
            [
                task,
                f"{ours['test_auc_mean']:.4f}",
                *("–" if one is None else f"{interval_text(one[key])} {one['against']}" for key, one in best.items()),
                *(interval_text(against[name]["auc"]) if name in against else "–" for name in OUTSIDE),
                *(_largest(one[key] for one in rivals) for key in ("parameters_ratio", "dense_ratio")),
                _largest(one["latency_ratio"].get("100", {}).get("value") for one in rivals),
                *(str(sum(holds is value for holds in claims)) for value in (True, False, None)),
            ]
        )
    if not lines:
        return ""
    return (
        "\n## At a glance\n\n"
        + prose(
            "Test AUC in the mean over seeds, and what it and log loss are minus those of the baseline that is best by",
            "them on validation, with a 95% interval. The three ratios are the larger ones of those over",
            f"{' and '.join(RIVALS)} (at most 0.333, 0.1 and 0.2 wanted). {OUTSIDE[0]}, which reads counts and click",
            "rates of values beside them and has no graph to be served, is none of these baselines; AUC minus its own",
            "stands for itself. Claims are listed further below; while some are open a row may change.",
        )
        + "\n"
        + table(_HEAD, lines, texts=5)
    )


def _largest(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return number(max(known)) if known else "–"
