"""`python -m benchmarks.redundancy`: both analyses of every task, into `REDUNDANCY.md`, a JSON file and a picture.

A task is prepared, trained and analysed once; what lies in the work directory is not done again, so an interrupted run
goes on, and `--report-only` writes the report of what there is.
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
from benchmarks.redundancy.report import render
from training.analyze import analyze_source
from training.config import load_config
from training.files import read_json, write_json
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
    report_only: Annotated[bool, typer.Option("--report-only", help="of what has been measured")] = False,
) -> None:
    """Measure what is missing, then write the report."""
    names = [name for name in tasks.split(",") if name]
    known = sorted(path.stem for path in EXPERIMENTS.glob("*.toml"))
    if unknown := sorted(set(names) - set(known)):
        raise typer.BadParameter(f"--tasks: expected names among {', '.join(known)}; got {', '.join(unknown)}")
    found = {}
    for name in names if not report_only else ():
        measure_fields(name, work / name)
    for name in names if not report_only else ():
        measure_layers(name, work / name)
    for name in names:
        fields, layers = work / name / "fields.json", work / name / "structure.json"
        if fields.exists():
            found[name] = {"fields": read_json(fields), "layers": read_json(layers) if layers.exists() else None}
    controls = [noise(work, seed, report_only=report_only) for seed in range(noise_seeds)]
    measured = {"tasks": found, "noise": [control for control in controls if control is not None]}
    write_json(to / "redundancy.json", summary(measured))
    (to / "REDUNDANCY.md").write_text(render(measured), encoding="utf-8")
    draw(found, to / "redundancy.png")
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
        write_json(place / "fields.json", analyze_source(place / "data", experiment, quiet, Quiet()))


def measure_layers(name: str, place: Path) -> None:
    """Train one task, a plain tower and a tuned DNN beside it, and thin them, as far as it is not done."""
    if not (place / "run").exists():
        say(f"{name}: training")
        train_run(load_config(EXPERIMENTS / f"{name}.toml"), place / "data", place / "run", progress=quiet)
    if not (place / "structure.json").exists():
        from benchmarks.redundancy.tuned import chosen_config, tuned_structure  # noqa: PLC0415 - FuxiCTR takes seconds

        say(f"{name}: training a plain tower and a tuned DNN, thinning them")
        found = analyze_structure(place / "run", place / "data", baseline=True, progress=quiet)
        config = chosen_config(f"{name}-random", lines(LEDGER)) if LEDGER.exists() else None
        if config is not None:
            tuned = tuned_structure(PreparedData.open(place / "data"), config, seed=TABLE_SEEDS[0])
            found["models"]["tuned"] = tuned.as_json()
        about = {"measured": datetime.now(UTC).date().isoformat(), "method": METHOD}
        write_json(place / "structure.json", found | about)


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


def summary(measured: dict[str, Any]) -> dict[str, Any]:
    """What is committed: all numbers of the report, without the matrices that they come from."""
    kept = ("rows", "fields", "interactions", "clusters", "carried", "kinds")
    tasks = {
        name: {
            "fields": {key: task["fields"][key] for key in kept},
            "layers": None if task["layers"] is None else task["layers"]["models"],
            "about": {key: (task["layers"] or {}).get(key) for key in ("measured", "method")},
        }
        for name, task in measured["tasks"].items()
    }
    return {"format": "reaction-redundancy", "version": 1, "tasks": tasks, "noise": measured["noise"]}


def quiet(phase: str, done: int, total: int, note: str) -> None:
    """Progress that says nothing."""


def say(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    typer.run(main)
