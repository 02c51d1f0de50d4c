"""The file of settings: lines of `NAME=value` and comments, which a shell (`set -a; . FILE`) and Docker both read."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.advise.errors import OutputError
from service.advise.report import shown_value
from service.features.files import write_file
from service.settings import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from service.advise.decisions import Decision

__all__ = ["check_destination", "env_text", "write_env"]


def env_text(decisions: Sequence[Decision], facts: Sequence[str]) -> str:
    """Content of the file: the settings that change, and as comments all else that must be known to judge them.

    Args:
        decisions: On every setting.
        facts: On what machine, of what bundle, when; one line each.
    """
    lines = ["Written by `python -m service advise`. To use it:", "  set -a; . ./FILE; set +a    or    --env-file FILE"]
    lines += [line for fact in facts for line in fact.splitlines()]
    text = [f"# {line}" for line in lines]
    for decision in decisions:
        name = f"{PREFIX}{decision.setting.upper()}"
        present = shown_value(decision.present)
        if decision.value is None:
            text.append(f"# {name}: no change ({present}): {decision.why}")
        else:
            text += [f"# {name}: was {present}: {decision.why}", f"{name}={shown_value(decision.value)}"]
    return "\n".join(text) + "\n"


def check_destination(path: Path, bundle: Path, *, force: bool) -> None:
    """Refuse a destination before anything is measured.

    Raises:
        OutputError: It lies in the bundle, which nothing may change; its directory does not exist; or it is there
            already, and is not to be replaced; or the system does not let a file be made beside it.
    """
    place, inside = path.resolve(), bundle.resolve()
    if place == inside or inside in place.parents:
        raise OutputError(f"{path}: expected a file outside the bundle, got one in {bundle}, which must stay as it is")
    if not place.parent.is_dir():
        raise OutputError(f"{path}: expected a directory that exists, got {place.parent}")
    if os.path.lexists(path) and (not force or not path.is_file()):
        raise OutputError(f"{path}: expected no such file, or one to replace with --force; it exists")
    with _writing(path):
        _beside(place).open("xb").close()
        _beside(place).unlink()


def write_env(path: Path, text: str, bundle: Path, *, force: bool) -> None:
    """Write the file beside its place, then put it there whole.

    Raises:
        OutputError: See `check_destination`, or the system does not let it be written.
    """
    check_destination(path, bundle, force=force)
    place = path.resolve()
    aside = _beside(place)
    with _writing(path):
        write_file(aside, text.encode())
        try:
            if force:
                aside.replace(place)
            else:
                place.hardlink_to(aside)  # fails where a file has come meanwhile
        finally:
            aside.unlink(missing_ok=True)


def _beside(place: Path) -> Path:
    return place.with_name(f".{place.name}.{os.getpid()}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: expected a file that can be written, got {error}") from error
