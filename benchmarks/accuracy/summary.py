"""What the ledger and the table of latencies say, as one document: `benchmarks/accuracy.json`.

Nothing is guessed: a figure that no run gave is None, and `missing` says which runs there are not.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.accuracy.bootstrap import interval, paired_interval
from benchmarks.accuracy.latency import EMPTY, ratio
from benchmarks.accuracy.verdicts import verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Line = dict[str, Any]
"""A run of the ledger, as `Line.model_dump(mode="json", exclude_none=True)` gives it."""

OURS: Final = "REACTION"
OUTSIDE: Final = ("LightGBM",)
"""Compared with, but never the baseline that is chosen: its inputs are others, and it has no graph."""

NAMED: Final = ("FinalMLP", "DCNv2", "DNN-small", *OUTSIDE)
"""Compared with whichever baseline is best."""

METRICS: Final = ("auc", "log_loss", "gauc")


def summarise(
    lines: Iterable[Line],
    latency: Mapping[str, Any],
    tasks: Mapping[str, Mapping[str, Any]],
    models: Mapping[str, int],
) -> dict[str, Any]:
    """The document.

    Args:
        lines: All runs.
        latency: The table of latencies; {} where nothing was timed.
        tasks: Name to {"dataset", "split"}, in the order of the table.
        models: The core table's, in its order, to the seeds that a row should have; others follow.
    """
    found = list(lines)
    timed = latency.get("tasks", {})
    rows, comparisons, pairs, guards, missing = [], [], [], [], []
    better: dict[str, str | None] = {}
    for task, about in tasks.items():
        runs = chosen_runs([line for line in found if line["task"] == task])
        names = [*(name for name in models if name in runs), *sorted(set(runs) - set(models))]
        measured = timed.get(task, {})
        rows += [{"task": task, **about, **_row(name, runs[name], measured, found)} for name in names]
        missing += _missing(task, models, runs, measured)
        if {"FM", "FwFM"} <= set(runs):
            better[task] = best(runs, among=("FM", "FwFM"))
        if OURS in runs:
            comparisons += _comparisons(task, runs, measured)
            pairs += _pair(task, runs[OURS])
        guards += _guards(task, found, runs)
    document = {
        "format": "reaction-accuracy-table",
        "version": 1,
        "runs": len(found),
        "cpu_hours": round(sum(line["cpu_seconds"] for line in found) / 3600, 2),
        "machine": latency.get("machine"),
        "latency_command": latency.get("command"),
        "rows": rows,
        "better_of_fm_and_fwfm": better,
        "others_load": {
            task: {key: timed[task][key] for key in ("others_load", "disturbed")} for task in tasks if task in timed
        },
        "comparisons": comparisons,
        "pairs": pairs,
        "guards": guards,
        "missing": missing,
    }
    return {**document, "verdicts": verdicts(document, list(tasks))}


def chosen_runs(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Model to its runs on the test split, one a seed: those of one config.

    Of several configs the one with the most seeds, then the lowest mean log loss on validation. Runs on other data than
    the newest line's are no runs of this table.
    """
    newest = next((line["data"] for line in reversed(lines)), None)
    by_config: dict[str, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["purpose"] == "seed" and line["data"] == newest and line.get("test") is not None:
            by_config[line["model"]][json.dumps(line["config"], sort_keys=True)].append(line)
    return {
        model: sorted(_preferred(list(configs.values())), key=lambda line: line["seed"])
        for model, configs in by_config.items()
    }


def _preferred(configs: Sequence[list[Line]]) -> list[Line]:
    keys = [(-len(runs), _mean(runs, "validation", "log_loss") or 0.0) for runs in configs]
    return configs[keys.index(min(keys))]


def best(runs: Mapping[str, Sequence[Line]], metric: str = "auc", among: Sequence[str] | None = None) -> str | None:
    """The baseline that is best on validation; None where none has run."""
    names = [name for name in (among or sorted(runs)) if name in runs and name not in (OURS, *OUTSIDE)]
    sign = -1.0 if metric == "log_loss" else 1.0
    scored = {name: _mean(runs[name], "validation", metric) for name in names}
    known = {name: sign * value for name, value in scored.items() if value is not None}
    return max(known, key=lambda name: known[name]) if known else None


def _row(name: str, runs: Sequence[Line], measured: Mapping[str, Any], lines: Sequence[Line]) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "seeds": len(runs)}
    for metric in METRICS:
        row[f"test_{metric}_mean"] = _mean(runs, "test", metric)
        row[f"test_{metric}_std"] = _std(runs, "test", metric)
        row[f"validation_{metric}_mean"] = _mean(runs, "validation", metric)
    timed = measured.get("models", {}).get(name, {})
    stored = timed.get("parameters") or runs[0].get("parameters") or {}
    trained = runs[0].get("parameters") or {}
    row["parameters_training"] = trained.get("training")
    for key in ("inference", "embedding", "dense", "bytes"):
        row[f"parameters_{key}"] = stored.get(key)
    row["flops"] = timed.get("flops", {}).get("1", runs[0].get("flops"))
    row["flops_100"] = timed.get("flops", {}).get("100")
    empty = measured.get("models", {}).get(EMPTY, {}).get("latency", {})
    row["latency_us"] = {size: timing["median"] for size, timing in timed.get("latency", {}).items()} or None
    row["latency_net_us"] = {
        size: round(timing["median"] - empty[size]["median"], 2)
        for size, timing in timed.get("latency", {}).items()
        if size in empty
    } or None
    row["cpu_seconds_mean"] = float(np.mean([line["cpu_seconds"] for line in runs]))
    trials = [line for line in lines if line["purpose"] == "trial" and _same(line, runs[0])]
    row["trials"] = len({json.dumps(line["config"], sort_keys=True) for line in trials})
    row["config"] = runs[0]["config"]
    return row


