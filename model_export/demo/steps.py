"""The demonstration's steps in order: prepare, train, export, serve and score; `outcome` shows what they found."""

from __future__ import annotations

import json
import os
import shlex
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import training
from model_export.demo.live import running_service, service_command
from model_export.demo.outcome import (
    afe_table,
    agreement,
    closing,
    merging_table,
    quality_table,
    ranking_table,
    serving_table,
    summary,
)
from model_export.demo.requests import ask
from model_export.demo.workplace import DemoError
from model_export.errors import ExportError
from model_export.export import ExportOptions, export_run
from model_export.report import measure_stages
from service.bundle import PRECISIONS, read_bundle
from training.config import load_config
from training.console import is_told_in_full, phase_progress
from training.datasets.synthetic import SyntheticOptions, generate
from training.prepare import prepare
from training.progress import console_progress
from training.runs import open_run
from training.train import train_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from model_export.demo.workplace import Workplace
    from model_export.export import Exported
    from training.config import ExperimentConfig
    from training.datasets.synthetic import SyntheticData
    from training.runs import Run

EXPERIMENT: Final = Path(training.__file__).parent / "experiments" / "demo.toml"


def demonstrate(
    workplace: Workplace, console: Console, *, experiment: Path | None = None, serve: bool = True, keep: bool = False
) -> None:
    """Go the whole way and show what came out.

    Args:
        workplace: Where; cleared first.
        console: Where to show it.
        experiment: Another experiment on the generator's data.
        serve: Start the service and score requests.
        keep: Leave the service running.

    Raises:
        DemoError: A step was refused, or the service's scores are not the model's.
    """
    path = experiment or EXPERIMENT
    started = time.monotonic()
    workplace.clear()
    with _told_plainly():
        config = load_config(path)
    if config.data.dataset != "synthetic":
        raise DemoError(f"{path}: expected data.dataset 'synthetic', whose truth is known, got {config.data.dataset!r}")
    with _told_plainly():
        run, exported = _make(workplace, console, config, path)
    with console.status("timing the model before and after merging"):
        stages = measure_stages(exported)
    options = SyntheticOptions.model_validate(config.data.options)
    log = generate(options.rows, config.seed if options.seed is None else options.seed)
    served = {field.name for field in exported.tower.fields}
    console.print(quality_table(run, log), afe_table(run, log.truth, served), merging_table(stages), sep="\n")
    if serve:
        _serve(workplace, console, exported, log, keep=keep)
    console.print(summary(run, log, stages), soft_wrap=True)
    console.print(closing(workplace, seconds=time.monotonic() - started, served=serve), soft_wrap=True)


def _make(workplace: Workplace, console: Console, config: ExperimentConfig, path: Path) -> tuple[Run, Exported]:
    """Prepare, train and export, each shown as the command that does the same."""
    shown = os.path.relpath(path)
    _announce(console, "python -m training prepare", shown, "--out", workplace.data)
    with console_progress() as bars:
        prepare(config.data, base=path.parent, seed=config.seed, name=config.name, out=workplace.data, progress=bars)
    _announce(console, "python -m training train", shown, "--data", workplace.data, "--out", workplace.run)
    with phase_progress() as report:
        train_run(config, workplace.data, workplace.run, progress=report)
    _announce(console, "python -m model_export", workplace.run, "--out", workplace.bundle)
    with console.status("exporting"):
        exported = export_run(workplace.run, workplace.bundle, ExportOptions(precisions=PRECISIONS))
    return open_run(workplace.run, verify=False), exported


@contextmanager
def _told_plainly() -> Iterator[None]:
    """Refusals of a step become the demonstration's own: they say all there is to say."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ExportError) or is_told_in_full(error):
            raise DemoError(str(error)) from error
        raise


def _announce(console: Console, command: str, *arguments: object) -> None:
    console.print(f"[bold cyan]$[/] {command} {shlex.join(map(str, arguments))}", soft_wrap=True)


def _serve(workplace: Workplace, console: Console, exported: Exported, log: SyntheticData, *, keep: bool) -> None:
    """Start the service, score requests, show the answers."""
    with running_service(workplace.bundle, workplace.log, keep=keep) as (process, client):
        _announce(console, "python", *service_command(workplace.bundle, client.port)[1:])
        with console.status("scoring real requests over HTTP"):
            answers = ask(client, read_bundle(workplace.bundle), exported, log)
        request, answer = answers.ranked
        document = {"context": request.context, "candidates": request.candidates, "top_k": 3}
        workplace.request.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        console.print(ranking_table(request, answer, log), serving_table(answers), agreement(answers), sep="\n")
        if keep:
            console.print(f"The service runs on, on port {client.port}; kill {process.pid} stops it.")
