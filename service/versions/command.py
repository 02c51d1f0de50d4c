"""`python -m service versions`: put bundles into a store, choose the one that is served, go back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from service.bundle_format.manifest import MANIFEST_FILE, BundleError, decode_manifest
from service.trial.candidate import Candidate
from service.versions import trials
from service.versions.check import check_bundle
from service.versions.store import Store, StoreError, is_store

__all__ = ["cli"]

USAGE_ERROR: Final = 2

cli = typer.Typer(
    no_args_is_help=True,
    help="Versions side by side in a store: which a service serves, which it tries. A running service takes a change "
    "up within REACTION_WATCH_SECONDS, or at once on SIGHUP.",
)

_Root = Annotated[Path, typer.Argument(metavar="STORE", help="Directory of the store.")]


@cli.command(name="list")
def show(store: _Root) -> None:
    """List versions, the latest added last; `*` is current, `-` the one before, `+` on trial; which was proven last."""
    if not is_store(store):
        _refuse(StoreError(f"{store}: expected a store of versions, got {'a bundle' if store.is_dir() else 'none'}"))
    held = Store(store)
    good = held.good()
    marks = {held.previous(): "-", held.tried(): "+", held.current(): "*"}
    for name in held.names():
        path = held.path(name) / MANIFEST_FILE
        try:
            manifest = decode_manifest(path.read_bytes(), str(path))
            facts = f"{manifest.model_id}  {manifest.created}"
        except (OSError, BundleError) as error:
            facts = f"unreadable: {error}"
        typer.echo(f"{marks.get(name, ' ')} {name}  {facts}{'  (last proven)' if name == good else ''}")


@cli.command()
def add(
    store: _Root,
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle to copy.")],
    name: Annotated[str | None, typer.Option(help="Of the version; by default the model's.")] = None,
    *,
    activate: Annotated[bool, typer.Option(help="Serve it from now on.")] = False,
    check: Annotated[bool, typer.Option(help="Score its golden rows first, and add nothing if they differ.")] = True,
    check_seconds: Annotated[float, typer.Option(min=0.001, help="How long that may take.")] = 300.0,
    keys_file: Annotated[
        Path | None,
        typer.Option(envvar="REACTION_BUNDLE_KEYS_FILE", help="Public keys of which one must have signed it."),
    ] = None,
) -> None:
    """Copy a bundle into the store, whole or not at all."""
    try:
        if check:
            report = check_bundle(bundle, keys_file, check_seconds)
            typer.echo(f"checked: {report.rows} golden rows within {report.largest_difference:.1e}")
        held = Store(store)
        added = held.add(bundle, name)
        if activate:
            held.activate(added)
    except (OSError, BundleError, StoreError) as error:
        _refuse(error)
    typer.echo(f"added {added}{', which is current now' if activate else ''}")


@cli.command()
def activate(store: _Root, name: Annotated[str, typer.Argument(help="Of the version to serve.")]) -> None:
    """Make a version the current one."""
    try:
        Store(store).activate(name)
    except (OSError, StoreError) as error:
        _refuse(error)
    typer.echo(f"current: {name}")


@cli.command()
def rollback(store: _Root) -> None:
    """Make the last proven version that is not current the current one again, or the one before it."""
    try:
        name = Store(store).rollback()
    except (OSError, StoreError) as error:
        _refuse(error)
    typer.echo(f"current: {name}")


_Name = Annotated[str, typer.Argument(metavar="VERSION", help="Of the version to try.")]


@cli.command()
def canary(
    store: _Root,
    name: _Name,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the routing keys that it scores.")] = 0.05,
) -> None:
    """Have a version score a sticky share of the requests, by their routing keys; again to change the share."""
    _try(store, Candidate(name=name, mode="canary", share=share))


@cli.command()
def shadow(
    store: _Root,
    name: _Name,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="A score differs if it is further from the answered one.")
    ] = 0.01,
) -> None:
    """Have a version score all requests beside the current one, off the response path, and compare."""
    _try(store, Candidate(name=name, mode="shadow", tolerance=tolerance))


@cli.command()
def promote(store: _Root) -> None:
    """Make the version on trial the current one."""
    try:
        name = trials.promote(Store(store))
    except (OSError, StoreError) as error:
        _refuse(error)
    typer.echo(f"current: {name}")


@cli.command()
def end(store: _Root) -> None:
    """End the trial; the current version scores everything again."""
    try:
        name = trials.end_trial(Store(store))
    except (OSError, StoreError) as error:
        _refuse(error)
    typer.echo(f"ended: {name}")


@cli.command()
def prune(
    store: _Root, keep: Annotated[int, typer.Option(min=1, help="How many of the latest to keep, at least.")] = 5
) -> None:
    """Remove old versions; the current, the previous, the last proven and the one on trial stay."""
    try:
        removed = Store(store).prune(keep)
    except (OSError, StoreError) as error:
        _refuse(error)
    typer.echo(f"removed: {', '.join(removed) or 'none'}")


def _try(root: Path, candidate: Candidate) -> None:
    try:
        trials.put_on_trial(Store(root), candidate)
    except (OSError, StoreError) as error:
        _refuse(error)
    typer.echo(f"{candidate.mode}: {candidate.name}")


def _refuse(error: Exception) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(USAGE_ERROR) from None
