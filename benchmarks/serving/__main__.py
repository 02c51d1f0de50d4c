"""Measure everything, and write `serving.json` and `SERVING.md`:   python -m benchmarks.serving [--quick]."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.serving.machine import check_machine, facts
from benchmarks.serving.report import markdown
from benchmarks.serving.run import FULL, QUICK, Plan, measure_all
from benchmarks.serving.summary import summarise

HERE = Path(__file__).resolve().parents[1]
USAGE_ERROR = 2

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@cli.command()
def main(  # noqa: PLR0917 - options, not arguments
    quick: Annotated[bool, typer.Option(help="A few minutes: fewer and shorter rounds.")] = False,
    peers: Annotated[Path | None, typer.Option(help="Folder of peer servers, with a table `peers.py`.")] = None,
    peers_venvs: Annotated[Path | None, typer.Option(help="Folder of their virtual environments.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for serving.json and SERVING.md.")] = HERE,
    only: Annotated[str | None, typer.Option(help="Names of servers that take part, comma-separated.")] = None,
    workloads: Annotated[str | None, typer.Option(help="Workloads, comma-separated.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for bodies and server logs, kept.")] = None,
    render: Annotated[Path | None, typer.Option(help="Measure nothing: write SERVING.md from this JSON.")] = None,
) -> None:
    """Measure the service beside its floors and other servers. Needs Linux, two idle cores and wrk."""
    if render is not None:
        (out / "SERVING.md").write_text(markdown(json.loads(render.read_text(encoding="utf-8"))), encoding="utf-8")
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
    scratch = Path(tempfile.mkdtemp(prefix="bench-serving-")) if keep is None else keep.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        result = measure_all(plan, scratch, lambda line: print(line, flush=True))
    finally:
        if keep is None:
            shutil.rmtree(scratch, ignore_errors=True)
    command = f"make bench-serving{' QUICK=1' if quick else ''}{' PEERS=DIR PEERS_VENVS=DIR' if peers else ''}"
    if only is not None or workloads is not None:
        command += f", in part: servers {only or 'all'}, workloads {workloads or 'all'}"
    document = summarise(result, machine=facts(plan.peers), command=command)
    out.mkdir(parents=True, exist_ok=True)
    (out / "serving.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (out / "SERVING.md").write_text(markdown(document), encoding="utf-8")
    for name, value in document["ratios"].items():
        target = document["targets"].get(name)
        verdict = "" if target is None else f"   {'met' if target['met'] else 'NOT MET'}: {target['expected']}"
        print(f"{name:36} {value:8.3f}{verdict}")
    print(f"wrote {shlex.quote(str(out / 'SERVING.md'))} and {shlex.quote(str(out / 'serving.json'))}")


if __name__ == "__main__":
    sys.exit(cli())
