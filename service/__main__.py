"""`python -m service --bundle BUNDLE`: serve a bundle. `python -m service settings`: everything it can be told."""

import signal
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn

from service.app import ServiceApp, create_app
from service.logging import configure_logging, get_logger
from service.metrics import metrics_markdown
from service.settings import Settings, SettingsError, load_settings, settings_markdown

USAGE_ERROR = 2
START_ERROR = 1
BACKLOG = 2048

cli = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Serve a bundle over HTTP. Every option and more can be set by REACTION_* variables: see `settings`.",
)


@cli.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    bundle: Annotated[Path | None, typer.Option(help="Directory of the bundle [REACTION_BUNDLE].")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [REACTION_HOST].")] = None,
    port: Annotated[str | None, typer.Option(help="TCP port, 0 for a free one [REACTION_PORT].")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error [REACTION_LOG_LEVEL].")] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is in flight."""
    if context.invoked_subcommand is not None:
        return
    try:
        settings = load_settings(bundle=bundle, host=host, port=port, log_level=log_level)
    except SettingsError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE_ERROR) from None
    raise typer.Exit(run(settings))


@cli.command()
def settings() -> None:
    """Print every setting with its variable, default and meaning, as Markdown."""
    typer.echo(settings_markdown())


@cli.command()
def metrics() -> None:
    """Print every metric with its type, labels and meaning, as Markdown."""
    typer.echo(metrics_markdown())


def run(settings: Settings) -> int:
    """Serve until told to stop.

    Returns:
        The process's exit status: 0 after a stop that was asked for, 1 if nothing could be served.
    """
    server: uvicorn.Server | None = None

    def leave(_number: int, _frame: Any) -> None:
        # Also called by the server itself once it has stopped in good order: by then it changes nothing.
        if server is None:
            raise SystemExit(0)
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    configure_logging(settings.log_level)
    log = get_logger("service")
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        log.error("start_failed", host=settings.host, port=settings.port, error=str(error))  # noqa: TRY400
        return START_ERROR
    app = create_app(settings, on_failure=lambda: leave(signal.SIGTERM, None))
    server = uvicorn.Server(server_config(app, settings))
    host, port, *_ = listener.getsockname()
    log.info("listening", host=host, port=port)
    with listener:
        server.run(sockets=[listener])
    return START_ERROR if app.runtime.failure is not None else 0


def server_config(app: ServiceApp, settings: Settings) -> uvicorn.Config:
    """The web server, with nothing on that a request would pay for and nobody reads."""
    return uvicorn.Config(
        app,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http="httptools",
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        backlog=BACKLOG,
    )


def listen(host: str, port: int) -> socket.socket:
    """Bind before anything is loaded: a taken port is told at once, and early clients wait instead of being refused."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
    )[0]
    # The protocol is stated, not 0: only then does asyncio turn off Nagle's algorithm on accepted connections.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


if __name__ == "__main__":
    cli()
