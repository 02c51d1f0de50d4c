"""The door: `python -m training {prepare,train,evaluate,analyze,analyze-structure,tune,benchmark}`.

An error of the input is one message on standard error and exit code 2 (REACTION_DEBUG=1 shows where it was raised);
Ctrl-C is exit code 130, and a training stopped so can be resumed.
"""

# ruff: noqa: PLC0415 - a command imports what it needs when it is called: torch, polars and scikit-learn take seconds
from __future__ import annotations

import json
import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from training.console import is_told_in_full, metrics_tables, models_table, phase_progress, show, text_table, told
from training.pages.results import warnings_of
from training.progress import console_progress

HELP = "From raw logs to a trained run directory: prepare, train, evaluate, analyze (fields, layers), tune, benchmark."

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)

INTERRUPTED = 130
USER_ERROR = 2


class Device(StrEnum):
    """Where to train."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


class SplitChoice(StrEnum):
    """A split of prepared data."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


Experiment = Annotated[Path, typer.Argument(metavar="EXPERIMENT.toml", help="the experiment")]
InitFrom = Annotated[Path | None, typer.Option(metavar="RUN", help="a finished run to start from (daily retraining)")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]


@app.command()
def prepare(
    experiment: Experiment,
    *,
    to: Annotated[Path, typer.Option("--out", metavar="DATA", help="directory to write; must not exist")],
    init_from: InitFrom = None,
) -> None:
    """Read raw data, fit the features on the train split and write encoded splits."""
    from training.config import load_config
    from training.prepare import prepare as prepare_data

    config = load_config(experiment)
    with console_progress() as progress:
        data = prepare_data(
            config.data,
            base=experiment.parent,
            seed=config.seed,
            name=config.name,
            out=to,
            init_from=init_from,
            progress=progress,
        )
    rows = [[split, f"{count:,}", f"{data.info.base_rate[split]:.4f}"] for split, count in data.info.rows.items()]
    show(text_table("Prepared data", ["split", "rows", "base rate"], rows))
    show(f"prepared {to} ({len(data.encoder.fields)} fields)")


@app.command()
def train(
    experiment: Experiment,
    *,
    data: Annotated[Path, typer.Option(metavar="DATA", help="what prepare wrote for this experiment")],
    to: Annotated[Path, typer.Option("--out", metavar="RUN", help="run directory to write; must not exist")],
    init_from: InitFrom = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue a training that was interrupted")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="instead of the experiment's seed")] = None,
    device: Annotated[Device | None, typer.Option(help="instead of the experiment's train.device")] = None,
    plain_tower: Annotated[
        bool, typer.Option("--plain-tower", help="train a tower of 400-400-400 too: the page shows what can go of both")
    ] = False,
) -> None:
    """Train a run directory, which holds all there is to reproduce, report and export it."""
    from training.config import load_config, with_absolute_paths, with_overrides
    from training.pages.calibration_views import calibration_sentence
    from training.runs import open_run, partial_path
    from training.train import train_run

    config = with_absolute_paths(load_config(experiment), experiment.parent)
    config = with_overrides(config, seed=seed, device=None if device is None else device.value)
    try:
        with phase_progress() as progress:
            train_run(config, data, to, resume=resume, init_from=init_from, plain_tower=plain_tower, progress=progress)
    except KeyboardInterrupt:
        if partial_path(to).exists():
            again = [argument for argument in sys.argv[1:] if argument != "--resume"]
            command = shlex.join(["python", "-m", "training", *again, "--resume"])
            complain(f"stopped; what was trained so far is in {partial_path(to)}\ncontinue with: {command}")
        raise typer.Exit(INTERRUPTED) from None
    metrics = open_run(to, verify=False).metrics
    said = calibration_sentence(metrics)
    show(*metrics_tables(metrics), *([said] if said else []), f"trained {to} (its page: {to / 'report.html'})")
    for warning in warnings_of(metrics):
        complain(f"warning: {warning}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run")],
    *,
    data: Annotated[
        Path | None, typer.Option(metavar="DATA", help="prepared data; what the run measured if none")
    ] = None,
    split: Annotated[SplitChoice, typer.Option(help="which split")] = SplitChoice.TEST,
    as_json: AsJson = False,
) -> None:
    """Measure both towers, the pair, the teachers, the fused model and the baseline on one split."""
    from training.evaluate import evaluate_run
    from training.runs import open_run

    found = evaluate_run(open_run(run), data, split.value)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    show(models_table(f"{split.value.capitalize()}: {found['rows']:,} rows", found["models"]))


