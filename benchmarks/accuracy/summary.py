"""What the ledger and the table of latencies say, as one document: `benchmarks/accuracy.json`.

Nothing is guessed: a figure that no run gave is None, and `missing` says which runs there are not.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.accuracy.bootstrap import interval, paired_interval
from benchmarks.accuracy.cells import FEWEST_SEEDS, OURS, OUTSIDE, choice, lacks, mean_of, std_of
from benchmarks.accuracy.cells import readings as read_count
from benchmarks.accuracy.gaps import guards_of, missing_of
from benchmarks.accuracy.latency import EMPTY, ratio
from benchmarks.accuracy.measure import pace
from benchmarks.accuracy.tuning import Losses, decided, same
from benchmarks.accuracy.verdicts import verdicts
from training.parameters import FLOAT32_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

Line = dict[str, Any]
"""A run of the ledger, as `Line.model_dump(mode="json", exclude_none=True)` gives it."""

NAMED: Final = ("FinalMLP", "DCNv2", "DNN-small", *OUTSIDE)
"""Compared with whichever baseline is best."""

PAIR: Final = ("tower A", "tower B")
"""Of the table of latencies: the two towers before they were merged."""

METRICS: Final = ("auc", "log_loss", "gauc")


def summarise(
    lines: Iterable[Line],
    latency: Mapping[str, Any],
    tasks: Mapping[str, Mapping[str, Any]],
    models: Mapping[str, int],
    *,
    tuned: Collection[str] = (),
    before: Sequence[Line] = (),
    method: Callable[[str], int] | None = None,
    settled: Callable[[Sequence[Line]], str | None] | None = None,
) -> dict[str, Any]:
    """The document.

    Args:
        lines: All runs.
        latency: The table of latencies; {} where nothing was timed.
        tasks: Name to {"dataset", "split"}, in the order of the table.
        models: The core table's, in its order, to the seeds that a row should have; others follow.
        tuned: Those that have something to tune.
        before: Runs on the test split that were taken out of the ledger.
        method: The present one of ours on a task; claims rest on runs of no other.
        settled: The key of the config that tuning decided for, from a cell's runs; None while it has not. By default
            what the runs that there are say, whatever else was to be tried.
    """
    found = list(lines)
    timed = latency.get("tasks", {})
    rows, comparisons, pairs, guards, missing, lacking, readings = [], [], [], [], [], [], []
    beside: list[dict[str, Any]] = []
    better: dict[str, str | None] = {}
    for task, about in tasks.items():
        runs = chosen_runs([line for line in found if line["task"] == task])
        names = [*(name for name in models if name in runs), *sorted(set(runs) - set(models))]
        measured = timed.get(task, {})
        cells = {}
        for name in names:
            (data,) = {line["data"] for line in runs[name]}
            own = [line for line in found if (line["task"], line["model"], line["data"]) == (task, name, data)]
            cells[name] = _row(name, runs[name], measured) | choice(runs[name], own, (settled or _decided)(own))
        rows += [{"task": task, **about, **cell} for cell in cells.values()]
        held = {name: seeds for name, seeds in models.items() if name not in OUTSIDE}
        lacking += [
            {"task": task, "model": name, "lacks": text}
            for name, text in lacks(held, runs, cells, tuned, None if method is None else method(task)).items()
        ]
        readings.append(read_count(task, found, runs, before))
        missing += missing_of(task, models, runs, measured)
        if {"FM", "FwFM"} <= set(runs):
            better[task] = best(runs, among=("FM", "FwFM"))
        if OURS in runs:
            comparisons += _comparisons(task, runs, measured)
            pairs += _pair(task, runs[OURS], measured)
            beside += [{"task": task, **one} for one in _beside(runs[OURS])]
        guards += guards_of(task, found, runs)
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
        "beside": beside,
        "guards": guards,
        "missing": missing,
        "lacking": lacking,
        "test_readings": readings,
        "pace": pace(found),
    }
    return {**document, "verdicts": verdicts(document, list(tasks))}


def chosen_runs(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Model to its runs on the test split, one a seed: those of one config.

    Of several configs the newest method's (`models.METHOD`), then one with the most seeds (`FEWEST_SEEDS` are as good
    as more), then the lowest mean log loss on validation over all of its runs, trials among them (`tuning.decided`).
    Runs on other data than the newest line's are no runs of this table.
    """
    newest = next((line["data"] for line in reversed(lines)), None)
    by_config: dict[str, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["purpose"] == "seed" and line["data"] == newest and line.get("test") is not None:
            by_config[line["model"]][json.dumps(line["config"], sort_keys=True)].append(line)
    return {
        model: sorted(
            _preferred(
                list(configs.values()), [line for line in lines if line["model"] == model and line["data"] == newest]
            ),
            key=lambda line: line["seed"],
        )
        for model, configs in by_config.items()
    }


def _preferred(configs: Sequence[list[Line]], lines: Sequence[Line]) -> list[Line]:
    every = Losses.of_records(lines).every
    keys = [
        (
            -int(runs[0]["config"].get("method", 0)),
            -min(len(runs), FEWEST_SEEDS),
            float(np.mean(every[same(runs[0]["config"])])),
        )
        for runs in configs
    ]
    return configs[keys.index(min(keys))]


def best(runs: Mapping[str, Sequence[Line]], metric: str = "auc", among: Sequence[str] | None = None) -> str | None:
    """The baseline that is best on validation; None where none has run."""
    names = [name for name in (among or sorted(runs)) if name in runs and name not in (OURS, *OUTSIDE)]
    sign = -1.0 if metric == "log_loss" else 1.0
    scored = {name: mean_of(runs[name], "validation", metric) for name in names}
    known = {name: sign * value for name, value in scored.items() if value is not None}
    return max(known, key=lambda name: known[name]) if known else None


def _decided(lines: Sequence[Line]) -> str | None:
    return decided(Losses.of_records(lines))


def _row(name: str, runs: Sequence[Line], measured: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "seeds": len(runs)}
    for metric in METRICS:
        row[f"test_{metric}_mean"] = mean_of(runs, "test", metric)
        row[f"test_{metric}_std"] = std_of(runs, "test", metric)
        row[f"validation_{metric}_mean"] = mean_of(runs, "validation", metric)
    timed = measured.get("models", {}).get(name, {})
    row |= _stored(name, runs, timed)
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
    row["config"] = runs[0]["config"]
    return row


def _stored(name: str, runs: Sequence[Line], timed: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers that are stored to score, in four bytes each: maps of shared rows, which are no floats, with them.

    Of ours, whose seeds differ, those of the largest bundle, and beside it which bundle was timed.
    """
    own = [line for line in runs if line.get("parameters")]
    largest = max(own, key=lambda line: line["parameters"]["bytes"])["parameters"] if own else {}
    stored = largest if name == OURS and own else timed.get("parameters") or largest
    found: dict[str, Any] = {"parameters_training": largest.get("training")}
    for part in ("embedding", "dense", "bytes"):
        found[f"parameters_{part}"] = stored.get(part)
    numbers = stored["bytes"] // FLOAT32_BYTES if stored else None
    found["parameters_inference"] = numbers
    found["parameters_maps"] = None if numbers is None else numbers - stored["embedding"] - stored["dense"]
    sizes = [line["parameters"]["bytes"] / FLOAT32_BYTES for line in own]
    found["parameters_inference_mean"] = float(np.mean(sizes)) if name == OURS and sizes else numbers
    line = next((one for one in own if one["seed"] == timed.get("seed")), None) if name == OURS else None
    if line is not None:
        found["bundle"] = {
            "seed": line["seed"],
            "test_auc": line["test"]["auc"],
            "test_log_loss": line["test"]["log_loss"],
            "bytes": line["parameters"]["bytes"],
        }
    return found


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
    ours, theirs = (_row(one, runs[one], measured) for one in (OURS, name))
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


def _pair(task: str, runs: Sequence[Line], measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The merged tower against the two that it came from, seed by seed, and what both cost."""
    held = [line for line in runs if "pair" in line.get("facts", {})]
    if not held:
        return []
    pairs = [line["facts"]["pair"] for line in held]
    singles = [tower for line in held for tower in line["facts"].get("towers", ())]
    found: dict[str, Any] = {"task": task, "seeds": len(held)}
    for metric in ("auc", "log_loss"):
        towers = [tower[metric] for tower in singles]
        found[metric] = {
            "merged": mean_of(held, "test", metric),
            "pair": float(np.mean([pair["test"][metric] for pair in pairs])),
            "towers": float(np.mean(towers)) if towers else None,
        }
        if all("bootstrap" in pair for pair in pairs):
            one = paired_interval(held, pairs, metric)
            found[metric] |= {"mean": one.mean, "low": one.low, "high": one.high}
    return [found | _pair_cost(measured.get("models", {}))]


def _beside(runs: Sequence[Line]) -> list[dict[str, Any]]:
    """Ours on test minus its towers' mean, and minus what it would be with a calibration fitted on validation."""
    found = []
    for name in ("teachers", "calibrated"):
        held = [line for line in runs if name in line.get("facts", {})]
        if not held:
            continue
        others = [line["facts"][name] for line in held]
        one: dict[str, Any] = {"other": name, "seeds": len(held)}
        if name == "calibrated":
            one["kinds"] = sorted({line["facts"]["calibration"] for line in held})
        for metric in ("auc", "log_loss"):
            gap = paired_interval(held, others, metric)
            mean = float(np.mean([other["test"][metric] for other in others]))
            one[metric] = {"other": mean, "mean": gap.mean, "low": gap.low, "high": gap.high}
        found.append(one)
    return found


def _pair_cost(models: Mapping[str, Any]) -> dict[str, Any]:
    """FLOPs and net latency of the merged tower over those of the two towers, each exported as it is."""
    if not {OURS, EMPTY, *PAIR} <= set(models):
        return {}
    both = [models[name] for name in PAIR]
    flops = {size: count / sum(one["flops"][size] for one in both) for size, count in models[OURS]["flops"].items()}
    latency = {}
    for size, timing in models[OURS]["latency"].items():
        empty = np.asarray(models[EMPTY]["latency"][size]["blocks"])
        towers = sum(np.asarray(one["latency"][size]["blocks"]) - empty for one in both)
        # As one call of both: what a call costs whatever is in it is counted once.
        latency[size] = ratio(timing["blocks"], (towers + empty).tolist(), empty.tolist())[0]
    return {"flops_ratio": flops, "latency_ratio": latency}


def _over(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or not theirs else ours / theirs
