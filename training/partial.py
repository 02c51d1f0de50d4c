"""A run being trained: `<out>.partial`, its resume, and the rename that publishes it.

out.partial/  start.json      what was asked for (config, data digest): a resume must match it
              checkpoints/    the loop's own files
              run/            the finished run being put together; renamed to `out` as the last step
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from service.features.files import new_directory
from training.files import FileError, digests, make_parent, read_json, write_json
from training.runs import (
    RUN_FORMAT,
    RUN_VERSION,
    RunError,
    RunExistsError,
    RunFormatError,
    RunMismatchError,
    partial_path,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from training.config import ExperimentConfig

PARTIAL_FORMAT = "reaction-partial-run"


class NothingToResumeError(RunError):
    """A training was to be continued, but none was begun."""


@dataclass(frozen=True)
class PartialRun:
    """A training under way in `<out>.partial`."""

    out: Path
    id: str
    created: str
    resumed: bool

    @property
    def path(self) -> Path:
        """The partial directory."""
        return partial_path(self.out)

    @property
    def checkpoints(self) -> Path:
        """Where the loop keeps its checkpoints."""
        return self.path / "checkpoints"

    def record(self, facts: Mapping[str, object]) -> dict[str, Any]:
        """What `run.json` says but for the digests of the files."""
        return {
            "format": RUN_FORMAT,
            "version": RUN_VERSION,
            "status": "complete",
            "id": self.id,
            "created": self.created,
            **facts,
        }

    @contextlib.contextmanager
    def publish(self, facts: Mapping[str, object]) -> Iterator[Path]:
        """Put the finished run together: fill the directory; then it is digested, made durable and renamed to `out`.

        Args:
            facts: what `run.json` records beside the format, the id, the status and the digests. Read at the end.

        Raises:
            RunExistsError: the output appeared while training.
        """
        try:
            with new_directory(self.out) as staged:
                yield staged
                for path in staged.rglob("*"):
                    if path.is_file():
                        path.chmod(0o644)  # safetensors writes for its owner alone; export may be another user's
                record = {**self.record(facts), "files": digests(staged, leave_out="run.json")}
                write_json(staged / "run.json", record)
        except FileExistsError as error:
            raise RunExistsError(str(error)) from error
        shutil.rmtree(self.path, ignore_errors=True)

    def discard_unless_resumable(self) -> bool:
        """Remove the partial run if it holds no checkpoint to go on from; say whether it is still there."""
        if self.checkpoints.is_dir() and any(path.is_file() for path in self.checkpoints.rglob("*")):
            return True
        shutil.rmtree(self.path, ignore_errors=True)
        return False


def refuse_existing(out: Path) -> None:
    """Refuse an output path that is taken.

    Raises:
        RunExistsError: something is at `out`.
    """
    if out.exists() or out.is_symlink():
        raise RunExistsError(f"{out}: expected a path that does not exist yet, got an existing one")


def start_run(
    out: Path, config: ExperimentConfig, data_digest: str, *, resume: bool, init_from: str | None = None
) -> PartialRun:
    """Begin a run, or take up a partial one.

    Args:
        out: the run directory to be.
        config: the resolved experiment.
        data_digest: digest of the prepared data; a resume on other data is refused.
        resume: continue `<out>.partial`.
        init_from: id of the run whose weights it starts from, or None.

    Raises:
        RunExistsError: `out` exists, or a partial run does and `resume` is False.
        RunMismatchError: the partial run had another config, other data or another origin; the message says which key.
        RunFormatError: the partial directory is none of ours.
        OutputPathError: nothing can be written beside `out`.
        NothingToResumeError: there is no partial directory.
    """
    refuse_existing(out)
    asked = {"config": comparable(config), "data_digest": data_digest, "init_from": init_from}
    path = partial_path(out)
    if path.exists():
        if not resume:
            raise RunExistsError(
                f"{path}: an unfinished training is there; continue it with --resume, or delete the directory"
            )
        start = _read_start(path)
        for key, before, now in differences(start["asked"], asked):
            raise RunMismatchError(
                f"{path}: cannot resume: {key.removeprefix('config.')}: "
                f"expected {before!r} (as it was started), got {now!r}"
            )
        return PartialRun(out, id=start["id"], created=start["created"], resumed=True)
    if resume:
        raise NothingToResumeError(
            f"{path}: cannot resume: expected an unfinished training, got none; to start one, leave out --resume"
        )
    now = datetime.now(UTC).replace(microsecond=0)
    run = PartialRun(
        out,
        id=f"{config.name}-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        created=now.isoformat().replace("+00:00", "Z"),
        resumed=False,
    )
    make_parent(out)
    run.checkpoints.mkdir(parents=True)
    write_json(path / "start.json", {"format": PARTIAL_FORMAT, "id": run.id, "created": run.created, "asked": asked})
    return run


def comparable(config: ExperimentConfig) -> dict[str, Any]:
    """The config as JSON, without what may change between two sittings of one training.

    The raw data's path is left out: the prepared data's digest stands for it.
    """
    values = config.model_dump(mode="json")
    values["data"].pop("path", None)
    return values


def _read_start(path: Path) -> dict[str, Any]:
    try:
        start = read_json(path / "start.json")
    except FileError as error:
        raise RunFormatError(f"{path}: expected an unfinished training (start.json), got {error}") from error
    if start.get("format") != PARTIAL_FORMAT:
        raise RunFormatError(f"{path / 'start.json'}: expected format {PARTIAL_FORMAT!r}, got {start.get('format')!r}")
    return start


def differences(was: object, now: object, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    """Keys at which two JSON values differ, as (key path, the first's value, the second's), None for what is absent."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            yield from differences(was.get(key), now.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (before, after) in enumerate(zip(was, now, strict=True)):
            yield from differences(before, after, f"{prefix}[{index}]")
    elif isinstance(was, list) and isinstance(now, list) and (names := _names(was, now)):
        yield f"{prefix} (names that only one has)", *names
    elif was != now:
        yield prefix, was, now


def _names(was: list[Any], now: list[Any]) -> tuple[list[str], list[str]] | None:
    """Of two lists of named things, the names that only the first has, and only the second; None of others."""
    if not all(isinstance(one, dict) and "name" in one for one in (*was, *now)):
        return None
    first, second = ([str(one["name"]) for one in side] for side in (was, now))
    return [name for name in first if name not in second], [name for name in second if name not in first]
