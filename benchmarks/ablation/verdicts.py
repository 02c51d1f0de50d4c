"""What the report's figures come to: DTF against its controls, what each part earns, and what has not been run.

Tasks of the present method alone are judged: a part of an earlier one is another part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.ablation.gains import LEAST_TASKS, METRICS, gain_text, over_tasks
from benchmarks.ablation.variants import CONTROLS, FULL, VARIANTS
from benchmarks.accuracy.models import METHOD
from benchmarks.serving.report import prose

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


class _Words(NamedTuple):
    """How a verdict is put: of whom, where the whole is clearly ahead, that it is so nowhere, where it is behind.

    Of an addition the two sides are the other way round: the whole lacks it.
    """

    of: str
    ahead: str
    nowhere: str
    behind: str


WORDS: dict[str, _Words] = {
    "part": _Words("`{name}`: the part", "helps in", "clearly helps nowhere", "hurts in"),
    "combination": _Words("`{name}`: the parts together", "help in", "clearly help nowhere", "hurt in"),
    "choice": _Words(
        "`{name}`: given always, it",
        "is clearly worse than the choice in",
        "is clearly worse than the choice nowhere",
        "is clearly better in",
    ),
    "addition": _Words("`{name}`: the addition", "helps in", "clearly helps nowhere", "hurts in"),
    "control": _Words("against {says} (`{name}`), the whole", "helps in", "clearly helps nowhere", "hurts in"),
}


def present(methods: Mapping[str, int], tasks: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the tasks that are shown by the present method."""
    return {task: figures for task, figures in tasks.items() if methods[task] == METHOD}