@app.command()
def analyze(
    source: Annotated[Path, typer.Argument(metavar="EXPERIMENT.toml|DATA|RUN", help="what to measure")],
    *,
    config: Annotated[
        Path | None, typer.Option(metavar="EXPERIMENT.toml", help="whose [afe] section, for prepared data")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what AFE measures and decides: information per field, redundant groups, pairs, what it drops."""
    from training.analyze import analysis_tables, analyze_source

    with console_progress() as preparing, phase_progress() as progress:
        found = analyze_source(source, config, progress, preparing)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        return
    show(*analysis_tables(found))


@app.command()
def tune(
    experiment: Experiment,
    *,
    data: Annotated[Path, typer.Option(metavar="DATA", help="what prepare wrote for this experiment")],
    to: Annotated[Path, typer.Option("--out", metavar="TUNED.toml", help="experiment to write, for train")],
    trials: Annotated[int, typer.Option(min=1, help="trials of the search in all")] = 20,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="stop where it is after so many")] = None,
    parameters: Annotated[
        int | None, typer.Option(min=1, help="most of the model; twice those of the experiment as it is if not given")
    ] = None,
) -> None:
    """Search a few settings on the validation split; goes on where an earlier search was stopped."""
    from training.tuning.tune import trials_table
    from training.tuning.tune import tune as search

    try:
        with phase_progress({"trials", "further seeds"}) as progress:
            found = search(
                experiment, data, to, trials=trials, minutes=minutes, parameters=parameters, progress=progress
            )
    except KeyboardInterrupt:
        written = f"{to} has the best so far" if to.exists() else "no trial came to its end"
        complain(f"stopped; {written}\ncontinue with: {shlex.join(['python', '-m', 'training', *sys.argv[1:]])}")
        raise typer.Exit(INTERRUPTED) from None
    show(trials_table(found), f"wrote {to} (its trials: {to.with_suffix('.json')})")
    if not found.ended:
        show("the time was over before the end of the search; the same command goes on")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def benchmark(context: typer.Context) -> None:
    """Compare with the field's models on public data: accuracy, parameters, latency (needs a checkout; --help)."""
    from training.benchmark import run_benchmark

    raise typer.Exit(run_benchmark(context.args))


@app.command("analyze-structure")
def analyze_structure(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run")],
    *,
    data: Annotated[
        Path | None, typer.Option(metavar="DATA", help="what it was trained on; what the run measured if none")
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="train a plain tower of 400-400-400 with tables of 10 beside it")
    ] = False,
    page: Annotated[Path | None, typer.Option(metavar="FILE.html", help="write the curves as a page")] = None,
    as_json: AsJson = False,
) -> None:
    """Show how much of the dense layers can go before AUC moves: by magnitude, by singular values, by ablation."""
    from training.pages.structural_views import structure_page, structure_tables
    from training.structural.command import analyze_structure as analyze_layers

    with phase_progress() as progress:
        found = analyze_layers(run, data, baseline=baseline, progress=progress)
    if page is not None:
        page.write_text(structure_page(found, run.resolve().name), encoding="utf-8")
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    show(*structure_tables(found))


def complain(message: str) -> None:
    """One message on standard error."""
    sys.stderr.write(f"{message}\n")


def main() -> None:
    """Run a command and exit."""
    try:
        app(prog_name="python -m training")
    except Exception as error:
        if os.environ.get("REACTION_DEBUG") == "1" or not is_told_in_full(error):
            raise
        complain(f"error: {told(error)}")
        sys.exit(USER_ERROR)


if __name__ == "__main__":
    main()
