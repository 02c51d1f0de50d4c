"""The door: `python -m model_export RUN --out BUNDLE`.

A refused run or a failed export is one message on standard error and exit code 2, and leaves nothing behind
(REACTION_DEBUG=1 shows where it was raised).

`python -m model_export keygen --out KEY` makes a key to sign bundles with, `python -m model_export sign BUNDLE --key
KEY` signs one. (A run directory of such a name: `./sign`.)
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model_export.console import report_console
from model_export.signing import COMMANDS
from model_export.signing import app as signing

Run = Annotated[Path, typer.Argument(metavar="RUN", help="a finished run directory")]
Out = Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="directory to write; must not exist")]
Seconds = Annotated[float, typer.Option(min=0.0, help="how long to time the model before and after merging")]
Cost = Annotated[
    Path | None, typer.Option("--cost", metavar="FILE", help="prices that model_export.measure wrote on such a machine")
]
Budget = Annotated[
    str,
    typer.Option(
        metavar="N|Fx|none",
        help="most parameters that folding may make: a number, times those of the unfolded model, or any number",
    ),
]
Precisions = Annotated[
    str, typer.Option(metavar="LIST", help="tables to try, of float32,float16,int8; float32 is always written")
]

USER_ERROR = 2


def main(
    run: Run,
    to: Out,
    seconds: Seconds = 3.0,
    cost: Cost = None,
    *,
    parameter_budget: Budget = "1.1x",
    precisions: Precisions = "float32,float16,int8",
) -> None:
    """Merge a run's towers into one, check that it computes the same, and write a bundle that the service reads."""
    from model_export.errors import ExportError, NoRoomError  # noqa: PLC0415 - torch takes seconds, --help need not wait
    from model_export.export import ExportOptions, export_run  # noqa: PLC0415
    from model_export.fusion.budget import parse_budget  # noqa: PLC0415
    from model_export.fusion.cost import CostModel, CostModelError, read_cost_model  # noqa: PLC0415
    from model_export.report import ROWS, measure_stages, render, requests  # noqa: PLC0415
    from model_export.report_folding import measure_ways  # noqa: PLC0415
    from model_export.variants import parse_precisions  # noqa: PLC0415

    console = report_console()
    try:
        with Console(stderr=True).status("exporting"):
            prices = CostModel() if cost is None else read_cost_model(cost)
            budget, tables = parse_budget(parameter_budget), parse_precisions(precisions)
            options = ExportOptions(cost=prices, budget=budget, precisions=tables, seconds=seconds)
            exported = export_run(run, to, options)
        with Console(stderr=True).status("timing the model before and after merging"):
            try:
                stages = measure_stages(exported, seconds=seconds)
                ways = measure_ways(exported, prices, partial(requests, exported), ROWS, seconds=seconds)
            except NoRoomError as error:  # the bundle is complete, and what could not be timed only shows what it saves
                console.print(f"not timed: {error}", markup=False, soft_wrap=True)
                stages, ways = {}, {}
    except (ExportError, CostModelError) as error:
        if os.environ.get("REACTION_DEBUG") == "1":
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
        raise typer.Exit(USER_ERROR) from error
    console.print(render(exported, stages, ways))
    console.print(f"exported {to}", soft_wrap=True)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command(help=__doc__)(main)

if __name__ == "__main__":
    (signing if sys.argv[1:2] and sys.argv[1] in COMMANDS else app)()
