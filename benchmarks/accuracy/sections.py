"""Sections of `ACCURACY.md` on how the table came about: tuning, pace, and readings of the test split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.accuracy.cells import OURS
from benchmarks.accuracy.tuning import CONTENDERS
from benchmarks.accuracy.verdicts import SMALL, interval_text
from benchmarks.serving.report import number, prose, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Document = dict[str, Any]
SPEED = "python -m tests.training.bench_speed --figures benchmarks/training_speed.json"
_OTHERS = {"teachers": "the towers' mean", "calibrated": "ours, calibrated"}


def choices(document: Document) -> str:
    """What was tried in each cell, and taken."""
    rows = [
        [row["task"], row["model"], str(row["trials"]), _taken(row["tuned"]), ", ".join(row["edge"]) or "–"]
        for row in document["rows"]
        if row["model"] != OURS and row["trials"] > 1
    ]
    if not rows:
        return ""
    text = "\n## What tuning chose\n\n" + prose(
        "On validation log loss: a ladder of the strength of the tables' L2, with a rung more beyond the end that is",
        "best; the best rung once more, stopped by the log loss that is left once slope and offset of the logit are",
        "fitted, these two numbers (slope not negative) then being part of its last layer; where that is better, the",
        "ladder anew from there, for L2 no longer has to hold down how sure a model is; then points of a Sobol",
        "sequence over the rest, around the best so far; then the best at a learning rate beyond all that was",
        "tried, where its own is the least or the greatest, and with the dropout at the end of its range, likewise;",
        "then the best by the library's own trainer and recipe (a tenth of the rate on a plateau, its epoch by AUC",
        "less log loss, no averaging), calibrated as well, and under other L2 where that is better; best being so at",
        "one seed up to here. The best trial and",
        f"those as near to it as two runs may be by chance ({CONTENDERS} at most; by 2.8 standard deviations of the",
        "best's runs) are run with three seeds, and of all configs with so many the lowest mean over all of a config's",
        "runs is taken, the table's seeds among them; where that is not done yet, a claim that rests on it is open. In",
        "brackets the values that were tried; a setting of one value alone is not listed. At an edge: nothing was",
        "tried beyond what was taken, so what is best may lie there, and the baseline be stronger than shown.",
        f"{OURS} is not in this table: each of its runs searches by itself (below, training speed).",
    )
    return text + "\n" + table(["task", "model", "trials", "taken", "at an edge"], rows, texts=5)


def _taken(tuned: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} {_value(taken)} ({', '.join(map(_value, tried))})" for name, (taken, tried) in tuned.items()
    )


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "-".join(map(str, value))
    return value if isinstance(value, str) else f"{value:g}"


def beside(document: Document) -> str:
    """What teaches, and what a calibration would do."""
    if not document["beside"]:
        return ""
    rows = [
        [
            one["task"],
            _OTHERS[one["other"]] + (f" ({', '.join(one['kinds'])})" if "kinds" in one else ""),
            *(f"{one[metric]['other']:.4f}" for metric in ("auc", "log_loss")),
            *(interval_text(one[metric]) for metric in ("auc", "log_loss")),
            str(one["seeds"]),
        ]
        for one in document["beside"]
    ]
    text = "\n## What teaches, and what a calibration would do\n\n" + prose(
        "On test: the mean of all towers that taught, none of which is served; and the served model with the monotone",
        "calibration that a training fits on validation unless told not to, as it is here (which kinds it kept;",
        "identity is none). A log loss of ours minus the calibrated one above 0 is what the calibration gains.",
    )
    head = ["task", "", "AUC", "log loss", "ours minus it: AUC", "log loss", "seeds"]
    return text + "\n" + table(head, rows, texts=2)


def pace(document: Document) -> str:
    """How many runs an hour, and what that made of the table."""
    found = document["pace"]
    if found["runs_an_hour"] is None:
        return ""
    slowest = sorted(found["seconds"].items(), key=lambda one: -one[1])
    tuned = [row for row in document["rows"] if row["model"] != OURS and row["trials"] > 1]
    seeds = sorted({row["seeds"] for row in document["rows"]})
    text = (
        f"A core does {found['runs_an_hour']:.0f} runs an hour in the mean of those in the ledger; seconds a run: "
        + ", ".join(f"{name} {number(seconds)}" for name, seconds in slowest)
        + "."
    )
    size = ""
    if tuned:
        trials = sorted({row["trials"] for row in tuned})
        tasks = len(document["test_readings"])
        cost = tasks * sum(found["seconds"][name] for name in {row["model"] for row in tuned}) / 3600
        size = (
            f"The tuned cells have had {_range(trials)} trials, the rows {_range(seeds)} seeds; 7 trials and 5 seeds of"
            f" every tuned model on all {tasks} tasks are {12 * cost:.0f} hours of a core, 7 trials and 3 seeds"
            f" {10 * cost:.0f}; further rungs and rates, and seeds that decide between configs, come on top. So the"
            " tables are of samples, and of fewer seeds than five where it says so; Criteo by the order"
            " of its rows, which have no timestamps, is an extra."
        )
    return "\n## How the table was sized\n\n" + prose(text, size)


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def speed(document: Document) -> str:
    """How fast training is: of a step, from `training_speed.json`, and of whole runs, from the ledger."""
    seconds = {(row["task"], row["model"]): row["cpu_seconds_mean"] for row in document["rows"]}
    ours = {task: value for (task, name), value in seconds.items() if name == OURS and (task, SMALL) in seconds}
    ratios = sorted(value / seconds[task, SMALL] for task, value in ours.items())
    found = document.get("training_speed")
    if not ratios and not found:
        return ""
    text = "\n## Training speed\n\n"
    if ratios:
        text += prose(
            f"A whole run of {OURS} takes {number(ratios[0])} to {number(ratios[-1])} times the processor time of",
            f"one of {SMALL} with given settings: it trains four towers, the first of them several times (rare values",
            "sharing rows or not, beginning near zero or not, under several strengths of L2) and all of them again",
            "where L2 is undecided, one more where values share rows, and then the fused one from two beginnings, and",
            f"a third time where that tower teaches. {SMALL} is given by a tuning of as many runs as it has trials.",
        )
    if not found:
        return text + f"\nSteps have not been measured yet: `{SPEED}`.\n"
    machine = found["machine"]
    text += "\n" + prose(
        f"Steps: `{found['command']}`, {machine['date'][:10]}, {machine['processor']}, {found['threads']} thread,",
        f"{found['rounds']} rounds, processor time; medians of ratios within a round, and their range.",
    )
    rows = [
        [
            one["what"],
            f"{one['rows_a_second']:,.0f}",
            f"{one['ratio']:.2f} ({one['low']:.2f} to {one['high']:.2f})",
            f"at least {one['least']:g}" if one["least"] is not None else f"at most {one['most']:g}",
            "reached" if _reached(one) else "**missed**",
        ]
        for one in found["figures"]
    ]
    return text + "\n" + table(["a step", "our rows/s", "ratio", "wanted", ""], rows)


def _reached(one: Mapping[str, Any]) -> bool:
    low, high = one["least"], one["most"]
    return (low is None or one["ratio"] >= low) and (high is None or one["ratio"] <= high)


def readings(document: Document) -> str:
    """How often each task's test split was read."""
    found = [one for one in document["test_readings"] if one["runs"] or one["superseded_runs"]]
    if not found:
        return ""
    text = "\n## How often the test split was read\n\n" + prose(
        "More than once: REACTION changed while the table grew, and its earlier versions had read it, too. None of",
        "their figures is in the table, and no command chooses by test; but whoever changed the method could see them,",
        "so where there are such versions, ours on the test split is to be trusted less than a baseline's, and less",
        "than on a task without. Of a baseline a superseded version is an earlier choice of its tuning.",
    )
    rows = [
        [
            one["task"],
            str(one["runs"]),
            str(one["superseded_runs"]),
            ", ".join(f"{name} {count}" for name, count in one["superseded_versions"].items()) or "none",
        ]
        for one in found
    ]
    return text + "\n" + table(["task", "runs in the table", "superseded runs", "superseded versions"], rows)
