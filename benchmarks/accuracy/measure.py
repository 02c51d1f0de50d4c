"""How long the table takes: what each model's runs took on each task, and what is left of it at that pace."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from benchmarks.accuracy.plan import expected

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.accuracy.ledger import Ledger, Line
    from benchmarks.accuracy.plan import Want

HOUR = 3600.0


def paces(lines: Iterable[Line]) -> dict[tuple[str, str], float]:
    """Mean processor seconds a run by (task, model); the library's side of the guard is not counted."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in lines:
        if line.purpose in {"trial", "seed"}:
            found[line.task, line.model].append(line.cpu_seconds)
    return {cell: sum(times) / len(times) for cell, times in found.items()}


def pace(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Processor seconds a run by model, over all tasks that a ledger holds, and runs an hour of one core."""
    found: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        if line["purpose"] in {"trial", "seed"}:
            found[line["model"]].append(line["cpu_seconds"])
    every = [seconds for some in found.values() for seconds in some]
    return {
        "runs_an_hour": HOUR * len(every) / sum(every) if every and sum(every) else None,
        "seconds": {name: sum(some) / len(some) for name, some in found.items()},
    }


def table(wants: Sequence[Want], ledger: Ledger, jobs: int) -> str:
    """A line a cell: seconds a run, runs an hour over all processes, runs left, hours left; and their sum.

    Args:
        wants: The cells.
        ledger: What has been run; a cell without a run has no pace, and is not in the sum.
        jobs: Processes, each taken to have a core of its own.
    """
    known = paces(ledger)
    lines = [f"{'task':30} {'model':10} {'s/run':>7} {'runs/h':>7} {'left':>5} {'hours':>6}   at {jobs} processes"]
    hours, unknown = 0.0, 0
    for want in wants:
        pace, left = known.get((want.task, want.model)), expected(want, ledger)
        if pace is None:
            unknown += left
            continue
        hours += left * pace / HOUR / jobs
        lines.append(
            f"{want.task:30} {want.model:10} {pace:7.0f} {jobs * HOUR / max(pace, 0.1):7.0f} {left:5} "
            f"{left * pace / HOUR / jobs:6.2f}"
        )
    lines.append(f"left: about {hours:.1f} hours; ties between trials come on top")
    if unknown:
        lines.append(f"and {unknown} runs of cells of which none has been run")
    return "\n".join(lines)
