"""What a demonstration shows: everything beside what is known to be true of the generated log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from training.metrics import auc, log_loss
from training.pages.results import MODELS
from training.parameters import count_parameters

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from model_export.demo.requests import Answers, Request
    from model_export.demo.workplace import Workplace
    from model_export.report import Stage
    from training.datasets.synthetic import SyntheticData, Truth
    from training.runs import Run

TEST_SPLIT = 2


def _table(title: str, *headings: str, left: int = 1) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < left or not heading else "right")
    return table


def quality_table(run: Run, log: SyntheticData) -> Table:
    """AUC and log loss on the test split: baseline, towers, pair, fused model, and the best there can be."""
    table = _table("How well it predicts (test split)", "model", "AUC", "log loss", "")
    metrics = {**run.metrics["test"], "baseline": run.metrics["baseline"]["test"]}
    served = "calibrated" if "calibrated" in metrics else "fused"
    notes = {"baseline": "one-hot, C tuned on validation", "fused": "both towers merged into one"}
    notes["calibrated"] = "its probabilities set right on validation"
    notes[served] += ": what is served"
    for model, name in MODELS.items():
        if model in metrics:
            style = "bold green" if model == served else None
            found = metrics[model]
            table.add_row(name, f"{found['auc']:.4f}", f"{found['log_loss']:.4f}", notes.get(model, ""), style=style)
    tested = log.split == TEST_SPLIT
    label, truth = log.label[tested], log.probabilities[tested]
    table.add_section()
    best = (f"{auc(label, truth):.4f}", f"{log_loss(label, truth):.4f}")
    table.add_row("Bayes-optimal", *best, "the true probabilities, which no model can beat", style="dim")
    return table


def afe_table(run: Run, truth: Truth, served: Collection[str]) -> Table:
    """What AFE kept and dropped of every role that a field can have in the generator.

    Args:
        run: The run.
        truth: What is true of the fields.
        served: The fields that the merged model reads.
    """
    selection = run.selection
    dims: Mapping[str, int] = selection["dims"]
    found = {frozenset(pair) for pair in selection["interactions"]}
    table = _table(
        "What feature selection (AFE) made of fields whose roles it is not told",
        *("role in truth", "kept, with dimensions", "dropped", "gate closed"),
        left=4,
    )
    copies = {name for group in truth.duplicates for name in group}
    roles: list[tuple[str, Collection[str]]] = [("noise", truth.named("noise"))]
    roles += [(f"{_original(truth, group)} and its copies", group) for group in truth.duplicates]
    roles += [
        (f"XOR pair, {'found' if frozenset(pair) in found else 'not singled out'}", pair) for pair in truth.xor_pairs
    ]
    roles += [(role, truth.named(role) - copies) for role in ("informative", "weak")]
    for role, members in roles:
        kept = [f"{name} {dims[name]}" for name in sorted(members) if name in served]
        dropped = [name for name in sorted(members) if name not in dims]
        closed = [name for name in sorted(members) if name in dims and name not in served]
        table.add_row(role, *(", ".join(names) or "–" for names in (kept, dropped, closed)))
    table.caption = f"{len(truth.fields)} fields, {len(served)} served"
    table.caption_justify = "left"
    return table


def _original(truth: Truth, group: Collection[str]) -> str:
    return next(name for name in sorted(group) if truth.fields[name].copy_of is None)


def merging_table(stages: Mapping[str, Stage]) -> Table:
    """Parameters, work and time of the model before and after merging."""
    names = {"pair": "two towers", "fusion form": "fusion form", "fused": "fused"}
    table = _table(
        "What merging the towers (DTF) saves", "", *(names.get(name, name) for name in stages), "fused / pair"
    )
    every = list(stages.values())

    def add(label: str, values: list[float], form: str) -> None:
        table.add_row(label, *(format(value, form) for value in values), f"{values[-1] / values[0]:.2f}")

    add("parameters", [s.parameters.total for s in every], ",")
    add("dense FLOPs a row", [s.dense_flops for s in every], ",")
    add("file, KiB", [s.file_bytes / 1024 for s in every], ",.0f")
    for rows in every[0].latency_us:
        add(f"µs a call, {rows:,} row{'s' * (rows > 1)}", [s.latency_us[rows] for s in every], ",.1f")
    return table


def ranking_table(request: Request, answer: Mapping[str, Any], log: SyntheticData) -> Table:
    """One request as it was answered, best candidate first, beside what is true of it."""
    table = _table(
        "A real request, ranked by the service", "place", "candidate", "score", "true probability", "clicked", left=2
    )
    scores = answer["scores"]
    for place, index in enumerate(np.argsort(-np.array(scores), kind="stable").tolist(), 1):
        row = int(request.rows[index])
        values = " ".join(f"{name}={value}" for name, value in list(request.candidates[index].items())[:3])
        clicked = "yes" if log.label[row] else ""
        table.add_row(str(place), f"{values} …", f"{scores[index]:.4f}", f"{log.probabilities[row]:.4f}", clicked)
    return table


def serving_table(answers: Answers) -> Table:
    """Time of a call over HTTP, as the client sees it."""
    table = _table(
        f"POST /score over HTTP: {answers.requests} requests, {answers.candidates:,} candidates",
        *("candidates", "calls", "median", "p99", "candidates/s"),
    )
    for latency in answers.latency:
        table.add_row(
            f"{latency.rows:,}",
            f"{latency.calls:,}",
            f"{latency.median * 1e3:.2f} ms",
            f"{latency.p99 * 1e3:.2f} ms",
            f"{latency.rows / latency.median:,.0f}",
        )
    return table


def agreement(answers: Answers) -> str:
    """How close the scores are to the model that was trained."""
    return (
        f"Largest difference to the unfused torch model: {answers.unfused:.1e} on these requests, "
        f"{answers.golden:.1e} on golden rows sent as rows, as columns and pointwise."
    )


def summary(run: Run, log: SyntheticData, stages: Mapping[str, Stage]) -> str:
    """The outcome in three lines."""
    tested = log.split == TEST_SPLIT
    best = auc(log.label[tested], log.probabilities[tested])
    linear, fused = run.metrics["baseline"]["test"]["auc"], run.metrics["test"]["fused"]["auc"]
    parameters = count_parameters(run)
    served = stages["fused"].parameters.total
    before, after = (stages[name].latency_us[100] for name in ("pair", "fused"))
    way = f"{(fused - linear) / (best - linear):.0%} of the way from logistic regression ({linear:.4f})"
    against = f"against {parameters.before:,} of two towers over all {len(parameters.fields)} fields"
    lines = [
        f"[bold]Accuracy[/]    AUC {fused:.4f}: {way} to the best possible ({best:.4f})",
        f"[bold]Parameters[/]  {served:,} served, {against}: {served / parameters.before:.1%}",
        f"[bold]Latency[/]     {after:.0f} µs for 100 candidates in ONNX Runtime, {before:.0f} µs before merging",
    ]
    return "\n".join(lines)


def closing(workplace: Workplace, *, seconds: float, served: bool) -> str:
    """What there is now, and how to go on."""
    root = workplace.root
    lines = [
        f"[bold]Done in {seconds:.0f} s.[/] Look at {root}/run/report.html in a browser.",
        f"Start the service:  .venv/bin/python -m service --bundle {root}/bundle      (or make serve)",
    ]
    curl = "curl -s http://127.0.0.1:8080/score -H 'content-type: application/json'"
    if served:
        lines += [
            f"Score a request:    {curl} -d @{root}/request.json",
            "Read about it:      http://127.0.0.1:8080/docs",
        ]
    return "\n".join(lines)
