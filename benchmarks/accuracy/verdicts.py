"""The claims, and which of them the figures hold up: true, false, or None where that cannot be judged yet.

None is the verdict where runs are missing, where a cell that it rests on has had fewer trials or seeds than `cells`
asks for, and, whatever the figures, against a deep baseline that is below logistic regression on validation: being
ahead of a weak one proves nothing. Each metric is compared with the baseline that is best by that metric on validation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from benchmarks.accuracy.cells import NOT_RUN, OURS
from benchmarks.accuracy.plan import GUARD_SEEDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Row = dict[str, Any]

MARGIN: Final = 0.001
"""Of AUC and of log loss: what counts as no worse."""

RIVALS: Final = ("FinalMLP", "DCNv2")
LIMITS: Final = {"parameters_ratio": 1 / 3, "dense_ratio": 1 / 10}
SHALLOW: Final = ("FM", "FwFM")
SMALL: Final = "DNN-small"
SMALL_LIMIT: Final = 1 / 2
HALF: Final = 0.55
"""What counts as half."""
LATENCY_LIMIT: Final = 1 / 5
WHOLE: Final = "guard whole"
SIZES: Final = ("100", "1000")
_BEST: Final = {"auc": "best AUC on validation", "log_loss": "best log loss on validation"}
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
        guards = [one for one in document["guards"] if one["task"] == task]
        lacks = {one["model"]: one["lacks"] for one in document["lacking"] if one["task"] == task}
        everything = "; ".join(f"{what}: {', '.join(names)}" for what, names in _grouped(lacks).items())
        better = f"better by the library's trainer: {', '.join(outdone(guards))}" if outdone(guards) else ""
        why = "; ".join(filter(None, (everything, better)))
        found += [_held(one, why) for one in _accuracy(task, list(against.values()))]
        for name in (*RIVALS, SMALL):
            # Widths of the rivals are given: what tuning sets changes neither their numbers nor their graph's cost.
            waits = (name, OURS) if name == SMALL or lacks.get(name) == NOT_RUN else (OURS,)
            why = "; ".join(f"{model}: {lacks[model]}" for model in waits if model in lacks)
            if name in below(guards):
                why = "; ".join(filter(None, (why, f"{name} is below logistic regression on validation")))
            sized = _size(task, name, against.get(name))
            if name != SMALL:
                sized += _latency(task, name, against.get(name))
            found += [_held(one, why) for one in sized]
        found += _guard(task, guards, lacks)
        pair = next((one for one in document["pairs"] if one["task"] == task), None)
        found += [_held(one, lacks.get(OURS, "")) for one in _merged(task, pair)]
    return [*found, _half(found, len(tasks))]


def best_by_metric(against: Iterable[Row]) -> dict[str, Row | None]:
    """By AUC and by log loss: of a task's comparisons the one with the baseline that is best by it on validation."""
    found = list(against)
    return {metric: next((one for one in found if why in one["chosen"]), None) for metric, why in _BEST.items()}


def below(guards: Sequence[Row]) -> list[str]:
    """Deep baselines that are below logistic regression on validation."""
    return [one["model"] for one in _beside_lr(guards) if one["auc"] < one["lr_auc"]]


def outdone(guards: Sequence[Row]) -> list[str]:
    """Baselines that the library trains better than ours are, and to no less than the best of ours."""
    best = max((one["auc"] for one in guards if one["auc"] is not None), default=0.0)
    seen = [one for one in guards if one.get("library_whole") is not None]
    behind = [one for one in seen if _behind(one, "ours_whole", "library_whole")]
    return [one["model"] for one in behind if one["library_whole"] > best - MARGIN]


def _behind(one: Row, ours: str, library: str) -> bool:
    return bool(one[ours] < one[library] - MARGIN)


def _beside_lr(guards: Sequence[Row]) -> list[Row]:
    """Of deep baselines, those that can be compared with logistic regression."""
    return [one for one in guards if one["model"] not in SHALLOW and None not in (one["auc"], one["lr_auc"])]


