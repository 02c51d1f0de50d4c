"""JSON files of a run directory: in, out, and what is wrong with one that cannot be read."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from service.features import files as service_files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class FileError(Exception):
    """A file is missing or does not hold what it should; the message says which, what was expected and found."""


class OutputPathError(FileError):
    """Nothing can be written at this path."""


def make_parent(out: Path) -> None:
    """Make the directory that an output is to lie in, and see that it can be written to before any work is done.

    Raises:
        OutputPathError: it cannot.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".probe", dir=out.parent):
            pass
    except OSError as error:
        found = f"{error.strerror} at {error.filename}"
        raise OutputPathError(f"{out}: expected a writable parent directory, got {found}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        FileError: it cannot be read or is no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileError(f"{path}: expected a file, got none") from error
    except ValueError as error:
        raise FileError(f"{path}: expected JSON, got {error}") from error
    if not isinstance(value, dict):
        raise FileError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_json(path: Path, value: object) -> None:
    """Write JSON for reading by people; NaN and infinity are refused."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_jsonl(path: Path, values: Iterable[object]) -> None:
    """Write one JSON object a line; NaN and infinity are refused."""
    lines = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values)
    path.write_text("".join(lines), encoding="utf-8")


def digest_file(path: Path) -> dict[str, Any]:
    """SHA-256 and size in bytes of one file, as JSON has them."""
    return asdict(service_files.digest_file(path))


def digests(root: Path, *, leave_out: str) -> dict[str, dict[str, Any]]:
    """`digest_file` of every file under a directory but one, by name relative to it ("/" on every system)."""
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if not path.is_dir()}
    return {name: digest_file(path) for name, path in paths.items() if name != leave_out}
