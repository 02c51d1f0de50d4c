"""From the ledger to `ABLATION.md` and `ablation.json`: means, spreads, paired intervals, and what they come to."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.ablation.gains import METRICS, gain_text
from benchmarks.ablation.variants import FULL, VARIANTS
from benchmarks.ablation.verdicts import (
    against_controls,
    earned,
    not_run,
    not_run_text,
    present,
    rule_text,
    verdicts_text,
)
from benchmarks.accuracy.bootstrap import paired_interval
from benchmarks.accuracy.models import METHOD, method_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.accuracy.bootstrap import Interval
    from benchmarks.accuracy.ledger import Line

FORMER = {"fresh_form": "afresh"}
"""Variants whose names have changed."""

LEAST_SEEDS = 3
"""Seeds of an interval: of two, Student's quantile makes it nine times as wide as they lie apart."""

HEAD = """# Ablation and controls

`python -m benchmarks.ablation` wrote this page from `ablation.jsonl`. What is in there was trained by the same command,
with `--tasks`, `--variants` and `--seeds`, on validation data alone: no test split is read.

Parts are switched off one at a time; a combination lacks several; a choice is one way, given always, of what validation
otherwise chooses between. The validation rows measured on are those that stop the phases and choose L2, sharing and
starts: a part that is a choice on validation is favoured by construction.

Every variant searches for the tables' L2 and for row sharing with its own towers on one seed. Controls take as many
optimiser steps in all as the whole, with weight averaging; how they stop, whether their teacher is calibrated, what
labels weigh beside it, and their students' L2 and beginning are tuned on one seed (those whose teacher is calibrated as
DTF's: the students' alone). No control has an evidence tower among its teachers but `council_teacher`, which has all
that teach DTF. Differences are *the whole minus the variant*, in thousandths, with a 95% interval over validation
rows (whole users where the data has them) and seeds, both paired: an AUC difference above 0 and a log loss difference
below 0 speak for the whole. **Bold**: the interval does not hold 0. Of fewer than three seeds there is none.
"""


BEFORE = """**Of method {method}: the present one, {now}, has too few lines of this task yet.**
"""


def as_json(lines: Iterable[Line]) -> dict[str, Any]:
    """The report's content.

    Args:
        lines: The ledger's; those of the variants that are there now, of the newest experiment of each task, by the
            newest method that has `LEAST_SEEDS` seeds of its whole, or if none has, by the newest.

    Returns:
        {"methods": {task: number}, "tasks": {task: {variant: figures}}, and by the present method alone
        "against_controls": the rule, "earned": what each part earns, "not_run": what there is no line of}.
    """
    shown = [
        line
        for line in lines
        if line.purpose == "ablation" and _variant(line) in VARIANTS and line.validation is not None and _method(line)
    ]
    by_task: dict[str, list[Line]] = {}
    for line in shown:
        by_task.setdefault(line.task, []).append(line)
    methods = {task: _newest_method(found) for task, found in by_task.items()}
    figures = {}
    for task, found in by_task.items():
        by_variant: dict[str, list[Line]] = {}
        for line in found:
            if _method(line) == methods[task]:
                by_variant.setdefault(_variant(line), []).append(line)
        figures[task] = _task(by_variant)
    now = present(methods, figures)
    return {
        "methods": methods,
        "tasks": figures,
        "against_controls": against_controls(now),
        "earned": earned(now),
        "not_run": not_run({task: _by_present(found) for task, found in by_task.items()}),
    }


def _variant(line: Line) -> str:
    """The variant that a line is of, by its name of today."""
    return FORMER.get(line.model, line.model)


def _by_present(lines: Sequence[Line]) -> set[str]:
    """The variants that have a line by the present method."""
    return {_variant(line) for line in lines if _method(line) == METHOD}


def _newest_method(lines: Sequence[Line]) -> int:
    """The newest method of which a task's whole has seeds enough; the newest of all if none has."""
    seeds: dict[int, set[int]] = {}
    for line in lines:
        if line.model == FULL:
            seeds.setdefault(_method(line), set()).add(line.seed)
    enough = [method for method, found in seeds.items() if len(found) >= LEAST_SEEDS]
    return max(enough or map(_method, lines))


