"""Where raw data lies: relative paths are looked for under REACTION_DATA_DIR, if that is set, then beside the TOML."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.preparation.rows import DataFileError, SplitName

if TYPE_CHECKING:
    from training.datasets.base import BuildContext
    from training.datasets.config import DataConfig, Paths

DATA_DIR = "REACTION_DATA_DIR"


@dataclass(frozen=True)
class ReadFile:
    """One file to read.

    Attributes:
        path: where it is.
        split: the split that all its rows belong to, if the files are the splits.
    """

    path: Path
    split: SplitName | None = None


def roots(base: Path) -> list[Path]:
    """The directories that relative paths are looked for in, in order."""
    named = os.environ.get(DATA_DIR)
    return [Path(named), base] if named else [base]


def resolve(paths: Paths, base: Path, key: str = "data.path", what: str = "a file") -> list[Path]:
    """Files (or one directory) that a path, several paths or a glob name.

    Args:
        paths: as written in the experiment.
        base: directory of the experiment's TOML file.
        key: the key that holds them, for messages.
        what: should be there, for messages.

    Returns:
        What exists, a glob's matches in the order of their names.

    Raises:
        DataFileError: nothing is there; the message says where it was looked for.
    """
    if isinstance(paths, tuple):
        return [found for path in paths for found in resolve(path, base, key, what)]
    if not paths:
        raise DataFileError(f"{key}: expected a path, got an empty text")
    candidates = [root / paths for root in roots(base)]  # an absolute path stays itself
    for candidate in dict.fromkeys(candidates):
        if found := _there(candidate):
            return found
    looked = ", ".join(str(candidate) for candidate in dict.fromkeys([*_before_pinning(paths, base), *candidates]))
    folder = os.environ.get(DATA_DIR)
    hint = f" ({DATA_DIR} is {folder!r})" if folder else f" ({DATA_DIR} is not set)"
    raise DataFileError(f"{key}: expected {what} at {paths!r}, got none; looked for {looked}{hint}")


def _there(candidate: Path) -> list[Path]:
    """What one path or glob names, in the order of names; empty where nothing is there."""
    if candidate.exists():
        return [candidate]
    return [Path(match) for match in sorted(glob.glob(str(candidate), recursive=True))]  # noqa: PTH207 - absolute


def _before_pinning(paths: str, base: Path) -> list[Path]:
    """Where an absolute path would have been looked for first, had it been written relative to the experiment.

    Experiments that are copied away from their file (`with_absolute_paths`) have such paths exactly when there was
    nothing under REACTION_DATA_DIR, and who has set that wrongly must be told. If there is something by now, the path
    is another one after all, and nothing is said.
    """
    named = os.environ.get(DATA_DIR)
    path, folder = Path(paths), base.resolve()
    if not named or not path.is_absolute() or not path.is_relative_to(folder):
        return []
    candidate = Path(named) / path.relative_to(folder)
    return [] if _there(candidate) else [candidate]


def split_files(config: DataConfig, context: BuildContext) -> tuple[ReadFile, ...]:
    """The files of a data set in one table: `path`, or one part a split where the files are the splits.

    Raises:
        DataFileError: no path is given, a file is missing, or a directory is where a file should be.
    """
    if config.path is None:
        raise DataFileError(f"data.path: expected the files of data set {config.dataset!r}, got no path")
    split = config.split
    parts: list[tuple[SplitName | None, Paths, str]] = [(None, config.path, "data.path")]
    if split.kind == "given" and split.column is None:
        parts = [("train", config.path, "data.path"), ("valid", split.valid, "data.split.valid")]
        if split.test is not None:
            parts.append(("test", split.test, "data.split.test"))
    files: list[ReadFile] = []
    for name, paths, key in parts:
        for path in resolve(paths, context.base, key):
            if path.is_dir():
                raise DataFileError(f"{key}: expected files, got a directory: {path} (name its files, or a glob)")
            files.append(ReadFile(path, name))
    return tuple(files)


def find(directory: Path, names: tuple[str, ...]) -> Path:
    """The first of several possible files of a directory.

    Raises:
        DataFileError: none is there.
    """
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise DataFileError(f"{directory}: expected a file named {' or '.join(names)}, got none")
