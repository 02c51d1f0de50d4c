"""The command: `python -m service advise BUNDLE`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Final

import typer

from service.advise.advisor import Advisor
from service.advise.env_file import check_destination, env_text, write_env
from service.advise.errors import AdviseError, OutputError
from service.advise.report import decision_table, show
from service.bundle import BundleError
from service.scorer import ScorerError
from service.settings import Settings, SettingsError, load_settings
from service.workers.machine import Machine

__all__ = ["run"]

SECONDS: Final = 150.0
QUICK_SECONDS: Final = 20.0
USAGE_ERROR: Final = 2
FAILURE: Final = 1
OUT: Final = Path("reaction.env")


def run(bundle: Path, out: Path = OUT, seconds: float = SECONDS, *, quick: bool = False, force: bool = False) -> int:
    """Measure, print what was measured and what to set, and write the settings that change.

    Args:
        bundle: Directory of the bundle.
        out: File to write, outside the bundle.
        seconds: For measuring.
        quick: Take `QUICK_SECONDS`.
        force: Replace the file if it exists.

    Returns:
        The process's exit status.
    """
    if not seconds > 0:
        typer.echo(f"error: --seconds: expected more than 0, got {seconds:g}", err=True)
        return USAGE_ERROR
    try:
        settings: Settings = load_settings(bundle=str(bundle))
        check_destination(out, bundle, force=force)
    except (SettingsError, OutputError) as error:
        typer.echo(f"error: {error}", err=True)
        return USAGE_ERROR
    # Whoever ends this process ends the servers that it started; under `nohup` a terminal that closes ends nothing.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    try:
        advisor = Advisor(
            settings, Machine.read(), QUICK_SECONDS if quick else seconds, lambda line: typer.echo(line, err=True)
        )
        advice = advisor.advise()
        # What took minutes to measure is shown whatever becomes of the file.
        typer.echo("\n".join(["", *advice.facts, ""]))
        typer.echo(show([*advice.tables, decision_table(advice.decisions)]))
        write_env(out, env_text(advice.decisions, advice.facts), bundle, force=force)
    except (AdviseError, BundleError, ScorerError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        return FAILURE
    changes = sum(decision.value is not None for decision in advice.decisions)
    typer.echo(f"{out}: {changes} of {len(advice.decisions)} settings change." if changes else f"{out}: no change.")
    return 0


def _leave(_number: int, _frame: Any) -> None:
    raise SystemExit(FAILURE)
