"""`python -m benchmarks.redundancy`: both analyses of every task, into `REDUNDANCY.md`, a JSON file and a picture.

A task is prepared, trained and analysed once; what lies in the work directory is not done again, so an interrupted run
goes on. What lies in `redundancy.json` alone, measured elsewhere or of other tasks, stays on the page, and
`--report-only` writes the page of both.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.accuracy.models import METHOD
from benchmarks.accuracy.publish import lines
from benchmarks.accuracy.tuning import TABLE_SEEDS
from benchmarks.redundancy.noise import noise_control
from benchmarks.redundancy.picture import draw
from benchmarks.redundancy.record import laid_over, measured_of, recorded, summary
from benchmarks.redundancy.report import render
from training.analyze import analyze_source
from training.config import load_config
from training.files import FileError, read_json, write_json
from training.loader import PreparedData
from training.prepare import prepare
from training.progress import Quiet
from training.structural.command import analyze_structure
from training.train import train_run

EXPERIMENTS = Path(__file__).resolve().parents[2] / "training" / "experiments"
TASKS = ("criteo", "avazu", "movielens_100k")
LEDGER = Path(__file__).resolve().parents[1] / "accuracy.jsonl"


def main(
    tasks: Annotated[str, typer.Option(help="experiments, with commas")] = ",".join(TASKS),
    work: Annotated[Path, typer.Option(help="for prepared data, runs and measurements")] = Path("build/redundancy"),
    to: Annotated[Path, typer.Option("--out", help="folder of the report")] = Path("benchmarks"),
    noise_seeds: Annotated[int, typer.Option(min=0, help="of 200 noise fields through the whole of AFE")] = 5,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="of what lies in the work folder and in redundancy.json")
    ] = False,
) -> None:
    """Measure what is missing, then write the report."""
    names = [name for name in tasks.split(",") if name]
    known = sorted(path.stem for path in EXPERIMENTS.glob("*.toml"))
    if unknown := sorted(set(names) - set(known)):
        raise typer.BadParameter(f"--tasks: expected names among {', '.join(known)}; got {', '.join(unknown)}")
    record = to / "redundancy.json"
    try:
        before = recorded(record)  # before hours of measuring
    except FileError as error:
        raise typer.BadParameter(f"--out: {error}") from error
    for name in names if not report_only else ():
        measure_fields(name, work / name)
    for name in names if not report_only else ():
        measure_layers(name, work / name)
    found = {
        name: {
            part: read_json(path) if path.exists() else None
            for part, path in (("fields", work / name / "fields.json"), ("layers", work / name / "structure.json"))
        }
        for name in names
    }
    controls = [noise(work, seed, report_only=report_only) for seed in range(noise_seeds)]
    newer = {"tasks": found, "noise": [control for control in controls if control is not None]}
    content = summary(laid_over(before, newer))
    if not content["tasks"] and not content["noise"]:
        raise typer.BadParameter(f"--report-only: expected something measured in {work} or {record}, got nothing")
    measured = measured_of(content)  # the page says what the record holds, and no more
    page = render(measured)
    to.mkdir(parents=True, exist_ok=True)
    write_json(record, content)
    (to / "REDUNDANCY.md").write_text(page, encoding="utf-8")
    draw(measured["tasks"], to / "redundancy.png")
    typer.echo(f"wrote {to / 'REDUNDANCY.md'}")


def measure_fields(name: str, place: Path) -> None:
    """Prepare one task and measure its fields, as far as it is not done."""
    experiment = EXPERIMENTS / f"{name}.toml"
    config = load_config(experiment)
    if not (place / "data").exists():
        say(f"{name}: preparing")
        prepare(
            config.data,
            base=experiment.parent,
            seed=config.seed,
            name=config.name,
            out=place / "data",
            progress=Quiet(),
        )
    if not (place / "fields.json").exists():
        say(f"{name}: measuring fields")
        write_json(place / "fields.json", analyze_source(place / "data", experiment, quiet, Quiet()) | about_now())


def measure_layers(name: str, place: Path) -> None:
    """Train one task, a plain tower and a tuned DNN beside it, and thin them, as far as it is not done."""
    experiment = load_config(EXPERIMENTS / f"{name}.toml")
    if not (place / "run").exists():
        say(f"{name}: training")
        train_run(experiment, place / "data", place / "run", progress=quiet)
    if not (place / "structure.json").exists():
        from benchmarks.redundancy.tuned import chosen_config, tuned_structure  # noqa: PLC0415 - FuxiCTR takes seconds

        say(f"{name}: training a plain tower and a tuned DNN, thinning them")
        found = analyze_structure(place / "run", place / "data", baseline=True, progress=quiet)
        task = f"{name}-{experiment.data.split.kind}"
        config = chosen_config(task, lines(LEDGER)) if LEDGER.exists() else None
        if config is not None:
            tuned = tuned_structure(PreparedData.open(place / "data"), config, seed=TABLE_SEEDS[0])
            found["models"]["tuned"] = tuned.as_json()
        write_json(place / "structure.json", found | about_now())


def noise(work: Path, seed: int, *, report_only: bool) -> dict[str, float] | None:
    """The control of one seed, measured once."""
    place = work / "noise" / f"{seed}.json"
    if not place.exists():
        if report_only:
            return None
        say(f"noise: seed {seed}")
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, noise_control(seed))
    found: dict[str, float] = json.loads(place.read_text(encoding="utf-8"))
    return found


def about_now() -> dict[str, Any]:
    """When something is measured, and of which method."""
    return {"measured": datetime.now(UTC).date().isoformat(), "method": METHOD}


def quiet(phase: str, done: int, total: int, note: str) -> None:
    """Progress that says nothing."""


def say(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    typer.run(main)
