"""`python -m benchmarks.reliability reload`, `restart`, `shadow`, `soak`, `faults`: try a promise for long; `page`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.reliability.backpressure import backpressure_figures
from benchmarks.reliability.drift import drift_figures
from benchmarks.reliability.faults import fault_figures
from benchmarks.reliability.feedback import feedback_figures
from benchmarks.reliability.page import FIGURES, publish
from benchmarks.reliability.reload import reload_figures
from benchmarks.reliability.restart import restart_figures
from benchmarks.reliability.shadow import shadow_figures
from benchmarks.reliability.soak import soak_figures
from benchmarks.reliability.telemetry import telemetry_figures

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)

_Figures = Annotated[Path, typer.Option("--figures", help="JSON file whose figures to set; the page lies beside it")]


@app.command()
def reload(
    swaps: Annotated[int, typer.Option(min=1)] = 100,
    rate: Annotated[float, typer.Option(help="requests a second")] = 200.0,
    workers: Annotated[int, typer.Option(min=1, help="processes that serve")] = 1,
    values: Annotated[int, typer.Option(help="values of the largest vocabulary")] = 1_000_000,
    to: _Figures = FIGURES,
) -> None:
    """Swap versions under a steady load."""
    _report(reload_figures(swaps=swaps, rate=rate, workers=workers, values=values), to)


@app.command()
def backpressure(
    seconds: Annotated[float, typer.Option(min=1, help="length of each run")] = 20.0,
    to: _Figures = FIGURES,
) -> None:
    """Offer requests of one row at multiples of the most that a worker answers."""
    with tempfile.TemporaryDirectory(prefix="backpressure-") as folder:
        _report(backpressure_figures(Path(folder), seconds), to)


@app.command()
def restart(
    rounds: Annotated[int, typer.Option(min=1, help="restarts of each replica")] = 10,
    rate: Annotated[float, typer.Option(help="requests a second")] = 200.0,
    to: _Figures = FIGURES,
) -> None:
    """Restart two replicas in turns behind HAProxy, then behind nginx; both have to be installed."""
    found = restart_figures(balancer="haproxy", rounds=rounds, rate=rate)
    behind = restart_figures(balancer="nginx", rounds=rounds, rate=rate)
    found["rolling_restart_nginx_failed_requests"] = behind["rolling_restart_failed_requests"]
    _report(found, to)


@app.command()
def shadow(
    rounds: Annotated[int, typer.Option(min=2, help="turns of each kind of shadow")] = 10,
    rate: Annotated[float, typer.Option(help="requests a second")] = 300.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="of a turn")] = 5.0,
    workers: Annotated[int, typer.Option(min=1, help="processes that serve")] = 1,
    to: _Figures = FIGURES,
) -> None:
    """Serve without a shadow, beside one that works, and beside two that hang, in turns."""
    _report(shadow_figures(rounds=rounds, rate=rate, seconds=seconds, workers=workers), to)


@app.command()
def soak(
    seconds: Annotated[float, typer.Option(min=10, help="for how long")] = 600.0,
    rate: Annotated[float, typer.Option(help="requests a second whose answers are checked")] = 200.0,
    to: _Figures = FIGURES,
) -> None:
    """Mixed load, spoilt requests, slow clients, swaps and kills, all at once."""
    found, findings = soak_figures(seconds=seconds, rate=rate)
    for finding in findings:
        typer.echo(f"  {finding}")
    _report(found, to)


@app.command()
def faults(
    seconds: Annotated[float, typer.Option(help="of load before, during and after each")] = 5.0,
    to: _Figures = FIGURES,
) -> None:
    """Full disks, lost files, a clock that jumps and the like, one at a time under a steady load."""
    found, outcomes = fault_figures(seconds=seconds)
    for name, outcome in outcomes.items():
        typer.echo(f"{name}: {outcome.requests} requests, {len(outcome.failed)} failed, {len(outcome.wrong)} wrong")
        for complaint in (*outcome.complaints, *outcome.failed[:5], *outcome.wrong[:5]):
            typer.echo(f"  {complaint}")
    _report(found, to)


@app.command()
def drift(
    seconds: Annotated[float, typer.Option(min=10, help="for how long")] = 180.0,
    factor: Annotated[float, typer.Option(min=1, help="what durations of the rules are divided by")] = 60.0,
    rate: Annotated[float, typer.Option(help="requests a second, of each kind")] = 80.0,
    to: _Figures = FIGURES,
) -> None:
    """Send drifted traffic and traffic like training's, and see what a real Prometheus fires."""
    fired, found = drift_figures(seconds=seconds, factor=factor, rate=rate)
    for kind, alerts in fired.items():
        typer.echo(f"{kind}: {', '.join(sorted(alerts)) or 'none'}")
    _report(found, to)


@app.command()
def feedback(
    rankings: Annotated[int, typer.Option(min=50, help="of five candidates")] = 4000,
    window_seconds: Annotated[int, typer.Option(min=1, help="how long events are taken")] = 30,
    to: _Figures = FIGURES,
) -> None:
    """Click on what two replicas rank, and see what their counters make of it."""
    with tempfile.TemporaryDirectory(prefix="feedback-") as folder:
        _report(feedback_figures(Path(folder), rankings=rankings, window_seconds=window_seconds), to)


@app.command()
def telemetry(
    rounds: Annotated[int, typer.Option(min=2, help="turns of each service")] = 20,
    seconds: Annotated[float, typer.Option(min=1, help="of a turn")] = 2.0,
    to: _Figures = FIGURES,
) -> None:
    """Serve with telemetry and without, in turns; needs two idle cores and wrk."""
    _report(telemetry_figures(rounds=rounds, seconds=seconds), to)


@app.command()
def page(to: _Figures = FIGURES) -> None:
    """Write the page from the figures as they are."""
    _report({}, to)


def _report(found: Mapping[str, float], to: Path) -> None:
    for key, value in found.items():
        typer.echo(f"{key}: {value}")
    publish(found, to)


if __name__ == "__main__":
    app()
