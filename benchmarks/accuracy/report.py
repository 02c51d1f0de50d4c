"""`ACCURACY.md` from the stored document: written by `python -m benchmarks.accuracy`, never by hand."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from benchmarks.accuracy.cells import FEWEST_SEEDS, FEWEST_TRIALS, OURS
from benchmarks.accuracy.glance import glance
from benchmarks.accuracy.plan import GUARD_SEEDS
from benchmarks.accuracy.sections import beside, choices, pace, readings, speed
from benchmarks.accuracy.verdicts import MARGIN, interval_text
from benchmarks.serving.report import number, prose, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Document = dict[str, Any]
COMMAND: Final = "python -m benchmarks.accuracy"
_VERDICT: Final = {True: "holds", False: "**does not hold**", None: "open"}


def markdown(document: Document) -> str:
    """The page."""
    parts = [_head(document), glance(document)]
    for _, rows in groupby(document["rows"], key=lambda row: row["task"]):
        parts.append(_task(list(rows), document["better_of_fm_and_fwfm"]))
    parts += [
        _comparisons(document),
        _verdicts(document),
        _pairs(document),
        beside(document),
        choices(document),
        _guards(document),
        pace(document),
        readings(document),
    ]
    parts += [speed(document), _missing(document), _method(document)]
    return "\n".join(part for part in parts if part)


def plain(document: Document) -> str:
    """The rows for a terminal, 100 columns wide."""
    lines = [f"{'task':29}{'model':11}{'seeds':>5}{'test AUC':>17}{'log loss':>17}{'parameters':>12}{'us at 100':>10}"]
    for row in document["rows"]:
        latency = (row["latency_us"] or {}).get("100")
        lines.append(
            f"{row['task']:29}{row['model']:11}{row['seeds']:5}{_spread(row, 'auc'):>17}{_spread(row, 'log_loss'):>17}"
            f"{_count(row['parameters_inference']):>12}{number(latency):>10}"
        )
    held, failed, still = (sum(one["holds"] is value for one in document["verdicts"]) for value in (True, False, None))
    return "\n".join([*lines, f"claims: {held} hold, {failed} do not, {still} open"])


def _head(document: Document) -> str:
    machine, name = document["machine"], document.get("ledger", "accuracy")
    where = "Latency has not been measured yet."
    if machine is not None:
        where = " ".join(
            (
                f"Latency: {machine['date'][:10]}, {machine['processor']}, {machine['cores']} cores, one thread,",
                f"ONNX Runtime {machine['versions']['onnxruntime']}; `{document['latency_command']}`.",
            )
        )
    return (
        "# Accuracy, parameters and latency, measured\n\n"
        + prose(
            f"Written by `{COMMAND}`; do not edit. REACTION beside the field's baselines on identical encoded",
            "splits: baselines tuned on validation, each offered both ways of early stopping and weight averaging in",
            f"our training loop, and the library's own. {document['runs']} runs of the ledger `{name}.jsonl`,",
            f"{document['cpu_hours']:.1f} hours of processor time.",
            where,
        )
        + f"\n![AUC against latency and parameters]({name}.png)\n"
    )


def _verdicts(document: Document) -> str:
    found = document["verdicts"]
    held, failed, still = ([one for one in found if one["holds"] is value] for value in (True, False, None))
    text = "\n## Which claims hold\n\n" + prose(
        f"{len(held)} hold, {len(failed)} do not, {len(still)} are open. AUC and log loss are differences of means",
        "over seeds with a 95% interval, each against the baseline that is best by it on validation. A claim is open",
        "while a cell that it rests on has not been run, or has had fewer than",
        f"{FEWEST_TRIALS} tuning trials or {FEWEST_SEEDS} seeds,",
        "and against a deep baseline that is below logistic regression on validation.",
    )
    known = [one for one in found if one["holds"] is not None or one["detail"] or one["task"] == "all"]
    rows = [[one["task"], one["text"], one["detail"] or "–", _outcome(one)] for one in known]
    text += "\n" + table(["task", "claim", "measured", ""], rows, texts=4)
    unknown = [one for one in found if one not in known]
    if not unknown:
        return text
    text += "\nOpen, and without any figure yet:\n\n"
    for task, some in groupby(unknown, key=lambda one: one["task"]):
        claims = "; ".join(one["text"] + (f" ({one['open']})" if one["open"] else "") for one in some)
        text += prose(f"- {task}: {claims}", indent="  ")
    return text


def _outcome(one: Mapping[str, Any]) -> str:
    return _VERDICT[one["holds"]] + (f": {one['open']}" if one["open"] else "")


def _comparisons(document: Document) -> str:
    if not document["comparisons"]:
        return ""
    rows = []
    for one in document["comparisons"]:
        latency = one["latency_ratio"]
        rows.append(
            [
                one["task"],
                one["against"] + ("".join(f"; {reason}" for reason in one["chosen"])),
                interval_text(one["auc"]),
                interval_text(one["log_loss"]),
                *(number(one[key]) for key in ("parameters_ratio", "dense_ratio", "flops_ratio")),
                *(_ratio(latency.get(size)) for size in ("1", "100", "1000")),
            ]
        )
    head = ["task", "against", "AUC", "log loss", "stored numbers", "dense", "FLOPs", "latency 1", "100", "1000"]
    text = "\n## REACTION against the baselines, paired\n\n" + prose(
        "AUC and log loss: ours minus theirs, with a 95% interval from a bootstrap over test rows (whole users, or",
        "blocks of time) and seeds, the same resamples on both sides. The others are ratios, ours over theirs:",
        "stored numbers (wanted 1/3 = 0.333 at most against FinalMLP and DCNv2, 0.5 against DNN-small),",
        "dense parameters (wanted 0.1), FLOPs of a request of 100 candidates, and latency net of an empty graph's",
        "call (wanted 0.2 at 100 and 1000), by the clock and, after it, by the thread's processor time, which other",
        "work on the machine does not add to: a claim has to hold by both. LightGBM is an outside reference.",
    )
    return text + "\n" + table(head, rows, texts=2)


def _task(rows: Sequence[Mapping[str, Any]], better: Mapping[str, str | None]) -> str:
    grouped = any(row["test_gauc_mean"] is not None for row in rows)
    head = ["model", "seeds", "trials", "test AUC", "log loss", *(["GAUC"] if grouped else []), "validation AUC"]
    head += ["stored numbers", "embedding", "dense", "kB", "in training", "kFLOPs", "1", "100", "1000", "CPU s"]
    lines = []
    for row in rows:
        latency = row["latency_us"] or {}
        lines.append(
            [
                row["model"],
                str(row["seeds"]),
                str(row["trials"]),
                *(_spread(row, metric) for metric in ("auc", "log_loss", *(["gauc"] if grouped else []))),
                "–" if row["validation_auc_mean"] is None else f"{row['validation_auc_mean']:.4f}",
                *(_count(row[f"parameters_{key}"]) for key in ("inference", "embedding", "dense")),
                number(None if row["parameters_bytes"] is None else row["parameters_bytes"] / 1000),
                _count(row["parameters_training"]),
                number(None if row["flops"] is None else row["flops"] / 1000),
                *(number(latency.get(size)) for size in ("1", "100", "1000")),
                number(row["cpu_seconds_mean"]),
            ]
        )
    task = rows[0]["task"]
    text = f"\n## {rows[0]['dataset']}, {rows[0]['split']} split\n\n" + table(head, lines)
    ours = next((row for row in rows if row["model"] == OURS and row["parameters_inference"] is not None), None)
    said = [f"Of FM and FwFM the better one on validation is {better[task]}."] if better.get(task) else []
    if ours is not None:
        said.append(_bundle(ours))
    return text + ("\n" + prose(*said) if said else "")


def _bundle(row: Mapping[str, Any]) -> str:
    """What of ours was counted and timed."""
    text = f"{OURS} stores {_count(row['parameters_inference'])} numbers in its largest bundle"
    if row["parameters_maps"]:
        text += f", {_count(row['parameters_maps'])} of them the rows of equal table rows"
    text += f"; {_count(round(row['parameters_inference_mean']))} in the mean over seeds."
    if "bundle" in row:
        one = row["bundle"]
        text += (
            f" Timed was seed {one['seed']}'s bundle of {_count(one['bytes'])} bytes, test AUC {one['test_auc']:.4f},"
            f" log loss {one['test_log_loss']:.4f}."
        )
    return text


def _pairs(document: Document) -> str:
    if not document["pairs"]:
        return ""
    rows = []
    for one in document["pairs"]:
        for metric, title in (("auc", "AUC"), ("log_loss", "log loss")):
            value = one[metric]
            shown = [f"{value[key]:.4f}" if value[key] is not None else "–" for key in ("merged", "pair", "towers")]
            rows.append(
                [one["task"], title, *shown, interval_text(value) if "low" in value else "–", str(one["seeds"])]
            )
    head = ["task", "", "merged", "the pair", "a tower of it", "merged - pair", "seeds"]
    text = "\n## The merged tower against the two it came from\n\n" + table(head, rows, texts=2)
    costs = [
        [one["task"], *(number(one["flops_ratio"].get(size)) for size in ("1", "100"))]
        + [number(one["latency_ratio"].get(size)) for size in ("1", "100", "1000")]
        for one in document["pairs"]
        if "flops_ratio" in one
    ]
    if not costs:
        return text + "\nWhat the pair costs has not been measured yet.\n"
    head = ["task", "FLOPs at 1", "100", "net latency at 1", "100", "1000"]
    return (
        text + "\nWhat the merged tower costs, over what the two cost, each exported as it is:\n\n" + table(head, costs)
    )


def _guards(document: Document) -> str:
    if not document["guards"]:
        return ""
    rows = []
    for one in document["guards"]:
        shown = [_auc(one.get(key)) for key in ("ours_same_seed", "library", "ours_whole", "library_whole")]
        agree = _above(one, "ours_same_seed", "library", -MARGIN)
        whole, floor = _above(one, "ours_whole", "library_whole", -MARGIN), _above(one, "auc", "lr_auc", 0.0)
        whole = "is the library's" if one.get("by_library") else whole
        loss = "–" if one.get("log_loss_above") is None else f"{one['log_loss_above']:+.4f}"
        rows.append(
            [one["task"], one["model"], *shown[:2], agree, str(one.get("seeds", "–")), *shown[2:], whole, loss, floor]
        )
    text = "\n## Guard: no baseline made weak\n\n" + prose(
        "Validation AUC. Each baseline trained by our loop against the library's own trainer on the same files, no",
        "more than 0.001 below it: *alike*, of one seed, at the chosen config but for three epochs without dropout,",
        "averaging and batch norm, of which the two do other things; and *to the end*, the table's runs against the",
        "library's of the same seeds at their config, by the recipe of its published configs (dropout and norms as",
        "chosen, a tenth of the rate after an epoch that is no better, the end after two, no averaging; its epoch is",
        f"chosen by AUC less log loss, ours by log loss, of which the difference is shown, too): {GUARD_SEEDS} seeds,",
        "where the first does not have ours ahead or even. Then the tuned ones against one-hot logistic regression,",
        "not below it. Both sides hold one model, of the library's layers (FinalNet, which it lacks, is ours, tested",
        "against loops): what is compared is the trainer.",
    )
    head = ["task", "model", "alike: ours", "library", "within 0.001", "seeds", "to the end: ours", "library"]
    head += ["no more below", "log loss, ours minus", "not below LR"]
    return text + "\n" + table(head, rows, texts=2)


def _above(one: Mapping[str, Any], name: str, other: str, least: float) -> str:
    """How far one figure is above another, and whether that is enough."""
    if None in (one.get(name), one.get(other)):
        return "–"
    gap = one[name] - one[other]
    return f"{gap:+.4f}, " + ("yes" if gap >= least else "**no**")


def _missing(document: Document) -> str:
    extras = document.get("extras_not_run", ())
    if not document["missing"] and not extras:
        return ""
    text = "\n## Not run yet\n\n"
    for task, group in groupby(document["missing"], key=lambda one: one["task"]):
        kinds: dict[str, list[str]] = {}
        for one in group:
            kinds.setdefault(one["what"], []).append(one["model"])
        text += f"- {task}: " + "; ".join(f"{what}: {', '.join(names)}" for what, names in kinds.items()) + "\n"
    return text + "".join(f"- {task}, an extra: not run\n" for task in extras)


def _method(document: Document) -> str:
    disturbed = [task for task, one in document["others_load"].items() if one["disturbed"]]
    load = "".join(f" {task}: {one['others_load']:.0%}." for task, one in document["others_load"].items())
    noisy = (
        f"Disturbed by other work, so trust the ratios by processor time: {', '.join(disturbed)}." if disturbed else ""
    )
    return "\n## How\n\n" + prose(
        "Tuning looks at validation alone; a run reads the test split only with the chosen config (how often that has",
        "been is said above). A spread is the standard deviation over seeds. Stored numbers are counted in the",
        "exported graph by one function for all: tables as they are stored (folded ones at the first layer's",
        "width), the rows of table rows that are equal, batch norms folded away; of ours those of the largest of the",
        "seeds' bundles. Every baseline is exported by our passes: one stacked look-up a side (of FwFM two: its linear",
        "part has a stack of its own),",
        "norms and constant gates folded, the first layer split between context and candidates (DNN and DNN-small",
        "through all of our fusion rules, folding included), ONNX Runtime's offline optimisation; each graph is",
        "held against its eager module in float64 (at most 2e-6 on probabilities). All models of a task take turns,",
        "call by call, in one process with one thread; a call has one context row and the stated number of",
        "candidates, real rows of the test split. Latencies of the tables are microseconds of whole calls, an empty",
        "graph's included; ratios are net of it. LightGBM has no graph and no place in that race. REACTION's own",
        "calibration step is switched off here; a baseline that says calibrated has slope and offset of its logit",
        "fitted on validation, on which trials are compared: it is ahead there by what two numbers can learn by heart.",
        "Intervals are of 200 resamples of test rows (users or blocks of time where they come in such) and of seeds; a",
        "bound is itself known to about a tenth of its distance from the mean, so a claim that is as near to its limit",
        "as that might turn.",
        f"While it ran, others used of the processors:{load}" if load else "",
        noisy,
    )


def _ratio(one: Mapping[str, float] | None) -> str:
    return "–" if one is None else f"{number(one['value'])} / {number(one['by_processor_time'])}"


def _spread(row: Mapping[str, Any], metric: str) -> str:
    mean, std = row[f"test_{metric}_mean"], row[f"test_{metric}_std"]
    if mean is None:
        return "–"
    return f"{mean:.4f}" if std is None else f"{mean:.4f} ± {std:.4f}"


def _auc(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
