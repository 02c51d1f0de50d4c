"""A cell of the table and its ledger, filled by a law instead of trainings."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.accuracy.fitted import by_library
from benchmarks.accuracy.ledger import Ledger, Line, Metrics
from benchmarks.accuracy.plan import Want, next_runs
from benchmarks.accuracy.runs import Spec

TASK, DATA = "avazu-random", "0123456789abcdef"
LEDGER = Path(__file__).resolve().parents[3] / "benchmarks" / "accuracy.jsonl"


def want(model: str = "DNN", trials: int = 3, seeds: int = 2) -> Want:
    return Want(TASK, DATA, 26_000, model, trials, seeds)


def done(spec: Spec, loss: float | None) -> Line:
    return Line(
        key=spec.key,
        task=spec.task,
        data=spec.data,
        split="random",
        model=spec.model,
        purpose=spec.purpose,
        config=spec.config,
        seed=spec.seed,
        rows={"train": 26_000},
        validation=None if loss is None else Metrics(auc=0.7, log_loss=loss),
        cpu_seconds=1.0,
        created="2026-01-01T00:00:00Z",
        versions={},
    )


def search_by(ledger: Ledger, law: Callable[[Spec], float], *, recipes: bool = False, **more: Any) -> list[Spec]:
    """Run a cell's trials, each with the loss that a law gives it, infinite for a failure, until seeds' turn has come.

    Returns:
        In their order; those by the library's recipe, the last stage, where they are asked for.
    """
    ran: list[Spec] = []
    while (specs := next_runs(want(**more), ledger)) and specs[0].purpose == "trial":
        for spec in specs:
            loss = law(spec)
            ledger.append(done(spec, None if math.isinf(loss) else loss))
        ran += [spec for spec in specs if recipes or not by_recipe(spec)]
    return ran


def by_recipe(spec: Spec) -> bool:
    return by_library(spec.config)


def l2(spec: Spec) -> float:
    return float(spec.config["train"]["l2"])