def against_controls(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """What DTF has to show: worse than none of its controls anywhere, clearly ahead of all three on two tasks.

    Args:
        tasks: Task -> variant -> figures, all of the present method.

    Returns:
        "method": the present one; "tasks": those it is shown for; "compared": those of them with an interval against
        all of `CONTROLS`; "seeds": how many the least of these intervals has, None without any; "ahead_by_auc" and
        "ahead_by_log_loss": tasks compared on which each interval is on the whole's side of 0; "behind":
        "task: control" wherever one is on the other.
    """
    keys = ("compared", "ahead_by_auc", "ahead_by_log_loss", "behind")
    found: dict[str, Any] = {"method": METHOD, "tasks": list(tasks), "seeds": None, **{key: [] for key in keys}}
    seeds = []
    for task, figures in tasks.items():
        known = {name: gain for name in CONTROLS if (gain := _interval(figures, name))}
        found["behind"] += [
            f"{task}: {name}" for name, gain in known.items() if gain["auc"]["high"] < 0 or gain["log_loss"]["low"] > 0
        ]
        if len(known) < len(CONTROLS):
            continue
        found["compared"].append(task)
        seeds += [_seeds(figures, name) for name in CONTROLS]
        if all(gain["auc"]["low"] > 0 for gain in known.values()):
            found["ahead_by_auc"].append(task)
        if all(gain["log_loss"]["high"] < 0 for gain in known.values()):
            found["ahead_by_log_loss"].append(task)
    return {**found, "seeds": min(seeds, default=None)}


def not_run(lines: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """What there is no line of by the present method.

    Args:
        lines: Task -> the variants that it has a line of by the present method, on however few seeds.

    Returns:
        "anywhere": variants of which no task has a line; "nothing": tasks that have none at all; "tasks": task ->
        variants that others have and it lacks, where it has some.
    """
    somewhere = {name for found in lines.values() for name in found}
    lacking = {
        task: [name for name in VARIANTS if name in somewhere and name not in found]
        for task, found in lines.items()
        if found
    }
    return {
        "anywhere": [name for name in VARIANTS if name not in somewhere],
        "nothing": [task for task, found in lines.items() if not found],
        "tasks": {task: names for task, names in lacking.items() if names},
    }


def rule_text(found: Mapping[str, Any]) -> str:
    """How DTF stands against its controls, in words."""

    def of(key: str) -> str:
        names = found[key]
        return f"{len(names)} of {len(found['compared'])} tasks" + (f" ({', '.join(names)})" if names else "")

    seeds = f", of {found['seeds']} seeds at least" if found["compared"] else ""
    return prose(
        f"DTF is to be worse than none of {', '.join(f'`{name}`' for name in CONTROLS)} anywhere, and clearly ahead of",
        "all three on at least two tasks. None of them has an evidence tower among its teachers; `council_teacher`,",
        f"below, has all of DTF's. Lines of method {found['method']} alone are judged, or of one since which nothing",
        "changed on a task's data: of the",
        f"{len(found['tasks'])} tasks that it is shown for, {len(found['compared'])} have intervals against all",
        f"three{seeds}. Clearly ahead of all three by AUC on {of('ahead_by_auc')}, by log loss on",
        f"{of('ahead_by_log_loss')}; clearly behind one by either, wherever there is an interval: "
        + (", ".join(found["behind"]) or ("nowhere" if found["compared"] else "nothing is known yet"))
        + ".",
    )


def earned(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """What each part earns.

    Args:
        tasks: Task -> variant -> figures, all of the present method.

    Returns:
        Variant -> "ahead" and "behind": tasks in which the whole clearly is; "undecided": the others with an interval;
        "seeds": how many the least of these intervals has; "over_tasks": metric -> their mean, of tasks enough.
    """
    found = {}
    for name in VARIANTS:
        gains = {task: gain for task, figures in tasks.items() if (gain := _interval(figures, name))}
        if name == FULL or not gains:
            continue
        ahead, behind = verdict(gains)
        found[name] = {
            "ahead": ahead,
            "behind": behind,
            "undecided": [task for task in gains if task not in {*ahead, *behind}],
            "seeds": min(_seeds(tasks[task], name) for task in gains),
            "over_tasks": {
                metric: over_tasks({task: gain[metric] for task, gain in gains.items()}) for metric in METRICS
            },
        }
    return found


def verdicts_text(parts: Mapping[str, Any], rule: Mapping[str, Any]) -> str:
    """What each part earns, a variant a line.

    Args:
        parts: What `earned` found.
        rule: What `against_controls` did.
    """
    rows = [
        prose(
            f"Lines of method {rule['method']} alone are judged, which is shown for {len(rule['tasks'])} tasks; a",
            "verdict says how many of them have an interval, and how many seeds the least of these has. Undecided: the",
            f"interval holds 0, and says how far apart the two may be. Of {LEAST_TASKS} tasks or more there is a mean,",
            "the whole minus the variant in thousandths, every task counted alike: splits of the same data are taken",
            "to err together, others apart.",
        )
    ]
    for name, part in parts.items():
        variant = VARIANTS[name]
        ahead, behind = part["ahead"], part["behind"]
        if variant.kind == "addition":  # of which the whole lacks what the variant has
            ahead, behind = behind, ahead
        words = WORDS[variant.kind]
        rest = len(part["undecided"])
        means = [
            f"{says} {gain_text(mean)}" for metric, says in METRICS.items() if (mean := part["over_tasks"][metric])
        ]
        rows.append(
            f"- {words.of.format(name=name, says=variant.says)} "
            + (f"{words.ahead} {', '.join(ahead)}" if ahead else words.nowhere)
            + (f"; {words.behind} {', '.join(behind)}" if behind else "")
            + f"; undecided in {rest} of {len(ahead) + len(behind) + rest} tasks, of {part['seeds']} seeds at least"
            + (f"; over tasks {', '.join(means)}" if means else "")
            + "."
        )
    return "\n".join(rows) + "\n"


def not_run_text(found: Mapping[str, Any]) -> str:
    """What the page lacks, in words."""

    def names(of: Sequence[str]) -> str:
        return ", ".join(f"`{name}`" for name in of)

    rows = [f"- on no task: {names(found['anywhere'])}"] if found["anywhere"] else []
    rows += [f"- nothing at all on: {', '.join(found['nothing'])}"] if found["nothing"] else []
    rows += [f"- on {task}, of what others have: {names(lacking)}" for task, lacking in found["tasks"].items()]
    return "\n".join(rows or ["Nothing."]) + "\n"


def verdict(gains: Mapping[str, Mapping[str, Mapping[str, float]]]) -> tuple[list[str], list[str]]:
    """Tasks in which the whole is ahead of a variant, and in which it is behind, in either metric, clearly.

    Args:
        gains: Task -> metric -> mean, low, high of the whole minus the variant.
    """
    ahead, behind = [], []
    for task, gain in gains.items():
        better = gain["auc"]["low"] > 0 or gain["log_loss"]["high"] < 0
        worse = gain["auc"]["high"] < 0 or gain["log_loss"]["low"] > 0
        if better and not worse:
            ahead.append(task)
        if worse and not better:
            behind.append(task)
    return ahead, behind


def _interval(figures: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The whole minus a variant, metric by metric; None where there is no interval."""
    gain: dict[str, Any] = figures.get(name, {}).get("whole_minus_this", {})
    return gain if "low" in gain.get("auc", {}) else None


def _seeds(figures: Mapping[str, Any], name: str) -> int:
    """How many seeds the whole and a variant both have."""
    return len(set(figures[FULL]["seeds"]) & set(figures[name]["seeds"]))
