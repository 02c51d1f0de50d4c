"""The claims, and which of them the figures hold up: true, false, or None where a run for it is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Row = dict[str, Any]

MARGIN: Final = 0.001
"""Of AUC and of log loss: what counts as no worse."""

RIVALS: Final = ("FinalMLP", "DCNv2")
LIMITS: Final = {"parameters_ratio": 1 / 3, "dense_ratio": 1 / 10}
SHALLOW: Final = ("FM", "FwFM")
SMALL: Final = "DNN-small"
SMALL_LIMIT: Final = 1 / 2
LATENCY_LIMIT: Final = 1 / 5
SIZES: Final = ("100", "1000")
_CHOSEN: Final = "best AUC on validation"
_RATIOS: Final = {"parameters_ratio": "inference parameters", "dense_ratio": "dense parameters"}


def verdicts(document: Mapping[str, Any], tasks: Sequence[str]) -> list[Row]:
    """Every claim on every task, and those over all tasks.

    Args:
        document: What `summarise` found so far.
        tasks: All tasks of the table; one without runs leaves its claims open.
    """
    found: list[Row] = []
    for task in tasks:
        against = {one["against"]: one for one in document["comparisons"] if one["task"] == task}
        found += _accuracy(task, next((one for one in against.values() if _CHOSEN in one["chosen"]), None))
        for name in (*RIVALS, SMALL):
            found += _size(task, name, against.get(name))
        for name in RIVALS:
            found += _latency(task, name, against.get(name))
        found += _guard(task, [one for one in document["guards"] if one["task"] == task])
        found += _merged(task, next((one for one in document["pairs"] if one["task"] == task), None))
    return [*found, _half(found, len(tasks))]


def _accuracy(task: str, one: Row | None) -> list[Row]:
    titles = {
        "auc": "mean AUC at least the best baseline's, lower bound above -0.001",
        "log_loss": "log loss no worse than the best baseline's, upper bound below 0.001",
        "auc_above": "AUC clearly above the best baseline's (lower bound above 0)",
    }
    if one is None:
        return [_verdict(task, key, title, None, "") for key, title in titles.items()]
    auc, loss = one["auc"], one["log_loss"]
    name = one["against"]
    return [
        _verdict(task, "auc", titles["auc"], auc["mean"] >= 0 and auc["low"] > -MARGIN, _signed(auc, name)),
        _verdict(task, "log_loss", titles["log_loss"], loss["high"] < MARGIN, _signed(loss, name)),
        _verdict(task, "auc_above", titles["auc_above"], auc["low"] > 0, _signed(auc, name)),
    ]


def _size(task: str, name: str, one: Row | None) -> list[Row]:
    found = []
    for key, title in _RATIOS.items():
        limit = SMALL_LIMIT if name == SMALL else LIMITS[key]
        value = None if one is None else one[key]
        text = f"{title} at most 1/{round(1 / limit)} of {name}'s" + (" (an aim)" if name == SMALL else "")
        holds = None if value is None else value <= limit
        found.append(_verdict(task, f"{key} {name}", text, holds, "" if value is None else f"{value:.3g}"))
    return found


def _latency(task: str, name: str, one: Row | None) -> list[Row]:
    found = []
    for size in SIZES:
        timed = {} if one is None else one["latency_ratio"].get(size, {})
        value = timed.get("value")
        text = f"net latency at {size} candidates at most 1/5 of {name}'s"
        detail, holds = "", None
        if value is not None:
            processor = timed["by_processor_time"]
            detail = f"{value:.3g} ({timed['low']:.3g} to {timed['high']:.3g}); by processor time {processor:.3g}"
            holds = max(value, processor) <= LATENCY_LIMIT
        found.append(_verdict(task, f"latency {size} {name}", text, holds, detail))
    return found


def _merged(task: str, one: Row | None) -> list[Row]:
    text = "the merged tower's AUC no worse than the pair's it came from, lower bound above -0.001"
    if one is None or "low" not in one["auc"]:
        return [_verdict(task, "merged", text, None, "")]
    return [_verdict(task, "merged", text, one["auc"]["low"] > -MARGIN, _signed(one["auc"], "the pair"))]


def _guard(task: str, guards: Sequence[Row]) -> list[Row]:
    """The rules that hold baselines up; those that break one are named."""
    floors = [one for one in guards if one["model"] not in SHALLOW and None not in (one["auc"], one["lr_auc"])]
    below = [one["model"] for one in floors if one["auc"] < one["lr_auc"]]
    pairs = [one for one in guards if None not in (one.get("ours_same_seed"), one.get("library"))]
    weak = [one["model"] for one in pairs if one["ours_same_seed"] < one["library"] - MARGIN]
    return [
        _verdict(
            task, "guard floor", "no deep baseline below one-hot LR", not below if floors else None, ", ".join(below)
        ),
        _verdict(
            task,
            "guard library",
            "no baseline more than 0.001 AUC below the library's own trainer",
            not weak if pairs else None,
            ", ".join(weak),
        ),
    ]


def _half(found: Sequence[Row], tasks: int) -> Row:
    above = [one for one in found if one["claim"] == "auc_above"]
    known = [one for one in above if one["holds"] is not None]
    count = sum(bool(one["holds"]) for one in known)
    holds: bool | None = None
    if 2 * count >= tasks:
        holds = True
    elif 2 * (count + tasks - len(known)) < tasks:
        holds = False
    text = "AUC clearly above the best baseline's on at least half of the tasks"
    return _verdict("all", "half", text, holds, f"{count} of {len(known)} tasks with runs, {tasks} in all")


def _signed(one: Mapping[str, Any], name: str) -> str:
    return f"{one['mean']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f}) against {name}"


def _verdict(task: str, claim: str, text: str, holds: bool | None, detail: str) -> Row:
    return {
        "task": task,
        "claim": claim,
        "text": text,
        "holds": None if holds is None else bool(holds),
        "detail": detail,
    }
