"""`python -m service replay`: score recorded requests once more, and compare."""

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from service.recording.doors import BundleDoor, UrlDoor
    from service.recording.replay import Report

__all__ = ["replay"]

DIFFERS: Final = 1
USAGE_ERROR: Final = 2
_DIGEST_SHOWN: Final = 12


def replay(
    logs: Annotated[
        list[Path], typer.Argument(metavar="LOG...", help="Files of recorded requests, or directories of them.")
    ],
    *,
    bundle: Annotated[Path | None, typer.Option(help="Score with this bundle, or a store's current version.")] = None,
    url: Annotated[str | None, typer.Option(help="Or send them to this service.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="File of the API key to show, where the service asks.")] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest difference of a score that counts as the same.")
    ] = 1e-6,
    precision: Annotated[str, typer.Option(help="Of the bundle's tables: float32, float16 or int8.")] = "float32",
    keys_file: Annotated[
        Path | None,
        typer.Option(envvar="REACTION_BUNDLE_KEYS_FILE", help="Public keys of which one must have signed the bundle."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Score recorded requests once more, and say how far the scores are from those that were answered.

    Exit status: 0 all are within the tolerance. 1 some are not, or some requests cannot be scored here. 2 wrong usage,
    a file that holds no recorded requests, or nothing that scores.
    """
    from service.recording.doors import DoorError  # noqa: PLC0415 - a process that serves needs none of it
    from service.recording.replay import replay as compare  # noqa: PLC0415
    from service.scorer import ScorerError  # noqa: PLC0415
    from service.versions.store import StoreError  # noqa: PLC0415

    try:
        door = _door(bundle, url, precision, keys_file, key_file)
        report = compare(logs, door, tolerance=tolerance)
    except (OSError, ValueError, DoorError, ScorerError, StoreError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE_ERROR) from None
    door.close()
    if json:
        document = report.document(against=door.where, model=door.model, tolerance=tolerance)
        typer.echo(json_text.dumps(document, indent=1))
    else:
        _tell(report, door, tolerance)
    raise typer.Exit(DIFFERS if report.beyond or report.unscorable else 0)


def _door(
    bundle: Path | None, url: str | None, precision: str, keys_file: Path | None, key_file: Path | None
) -> "BundleDoor | UrlDoor":
    from service.bundle_format.manifest import PRECISIONS  # noqa: PLC0415
    from service.recording.doors import BundleDoor, DoorError, UrlDoor  # noqa: PLC0415

    if bundle is not None and url is None:
        known = next((known for known in PRECISIONS if known == precision), None)
        if known is None:
            raise DoorError(f"--precision: expected one of {', '.join(PRECISIONS)}, got {precision!a}")
        return BundleDoor(bundle, precision=known, keys_file=keys_file)
    if url is not None and bundle is None:
        return UrlDoor(url, key=None if key_file is None else key_file.read_text(encoding="ascii").strip())
    raise DoorError("expected one of --bundle and --url")


def _tell(report: "Report", door: "BundleDoor | UrlDoor", tolerance: float) -> None:
    typer.echo(f"{report.requests} requests of {report.files} files, scored again by {door.model} ({door.where})")
    if report.incomplete:
        typer.echo(f"{report.incomplete} last lines lack their end and were left out")
    for version in report.versions.values():
        name = f"{version.model} {version.manifest_sha256[:_DIGEST_SHOWN]} {version.precision}"
        typer.echo(
            f"answered by {name}: {version.requests} requests, {version.candidates} candidates; "
            f"{version.differing} differ, {version.beyond} by more than {tolerance:g}; "
            f"difference {version.largest:.3g} at most, {version.mean:.3g} in the mean"
        )
    if report.unscorable:
        typer.echo(f"{report.unscorable} requests cannot be scored here")
    for example in report.examples:
        typer.echo(f"  {example}")
