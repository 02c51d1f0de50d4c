"""The door: `python -m model_export.demo [--dir demo] [--bundle-only] [--no-serve] [--keep]`.

Generates a click log with known truth, prepares it, trains, exports, serves, scores real requests over HTTP and shows
what came out. It may be run again at any time: what an earlier demonstration left in DIR is made anew.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model_export.console import report_console

Directory = Annotated[Path, typer.Option("--dir", metavar="DIR", help="where everything goes; made anew each time")]
BundleOnly = Annotated[
    bool, typer.Option("--bundle-only", help="end once DIR/bundle is there; do nothing if it is already")
]
NoServe = Annotated[bool, typer.Option("--no-serve", help="end after the export, without starting the service")]
Keep = Annotated[bool, typer.Option("--keep", help="leave the service running")]
ExperimentFile = Annotated[
    Path | None, typer.Option(metavar="EXPERIMENT.toml", help="another experiment on the generator's data")
]

USER_ERROR = 2


def main(
    directory: Directory = Path("demo"),
    bundle_only: BundleOnly = False,
    no_serve: NoServe = False,
    keep: Keep = False,
    experiment: ExperimentFile = None,
) -> None:
    """Run the demonstration."""
    from model_export.demo.workplace import DemoError, Workplace  # noqa: PLC0415 - --help need not wait for libraries

    console = report_console()
    workplace = Workplace(directory)
    try:
        if bundle_only and workplace.has_bundle():
            console.print(f"{workplace.bundle} is there already", soft_wrap=True)
            return
        with console.status("loading libraries"):
            from model_export.demo.steps import demonstrate  # noqa: PLC0415 - torch takes seconds
        demonstrate(workplace, console, experiment=experiment, serve=not (bundle_only or no_serve), keep=keep)
    except DemoError as error:
        if os.environ.get("REACTION_DEBUG") == "1":
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
        raise typer.Exit(USER_ERROR) from error
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        raise typer.Exit(130) from None


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command(help=__doc__)(main)

if __name__ == "__main__":
    app()