def _method(line: Line) -> int:
    """By which method a line was made: the present one's number at most; 0 where it has none.

    One since which nothing changed on the task's data is as good as the present one.
    """
    method = line.config.get("method")
    if not isinstance(method, int) or method > METHOD:
        return 0
    return METHOD if method >= method_of(line.task) else method


def _task(found: Mapping[str, Sequence[Line]]) -> dict[str, Any]:
    whole = _most_seeds(found.get(FULL, ()))
    figures: dict[str, Any] = {}
    for name, variant in VARIANTS.items():
        lines = _most_seeds(found.get(name, ()))
        if not lines:
            continue
        figures[name] = {"kind": variant.kind, "says": variant.says, "seeds": sorted(line.seed for line in lines)}
        for metric in METRICS:
            values = [getattr(line.validation, metric) for line in lines]
            figures[name][metric] = {"mean": statistics.fmean(values), "std": _spread(values)}
        figures[name]["steps"] = round(statistics.fmean(line.steps or 0 for line in lines))
        figures[name]["cpu_seconds"] = round(statistics.fmean(line.cpu_seconds for line in lines))
        figures[name]["config"] = lines[-1].config.get("control")
        if name != FULL and whole:
            figures[name]["whole_minus_this"] = {metric: _gain(whole, lines, metric) for metric in METRICS}
    return figures


def _most_seeds(lines: Sequence[Line]) -> list[Line]:
    """The lines of the configuration that has most seeds, of those the one that was run last, one a seed.

    What is searched for may come out differently on another processor: one run of that must not take the others' place.
    """
    configs: dict[str, dict[int, Line]] = {}
    for line in lines:
        key = json.dumps(line.config | {"method": METHOD}, sort_keys=True)  # as those of one method are given
        found = configs.pop(key, {})
        configs[key] = {**found, line.seed: line}  # last: the one that was run last
    return list(max(reversed(configs.values()), key=len, default={}).values())


def _gain(whole: Sequence[Line], lines: Sequence[Line], metric: str) -> dict[str, float]:
    # One seed's variants share the towers that they differ in nothing of, so seeds are drawn together.
    seeds = sorted({line.seed for line in lines} & {line.seed for line in whole})
    if not seeds:
        return {}
    by_seed = ({line.seed: line.model_dump(mode="json") for line in side} for side in (whole, lines))
    ours, theirs = ([found[seed] for seed in seeds] for found in by_seed)
    found: Interval = paired_interval(ours, theirs, metric, split="validation", bootstrap="bootstrap_validation")
    if len(seeds) < LEAST_SEEDS:  # what seeds add to the spread is unknown
        return {"mean": found.mean, "seeds": len(seeds)}
    return {"mean": found.mean, "seeds": len(seeds), "low": found.low, "high": found.high}


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def as_markdown(content: Mapping[str, Any]) -> str:
    """The page."""
    parts = [HEAD]
    for task, figures in content["tasks"].items():
        parts.append(f"## {task}\n")
        if content["methods"][task] != METHOD:
            parts.append(BEFORE.format(method=content["methods"][task], now=METHOD))
        parts.append(_table(figures))
    parts += ["## DTF against its controls\n", rule_text(content["against_controls"])]
    parts += ["## What each part earns\n", verdicts_text(content["earned"], content["against_controls"])]
    parts += ["## Not run yet by the present method\n", not_run_text(content["not_run"])]
    return "\n".join(parts)


def _table(figures: Mapping[str, Any]) -> str:
    rows = [
        "| variant | AUC | log loss | whole minus this: AUC | log loss | steps | CPU s | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in figures.items():
        spread = len(found["seeds"]) > 1  # of one there is none
        cells = [f"{found[m]['mean']:.4f}" + (f" ± {found[m]['std']:.4f}" if spread else "") for m in METRICS]
        gains = [_gain_text(found.get("whole_minus_this", {}).get(m)) for m in METRICS]
        label = f"{found['says']} (`{name}`)"
        rows.append(
            "| "
            + " | ".join(
                [label, *cells, *gains, f"{found['steps']:,}", f"{found['cpu_seconds']:,}", f"{len(found['seeds'])}"]
            )
            + " |"
        )
    return "\n".join(rows) + "\n"


def _gain_text(gain: Mapping[str, float] | None) -> str:
    if not gain:
        return ""
    if "low" not in gain:
        return f"{1e3 * gain['mean']:+.1f} ({'one seed' if gain['seeds'] == 1 else 'two seeds'})"
    return gain_text(gain)