def _grouped(lacks: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for model, what in lacks.items():
        found.setdefault(what, []).append(model)
    return found


def _held(one: Row, why: str) -> Row:
    """Left open where something that it rests on is missing or weak."""
    return {**one, "holds": None, "open": why} if why else one


def _accuracy(task: str, against: Sequence[Row]) -> list[Row]:
    titles = {
        "auc": "mean AUC at least the best baseline's, lower bound above -0.001",
        "log_loss": "log loss no worse than the best baseline's (by log loss), upper bound below 0.001",
        "auc_above": "AUC clearly above the best baseline's (lower bound above 0)",
    }
    best = best_by_metric(against)
    by_auc, by_loss = best["auc"], best["log_loss"]
    if by_auc is None or by_loss is None:
        return [_verdict(task, key, title, None, "") for key, title in titles.items()]
    auc, loss = by_auc["auc"], by_loss["log_loss"]
    name = by_auc["against"]
    return [
        _verdict(task, "auc", titles["auc"], auc["mean"] >= 0 and auc["low"] > -MARGIN, _signed(auc, name)),
        _verdict(task, "log_loss", titles["log_loss"], loss["high"] < MARGIN, _signed(loss, by_loss["against"])),
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
    cost = "the merged tower at half the pair's cost, to a tenth of it: FLOPs and net latency at 100, latency at 1000"
    known = one is not None and "low" in one["auc"]
    found = [
        _verdict(
            task,
            "merged",
            text,
            one["auc"]["low"] > -MARGIN if one is not None and known else None,
            _signed(one["auc"], "the pair") if one is not None and known else "",
        )
    ]
    if one is None or "flops_ratio" not in one:
        return [*found, _verdict(task, "merged cost", cost, None, "")]
    ratios = [one["flops_ratio"]["100"], *(one["latency_ratio"][size] for size in SIZES)]
    holds = max(ratios) <= HALF
    return [*found, _verdict(task, "merged cost", cost, holds, ", ".join(f"{value:.3g}" for value in ratios))]


def _guard(task: str, guards: Sequence[Row], lacks: Mapping[str, str]) -> list[Row]:
    """The rules that hold baselines up; those that break one are named. What was not looked at is open."""
    under = [name for name in below(guards) if name not in lacks]
    floor = _verdict(
        task,
        "guard floor",
        "no deep baseline below one-hot LR",
        not under if _beside_lr(guards) else None,
        ", ".join(under),
    )
    waiting = {name: what for name, what in lacks.items() if name not in {OURS, *SHALLOW}}
    missing = "; ".join(f"{what}: {', '.join(names)}" for what, names in _grouped(waiting).items())
    found = [floor if under else _held(floor, missing)]
    trainer = "no baseline more than 0.001 AUC below the library's own trainer"
    for claim, text, ours, library in (
        ("guard library", f"{trainer}, both for three epochs", "ours_same_seed", "library"),
        (WHOLE, f"{trainer} at its end", "ours_whole", "library_whole"),
    ):
        pairs = [one for one in guards if None not in (one.get(ours), one.get(library))]
        behind = [one for one in pairs if _behind(one, ours, library)]
        weak = [one["model"] for one in behind if one.get("seeds", GUARD_SEEDS) >= GUARD_SEEDS or claim != WHOLE]
        unsure = [one["model"] for one in behind if one["model"] not in weak]
        own = [one["model"] for one in guards if one.get("by_library") and claim == WHOLE]
        unseen = [one["model"] for one in guards if one not in pairs and one["model"] not in own]
        unseen += [name for name, what in lacks.items() if what == NOT_RUN and name not in {OURS, "LR", *unseen}]
        told = _verdict(task, claim, text, not weak if pairs or own else None, ", ".join(weak))
        lacking = [f"not compared: {', '.join(unseen)}"] if unseen else []
        lacking += [f"behind, of fewer than {GUARD_SEEDS} seeds: {', '.join(unsure)}"] if unsure else []
        found.append(told if weak else _held(told, "; ".join(lacking)))
    return found


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


def interval_text(one: Mapping[str, float]) -> str:
    """A difference and its interval; what is rounded to nothing has no sign of less."""
    mean, low, high = (round(one[key], 4) + 0.0 for key in ("mean", "low", "high"))
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def _signed(one: Mapping[str, float], name: str) -> str:
    return f"{interval_text(one)} against {name}"


def _verdict(task: str, claim: str, text: str, holds: bool | None, detail: str) -> Row:
    return {
        "task": task,
        "claim": claim,
        "text": text,
        "holds": None if holds is None else bool(holds),
        "detail": detail,
        "open": "",
    }
