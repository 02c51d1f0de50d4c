"""`python -m service --bundle BUNDLE`: serve a bundle. `python -m service settings`: everything it can be told."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from service.bench_command import bench
from service.early import ended_by_signals
from service.edge.api_keys import ApiKeys
from service.edge.tls import check_tls
from service.logging import configure_logging, get_logger
from service.recording.command import replay
from service.recording.place import check_place
from service.settings import Settings, SettingsError, load_settings, settings_markdown
from service.versions.command import cli as versions
from service.versions.store import is_store

# Nothing that loads ONNX Runtime or the web server: where several workers serve, this process only looks after them.
from service.workers.announce import announce
from service.workers.machine import Machine
from service.workers.plan import make_plan
from service.workers.sockets import listen

USAGE_ERROR = 2
START_ERROR = 1

cli = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Serve a bundle over HTTP. Every option and more can be set by REACTION_* variables: see `settings`.",
)


@cli.callback(invoke_without_command=True)
def serve(  # noqa: PLR0917 - typer calls it by name
    context: typer.Context,
    bundle: Annotated[Path | None, typer.Option(help="Directory of the bundle [REACTION_BUNDLE].")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [REACTION_HOST].")] = None,
    port: Annotated[str | None, typer.Option(help="TCP port, 0 for a free one [REACTION_PORT].")] = None,
    workers: Annotated[str | None, typer.Option(help="Processes that serve [REACTION_WORKERS].")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error [REACTION_LOG_LEVEL].")] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is in flight."""
    if context.invoked_subcommand is not None:
        return
    options = {"bundle": bundle, "host": host, "port": port, "workers": workers, "log_level": log_level}
    given = {name: str(value) for name, value in options.items() if value is not None}
    try:
        settings = load_settings(**given)
        ApiKeys.of(settings)
        check_tls(settings)
        check_place(settings)
    except SettingsError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE_ERROR) from None
    raise typer.Exit(run(settings, given))


@cli.command()
def settings() -> None:
    """Print every setting with its variable, default and meaning, as Markdown."""
    typer.echo(settings_markdown())


@cli.command()
def metrics() -> None:
    """Print every metric with its type, labels and meaning, as Markdown."""
    from service.metrics import metrics_markdown  # noqa: PLC0415 - see the imports

    typer.echo(metrics_markdown())


@cli.command()
def advise(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle.")],
    out: Annotated[Path, typer.Option(help="File of settings to write, outside the bundle.")] = Path("reaction.env"),
    seconds: Annotated[float, typer.Option(help="Time to measure; starting servers comes on top.")] = 150.0,
    *,
    quick: Annotated[bool, typer.Option(help="Take 20 seconds; spreads are wider.")] = False,
    force: Annotated[bool, typer.Option(help="Replace the file if it exists.")] = False,
) -> None:
    """Measure what settings suit a bundle on this machine, print it, and write those that gain to a file."""
    from service.advise.command import run as run_advise  # noqa: PLC0415 - see the imports

    raise typer.Exit(run_advise(bundle, out, seconds, quick=quick, force=force))


cli.command()(bench)
cli.command()(replay)
cli.add_typer(versions, name="versions")


def run(settings: Settings, given: Mapping[str, Any]) -> int:
    """Serve until told to stop.

    Args:
        settings: The settings.
        given: Those of them that came from the command line.

    Returns:
        The process's exit status: 0 after a stop that was asked for, 1 if nothing could be served.
    """
    with ended_by_signals():
        serve_so = _begin(settings, given)
    return START_ERROR if serve_so is None else serve_so()


def _begin(settings: Settings, given: Mapping[str, Any]) -> Callable[[], int] | None:
    """Listen, and return what serves; None where nothing can listen there."""
    configure_logging(settings.log_level)
    log = get_logger("service")
    plan = make_plan(settings, Machine.read())
    announce(plan)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        log.error("start_failed", host=settings.host, port=settings.port, error=str(error))  # noqa: TRY400
        return None
    host, port, *_ = listener.getsockname()
    log.info("listening", host=host, port=port)
    if plan.workers > 1 or is_store(settings.bundle) or settings.admin_socket is not None:
        from service.workers.supervisor import Supervisor  # noqa: PLC0415 - only one of the two is needed

        return Supervisor(settings, given, plan, listener).run
    from service.server import serve as serve_here  # noqa: PLC0415

    return partial(serve_here, settings, plan, listener)


if __name__ == "__main__":
    cli()
