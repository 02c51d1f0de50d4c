"""The benchmark of accuracy, parameters and cost: `python -m benchmarks.accuracy` (or `make benchmark`)."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.accuracy import measure as pace
from benchmarks.accuracy import publish
from benchmarks.accuracy.ledger import LedgerError, opened
from benchmarks.accuracy.models import MODELS
from benchmarks.accuracy.plan import Want, expected
from benchmarks.accuracy.pool import RunFailedError, work_off
from benchmarks.accuracy.tasks import TASKS, data_digest, prepared
from training.preparation.rows import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from benchmarks.accuracy.ledger import Ledger, Line
    from benchmarks.accuracy.runs import Spec

HERE = Path(__file__).resolve().parents[1]
WORK = HERE.parent / "build" / "benchmark"
USER_ERROR = 2
INTERRUPTED = 130

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@cli.command()
def main(  # noqa: PLR0917 - options, not arguments
    tasks: Annotated[str | None, typer.Option(help="Tasks, comma-separated; by default all but extras.")] = None,
    models: Annotated[str | None, typer.Option(help="Models, comma-separated; by default the core table.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Tuning trials a model and task at least; may grow.")] = 7,
    seeds: Annotated[int, typer.Option(min=1, max=5, help="Seeds of the table.")] = 5,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, one thread each.")] = os.cpu_count() or 1,
    budget: Annotated[float | None, typer.Option(min=0.0, help="Minutes after which no run is started.")] = None,
    work: Annotated[Path, typer.Option(help="Folder of prepared data, runs and bundles.")] = WORK,
    ledger: Annotated[Path, typer.Option(help="The ledger, a finished run a line.")] = HERE / "accuracy.jsonl",
    guard: Annotated[bool, typer.Option(help="Only train each baseline by the library's trainer too.")] = False,
    measure: Annotated[bool, typer.Option(help="Only one run of each cell, then how long the rest takes.")] = False,
    extra: Annotated[bool, typer.Option(help="The other models and tasks too.")] = False,
    latency: Annotated[bool, typer.Option(help="Train nothing: time all models that have runs, side by side.")] = False,
    seconds: Annotated[float, typer.Option(min=1.0, help="With --latency: for each task and size of request.")] = 20.0,
    report_only: Annotated[bool, typer.Option(help="Train and time nothing: write the tables of the ledger.")] = False,
) -> None:
    """Tune and train every model on the same encoded splits, and write down every finished run; then the tables."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        named = chosen("--tasks", tasks, [name for name, task in TASKS.items() if extra or not task.extra], TASKS)
        wanted = chosen("--models", models, [name for name, model in MODELS.items() if extra or model.core], MODELS)
        book = opened(ledger, there=latency or report_only)
        if book.torn:
            console.print(f"{ledger}: an unfinished last line was set aside in {book.aside}", markup=False)
        if latency:
            publish.measure(ledger, work, named, seconds, lambda text: console.print(text, markup=False))
        if latency or report_only:
            print(publish.publish(ledger))
            return
        wants = []
        for task in named:
            data = prepared(task, work)
            digest, rows = data_digest(data), data.info.rows["train"]
            wants += [
                Want(task, digest, rows, model, trials, seeds, guard=guard, first=measure)
                for model in wanted
                if not guard or MODELS[model].kind == "deep"
            ]
        run_all(wants, book, work, jobs=jobs, minutes=budget, console=console)
        if not guard:
            print(pace.table([replace(want, first=False) for want in wants], book, jobs))
        if not measure:
            print(publish.publish(ledger))
    except (DataError, LedgerError, RunFailedError, typer.BadParameter) as error:
        console.print(f"error: {error}", markup=False)
        raise typer.Exit(USER_ERROR) from None
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here", markup=False)
        raise typer.Exit(INTERRUPTED) from None


def chosen(option: str, text: str | None, default: Sequence[str], known: Collection[str]) -> list[str]:
    """Names from a comma-separated option.

    Raises:
        BadParameter: A name that is not in the table.
    """
    names = list(default) if text is None else text.split(",")
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{option}: expected names among {', '.join(known)}; got {name!r}")
    return names


def run_all(
    wants: Sequence[Want], ledger: Ledger, work: Path, *, jobs: int, minutes: float | None, console: Console
) -> None:
    """Work off what is left, with a bar and a line a run."""
    left = sum(expected(want, ledger) for want in wants)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("runs", total=left)

        def told(line: Line | None, running: Sequence[Spec]) -> None:
            if line is not None:
                progress.console.print(summary(line), markup=False)
                progress.advance(bar)
            now = ", ".join(f"{spec.model} {spec.task}" for spec in running)
            progress.update(bar, description=now or "runs")

        work_off(wants, ledger, work, jobs=jobs, told=told, minutes=minutes)


def summary(line: Line) -> str:
    """One line of text a run: validation alone, so that nobody who watches chooses by the test split."""
    name = f"{line.task:29} {line.model:10} {line.purpose:6} seed {line.seed:2}"
    if line.validation is None:
        return f"{name}  failed: {line.facts.get('failed')}"
    found = f"  validation {line.validation.auc:.4f} / {line.validation.log_loss:.4f}"
    return f"{name}{found}  {line.cpu_seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(cli())
