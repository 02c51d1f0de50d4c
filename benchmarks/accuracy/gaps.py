"""What keeps the table honest: guards that hold baselines up, and what has not been run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.accuracy.cells import OURS, OUTSIDE, mean_of
from benchmarks.accuracy.fitted import by_library
from benchmarks.accuracy.plan import finished, guarded
from benchmarks.accuracy.tuning import same

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.accuracy.cells import Line


def guards_of(task: str, lines: Sequence[Line], runs: Mapping[str, Sequence[Line]]) -> list[dict[str, Any]]:
    """Each baseline against the library's own trainer on the same files and seed, and against one-hot LR.

    What the library was compared with is the config of the table's runs; a comparison at another says nothing of them.

    Returns:
        A row a model. "ours_same_seed" and "library": after a few epochs that both follow; "auc": the mean of the
        table's runs; "ours_whole" and "library_whole": of those on the seeds on which the library ran to its end,
        "seeds", and the library's; "log_loss_above": of these, ours minus the library's; "by_library" where the
        table's runs are the library's own.
    """
    found = []
    floor = mean_of(runs["LR"], "validation", "auc") if "LR" in runs else None
    held = [
        line
        for line in lines
        if line["task"] == task and line["purpose"] == "guard" and "validation" in line and line["model"] in runs
    ]
    alike = [line for line in held if _compared(line, runs[line["model"]][0], guarded)]
    library = {line["model"]: line for line in alike}
    whole = [line for line in held if _compared(line, runs[line["model"]][0], finished)]
    for name in sorted(set(runs) - {OURS, "LR", *OUTSIDE}):
        own = mean_of(runs[name], "validation", "auc")
        guard: dict[str, Any] = {"task": task, "model": name, "lr_auc": floor, "auc": own}
        if name in library:
            facts = library[name].get("facts", {})
            guard |= {
                "ours_same_seed": library[name]["validation"]["auc"],
                "library": facts.get("library", {}).get("auc"),
            }
        said = [line for line in whole if line["model"] == name]
        if by_library(runs[name][0]["config"]):
            guard["by_library"] = True
        elif pairs := _on_the_same_seeds(runs[name], said):
            our, their = (
                {key: float(np.mean([line["validation"][key] for line in side])) for key in ("auc", "log_loss")}
                for side in zip(*pairs, strict=True)
            )
            guard |= {"ours_whole": our["auc"], "library_whole": their["auc"], "seeds": len(pairs)}
            guard["log_loss_above"] = our["log_loss"] - their["log_loss"]
        found.append(guard)
    return found


def _on_the_same_seeds(ours: Sequence[Line], library: Sequence[Line]) -> list[tuple[Line, Line]]:
    """The table's run and the library's of every seed that both have."""
    theirs = {line["seed"]: line for line in library}
    return [(line, theirs[line["seed"]]) for line in ours if line["seed"] in theirs and "validation" in line]


def _compared(guard: Line, run: Line, way: Callable[[dict[str, Any]], dict[str, Any]]) -> bool:
    """Whether the library was compared with at a run's config, on its data."""
    return guard["data"] == run["data"] and same(guard["config"]) == same(way(run["config"]))


def missing_of(
    task: str, models: Mapping[str, int], runs: Mapping[str, Sequence[Line]], measured: Mapping[str, Any]
) -> list[dict[str, str]]:
    """What a task's table would have, and does not."""
    found = []
    timed = measured.get("models", {})
    for name, seeds in models.items():
        got = len(runs.get(name, ()))
        if not got:
            found.append({"task": task, "model": name, "what": "not run"})
        elif got < seeds:
            found.append({"task": task, "model": name, "what": f"{got} of {seeds} seeds"})
        if got and name not in timed and name not in OUTSIDE:
            found.append({"task": task, "model": name, "what": "latency not measured"})
    return found
