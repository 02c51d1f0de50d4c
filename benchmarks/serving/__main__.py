"""Measure everything, and write `serving.json` and `SERVING.md`:   python -m benchmarks.serving [--quick]."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.serving.machine import check_machine, facts
from benchmarks.serving.report import markdown
from benchmarks.serving.run import FULL, QUICK, Plan, check_names, measure_all
from benchmarks.serving.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).resolve().parents[1]
USAGE_ERROR = 2

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@cli.command()
def main(  # noqa: PLR0917 - options, not arguments
    quick: Annotated[bool, typer.Option(help="A few minutes: fewer and shorter rounds.")] = False,
    peers: Annotated[Path | None, typer.Option(help="Folder of peer servers, with a table `peers.py`.")] = None,
    peers_venvs: Annotated[Path | None, typer.Option(help="Folder of their virtual environments.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for serving.json and SERVING.md; `benchmarks/`, but a new one of a part."),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Names of servers that take part, comma-separated.")] = None,
    workloads: Annotated[str | None, typer.Option(help="Workloads, comma-separated.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for bodies and server logs, kept.")] = None,
    render: Annotated[Path | None, typer.Option(help="Measure nothing: write SERVING.md from this JSON.")] = None,
) -> None:
    """Measure the service beside its floors and other servers. Needs Linux, two idle cores and wrk."""
    if render is not None:
        page = (render.parent if out is None else out) / "SERVING.md"
        page.write_text(markdown(json.loads(render.read_text(encoding="utf-8"))), encoding="utf-8")
        return
    problem = check_machine()
    if problem or (peers is None) != (peers_venvs is None):
        typer.echo(f"error: {problem or 'expected --peers and --peers-venvs together'}", err=True)
        raise typer.Exit(USAGE_ERROR)
    plan = Plan(
        lengths=QUICK if quick else FULL,
        peers=None if peers is None or peers_venvs is None else (peers.resolve(), peers_venvs.resolve()),
        only=None if only is None else frozenset(only.split(",")),
        workloads=None if workloads is None else tuple(workloads.split(",")),
    )
    problem = check_names(plan)
    if problem:
        typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(USAGE_ERROR)
    target = folder(out, part=only is not None or workloads is not None)
    print(f"results go to {target}", flush=True)
    scratch = Path(tempfile.mkdtemp(prefix="bench-serving-")) if keep is None else keep.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        result = measure_all(plan, scratch, lambda line: print(line, flush=True))
    finally:
        if keep is None:
            shutil.rmtree(scratch, ignore_errors=True)
    options = {"quick": quick, "peers": peers, "peers-venvs": peers_venvs, "out": out, "keep": keep}
    command = recorded(options | {"only": only, "workloads": workloads})
    document = summarise(result, machine=facts(plan.peers), command=command)
    target.mkdir(parents=True, exist_ok=True)
    (target / "serving.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (target / "SERVING.md").write_text(markdown(document), encoding="utf-8")
    print("\n".join(verdicts(document)))
    for row in document["unused"]:
        print(f"not used: {row['workload']} {row['entry']} {row['mode']}, {row['times']} round(s): {row['reason']}")
    print(f"wrote SERVING.md and serving.json to {target}")


def folder(out: Path | None, *, part: bool) -> Path:
    """Where results go: never over the whole measurement's where only a part was measured and nobody said so."""
    if out is not None:
        return out
    return Path(tempfile.mkdtemp(prefix="bench-serving-part-")) if part else HERE


def recorded(options: Mapping[str, object]) -> str:
    """The command line with every option that was given; folders are left out."""
    words = ["python -m benchmarks.serving"]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value:
            words.append(f"--{name} {'DIR' if isinstance(value, Path) else value}")
    return " ".join(words)


def verdicts(document: Mapping[str, Any]) -> list[str]:
    """A line a figure: its value, whether that is what was wanted, and what to know of it."""
    lines = []
    for name, value in document["ratios"].items():
        target = document["targets"].get(name)
        parts = [] if target is None else [f"{'met' if target['met'] else 'NOT MET'}: {target['expected']}"]
        parts += (target or document["aside"].get(name) or {"notes": []})["notes"]
        lines.append(f"{name:36} {value:8.3f}   {'; '.join(parts)}".rstrip())
    for name, target in document["targets"].items():
        if name not in document["ratios"]:
            lines.append(f"{name:36}        –   {'; '.join(['not measured', *target['notes']])}")
    return lines


if __name__ == "__main__":
    sys.exit(cli())
