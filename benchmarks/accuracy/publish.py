"""From the ledger and the table of latencies to what is read: `accuracy.json`, `ACCURACY.md` and `accuracy.png`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.accuracy import timing
from benchmarks.accuracy.cells import FEWEST_TRIALS
from benchmarks.accuracy.ledger import Ledger
from benchmarks.accuracy.ledger import Line as Run
from benchmarks.accuracy.models import MODELS, method_of
from benchmarks.accuracy.plan import settled
from benchmarks.accuracy.report import markdown, plain
from benchmarks.accuracy.summary import Line, summarise
from benchmarks.accuracy.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def lines(ledger: Path) -> list[Line]:
    """All runs of a ledger, as plain dictionaries."""
    return [line.model_dump(mode="json", exclude_none=True) for line in Ledger(ledger)]


def publish(ledger: Path) -> str:
    """Write the three files beside the ledger.

    Args:
        ledger: See `document_of`.

    Returns:
        The table as text for a terminal.
    """
    document = document_of(ledger)
    timing.write(ledger.with_suffix(".json"), document)
    page = ledger.with_name(ledger.stem.upper() + ".md")
    page.write_text(markdown(document), encoding="utf-8")
    from benchmarks.accuracy.picture import draw  # noqa: PLC0415 - matplotlib takes seconds

    draw(document, ledger.with_suffix(".png"))
    return plain(document)


def document_of(ledger: Path) -> dict[str, Any]:
    """What is published of a ledger, as JSON holds it.

    Args:
        ledger: `NAME.jsonl`; latencies are read from `NAME_latency.json` and runs that were taken out of the ledger
            from `NAME_superseded.json`, and how fast training is from `training_speed.json`, where these exist.
    """
    found = lines(ledger)
    run = {line["task"] for line in found}
    tasks = {
        name: {"dataset": task.experiment, "split": task.split}
        for name, task in TASKS.items()
        if name in run or not task.extra
    }
    core = {name: model.most_seeds for name, model in MODELS.items() if model.core}
    before = timing.read(ledger.with_name(f"{ledger.stem}_superseded.json")).get("runs", [])
    tuned = {name for name, model in MODELS.items() if model.space}
    speed = timing.read(ledger.with_name("training_speed.json"))
    timed = timing.read(latency_path(ledger))
    document = summarise(found, timed, tasks, core, tuned=tuned, before=before, method=method_of, settled=_settled)
    document["ledger"] = ledger.stem
    document["training_speed"] = speed or None
    document["extras_not_run"] = [name for name, task in TASKS.items() if task.extra and name not in run]
    stored: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    return stored


def _settled(lines: Sequence[Line]) -> str | None:
    """What tuning decided for in a cell."""
    return settled([Run.model_validate(line) for line in lines], FEWEST_TRIALS)


def measure(ledger: Path, work: Path, tasks: Sequence[str], seconds: float, told: Callable[[str], None]) -> None:
    """Time every model that has runs, and keep the table beside the ledger; other tasks' figures stay."""
    path = latency_path(ledger)
    table = timing.measure(tasks, lines(ledger), work, known=timing.read(path), seconds=seconds, told=told)
    timing.write(path, table)


def latency_path(ledger: Path) -> Path:
    """Where a ledger's table of latencies lies."""
    return ledger.with_name(f"{ledger.stem}_latency.json")