def _comparisons(task: str, runs: Mapping[str, Sequence[Line]], measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    why: dict[str, list[str]] = defaultdict(list)
    for metric, title in (("auc", "best AUC"), ("log_loss", "best log loss")):
        name = best(runs, metric)
        if name is not None:
            why[name].append(f"{title} on validation")
    for name in NAMED:
        if name in runs:
            why.setdefault(name, [])
    return [
        {
            "task": task,
            "against": name,
            "chosen": reasons,
            **_difference(runs[OURS], runs[name]),
            **_ratios(name, runs, measured),
        }
        for name, reasons in why.items()
    ]


def _difference(ours: Sequence[Line], theirs: Sequence[Line]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in ("auc", "log_loss"):
        one = interval(ours, theirs, metric)
        found[metric] = {"mean": one.mean, "low": one.low, "high": one.high, "seeds": list(one.seeds)}
    return found


def _ratios(name: str, runs: Mapping[str, Sequence[Line]], measured: Mapping[str, Any]) -> dict[str, Any]:
    ours, theirs = (_row(one, runs[one], measured, ()) for one in (OURS, name))
    found: dict[str, Any] = {
        key: _over(ours[f"parameters_{part}"], theirs[f"parameters_{part}"])
        for key, part in (("parameters_ratio", "inference"), ("dense_ratio", "dense"), ("bytes_ratio", "bytes"))
    }
    found["flops_ratio"] = _over(ours["flops_100"], theirs["flops_100"])
    models = measured.get("models", {})
    found["latency_ratio"] = {}
    if {OURS, name, EMPTY} <= set(models):
        for size in models[OURS]["latency"]:
            timings = [models[one]["latency"][size] for one in (OURS, name, EMPTY)]
            value, low, high = ratio(*(timing["blocks"] for timing in timings))
            processor = ratio(*(timing["processor_blocks"] for timing in timings))[0]
            found["latency_ratio"][size] = {"value": value, "low": low, "high": high, "by_processor_time": processor}
    return found


def _pair(task: str, runs: Sequence[Line]) -> list[dict[str, Any]]:
    """The merged tower against the two that it came from, seed by seed."""
    held = [line for line in runs if "pair" in line.get("facts", {})]
    if not held:
        return []
    pairs = [line["facts"]["pair"] for line in held]
    singles = [tower for line in held for tower in line["facts"].get("towers", ())]
    found: dict[str, Any] = {"task": task, "seeds": len(held)}
    for metric in ("auc", "log_loss"):
        towers = [tower[metric] for tower in singles]
        found[metric] = {
            "merged": _mean(held, "test", metric),
            "pair": float(np.mean([pair["test"][metric] for pair in pairs])),
            "towers": float(np.mean(towers)) if towers else None,
        }
        if all("bootstrap" in pair for pair in pairs):
            one = paired_interval(held, pairs, metric)
            found[metric] |= {"mean": one.mean, "low": one.low, "high": one.high}
    return [found]


def _guards(task: str, lines: Sequence[Line], runs: Mapping[str, Sequence[Line]]) -> list[dict[str, Any]]:
    """Each baseline against the library's own trainer on the same files and seed, and against one-hot LR."""
    found = []
    floor = _mean(runs["LR"], "validation", "auc") if "LR" in runs else None
    library = {
        line["model"]: line
        for line in lines
        if line["task"] == task and line["purpose"] == "guard" and "validation" in line
    }
    for name in sorted((set(runs) | set(library)) - {OURS, "LR", *OUTSIDE}):
        own = _mean(runs[name], "validation", "auc") if name in runs else None
        guard: dict[str, Any] = {"task": task, "model": name, "lr_auc": floor, "auc": own}
        if name in library:
            facts = library[name].get("facts", {})
            guard |= {
                "ours_same_seed": library[name]["validation"]["auc"],
                "library": facts.get("library", {}).get("auc"),
            }
        found.append(guard)
    return found


def _missing(
    task: str, models: Mapping[str, int], runs: Mapping[str, Sequence[Line]], measured: Mapping[str, Any]
) -> list[dict[str, str]]:
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


def _same(line: Line, other: Line) -> bool:
    return bool(line["task"] == other["task"] and line["model"] == other["model"])


def _values(runs: Sequence[Line], split: str, metric: str) -> list[float]:
    return [line[split][metric] for line in runs if line.get(split, {}).get(metric) is not None]


def _mean(runs: Sequence[Line], split: str, metric: str) -> float | None:
    values = _values(runs, split, metric)
    return float(np.mean(values)) if values else None


def _std(runs: Sequence[Line], split: str, metric: str) -> float | None:
    values = _values(runs, split, metric)
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _over(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or not theirs else ours / theirs
