"""A cell of the table, a model on a task: what tuning chose, what it still lacks, how often it read the test split."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.accuracy.tuning import same

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from benchmarks.accuracy.fitted import Config

Line = dict[str, Any]

FEWEST_TRIALS: Final = 6
FEWEST_SEEDS: Final = 3
"""Of every model of the core table, before a claim against it is judged. The table wants five seeds: of three,
intervals are as much wider as Student's quantile says."""

NOT_RUN: Final = "not run"
OURS: Final = "REACTION"
OUTSIDE: Final = ("LightGBM",)
"""Compared with, but never the baseline that is chosen: its inputs are others, and it has no graph."""

SHOWN: Final = {
    "train.l2": "L2",
    "train.rate": "rate",
    "train.averaging": "averaging",
    "train.calibrated": "calibrated",
    "train.recipe": "recipe",
    "model.dropout": "dropout",
    "model.batch_norm": "batch norm",
    "model.embedding_dim": "d",
    "model.hidden_units": "widths",
    "model.leaves": "leaves",
    "model.leaf_rows": "rows a leaf",
    "model.column_share": "share of columns",
    "model.l2": "L2 of leaves",
    "model.strength": "strength of the prior",
}

SCALES: Final = ("L2", "rate", "dropout", "leaves", "rows a leaf", "L2 of leaves", "strength of the prior")
"""Settings that a value beyond those tried might suit better."""
LEAST: Final = {"dropout": 0.0}
"""What nothing lies beyond."""


def choice(runs: Sequence[Line], lines: Iterable[Line], chosen: str | None) -> dict[str, Any]:
    """What of a cell's config was tried, and what was taken.

    Args:
        runs: The cell's runs on the test split.
        lines: All runs of the cell.
        chosen: The key of the config that tuning decided for; None while it has not.

    Returns:
        "trials": how many configs; "tuned": setting to [taken, [values tried]] where several were; "edge": settings of
        a scale of which none was tried beyond what was taken; "open": see `unsettled`.
    """
    one = runs[0]
    tried = [line for line in lines if line["purpose"] == "trial"]
    configs = {same(line["config"]): line["config"] for line in tried}
    configs.setdefault(same(one["config"]), one["config"])
    trials = len(configs)
    taken, alike = one["config"], [config for config in configs.values() if _trained_alike(config, one["config"])]
    tuned: dict[str, Any] = {}
    edge = []
    for path, name in SHOWN.items():
        values = _distinct(configs.values(), path)
        if len(values) > 1:
            tuned[name] = [_at(taken, path), values]
            if name in SCALES and _at_edge(name, _at(taken, path), _distinct(alike, path)):
                edge.append(name)
    return {"trials": trials, "tuned": tuned, "edge": edge, "open": unsettled(one["config"], chosen) if tried else ""}


def _distinct(configs: Iterable[Config], path: str) -> list[Any]:
    """The values of a setting, ascending."""
    return [json.loads(value) for value in sorted({json.dumps(_at(config, path)) for config in configs}, key=_order)]


def _trained_alike(config: Config, other: Config) -> bool:
    """Whether both are calibrated or neither, and in one loop: L2 and rate mean something else otherwise."""
    return all(_at(config, path) == _at(other, path) for path in ("train.calibrated", "train.recipe"))


def _at_edge(name: str, taken: Any, tried: Sequence[Any]) -> bool:
    return taken in (tried[0], tried[-1]) and taken != LEAST.get(name)


def unsettled(config: Mapping[str, Any], chosen: str | None) -> str:
    """What tuning has left to do of a cell; "" where it decided for the config of the runs on the test split.

    Args:
        config: Of those runs.
        chosen: The key of the config that tuning decided for; None while it has not.
    """
    if chosen is None:
        return "tuning not over"
    return "" if chosen == same(dict(config)) else "seeds of its tuning's choice"


def lacks(
    models: Mapping[str, int],
    runs: Mapping[str, Sequence[Line]],
    rows: Mapping[str, Mapping[str, Any]],
    tuned: Collection[str],
    method: int | None = None,
) -> dict[str, str]:
    """Model to what its cell lacks before a claim against it can be judged; those that lack nothing are left out.

    Args:
        models: The core table's, to the seeds that a row should have.
        runs: Model to its runs on the test split.
        rows: Model to its row.
        tuned: Models that have something to tune.
        method: The present one of ours (`models.method_of`); None: runs of any are as good.
    """
    found: dict[str, str] = {}
    for name, seeds in models.items():
        if name not in runs:
            found[name] = NOT_RUN
        elif name in tuned and rows[name]["trials"] < FEWEST_TRIALS:
            found[name] = f"{rows[name]['trials']} of {FEWEST_TRIALS} trials"
        elif len(runs[name]) < min(seeds, FEWEST_SEEDS):
            found[name] = f"{len(runs[name])} of {min(seeds, FEWEST_SEEDS)} seeds"
        elif rows[name]["open"]:
            found[name] = rows[name]["open"]
        elif name == OURS and method is not None and runs[name][0]["config"].get("method") != method:
            found[name] = f"runs of the present method, {method}"
    return found


def readings(
    task: str, lines: Iterable[Line], runs: Mapping[str, Sequence[Line]], before: Iterable[Line]
) -> dict[str, Any]:
    """How often a task's test split was read.

    Args:
        task: Its name.
        lines: All runs of the ledger.
        runs: Model to the runs of the table.
        before: Runs that were taken out of the ledger.

    Returns:
        Runs of the table, superseded runs, and model to the number of its superseded versions (configs or methods).
    """
    kept = {(name, line["seed"], same(line["config"])) for name, some in runs.items() for line in some}
    versions: dict[str, set[str]] = defaultdict(set)
    count = 0
    for line in lines:
        if line["task"] == task and line["purpose"] == "seed" and line.get("test") is not None:
            if (line["model"], line["seed"], same(line["config"])) in kept:
                continue
            count += 1
            versions[line["model"]].add(same(line["config"]))
    for line in before:
        if line["task"] == task:
            count += 1
            versions[line["model"]].add(f"reading {line['reading']}")
    return {
        "task": task,
        "runs": sum(len(some) for some in runs.values()),
        "superseded_runs": count,
        "superseded_versions": {name: len(some) for name, some in sorted(versions.items())},
    }


def _values(runs: Sequence[Line], split: str, metric: str) -> list[float]:
    return [line[split][metric] for line in runs if line.get(split, {}).get(metric) is not None]


def mean_of(runs: Sequence[Line], split: str, metric: str) -> float | None:
    """Of a metric on a split; None without any."""
    values = _values(runs, split, metric)
    return float(np.mean(values)) if values else None


def std_of(runs: Sequence[Line], split: str, metric: str) -> float | None:
    """Standard deviation over seeds; None of fewer than two."""
    values = _values(runs, split, metric)
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _at(config: Mapping[str, Any], path: str) -> Any:
    section, name = path.split(".")
    return config[section].get(name)


def _order(text: str) -> tuple[int, float, str]:
    value = json.loads(text)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (int(number), float(value) if number else 0.0, text)
