"""The ledger: one finished run a line, appended and not changed, so a table grows and an interrupted one goes on.

Lines of ours were taken out when REACTION changed, before its method had a number (`models.METHOD`); what they read of
the test split is kept in `accuracy_superseded.json`, and the page says how often that was. Since then they stay: a line
of an older method is superseded by its number.

A line's key is a digest of all that decides its outcome: task, data, model, purpose, config and seed. A run whose key
is there is not run again. A last line that was cut short (the process was killed while writing it) is set aside.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT: Literal["reaction-accuracy"] = "reaction-accuracy"
VERSION: Literal[1] = 1

Purpose = Literal["trial", "seed", "guard", "ablation"]

DIGITS = 6
"""Decimals kept of a metric; a bootstrap's spread is a thousand times larger."""


class LedgerError(RuntimeError):
    """A line that is no run of this format; the message says which."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Metrics(_Strict):
    """Metrics of one split; gauc where the data has groups."""

    auc: float
    log_loss: float
    gauc: float | None = None


class Bootstrap(_Strict):
    """The metrics on R resamples of a split's rows; resample r is the same for every run of a task."""

    auc: tuple[float, ...]
    log_loss: tuple[float, ...]


class Parameters(_Strict):
    """How many numbers a model holds.

    Attributes:
        training: what the optimiser moves.
        inference: what is read to score, batch norm folded: embedding + dense.
        embedding: of tables.
        dense: of everything else.
        bytes: of the inference parameters, as they are stored.
    """

    training: int
    inference: int
    embedding: int
    dense: int
    bytes: int


class Line(_Strict):
    """One finished run.

    Attributes:
        key: what `run_key` makes of the fields above `seed`.
        task: a name in `TASKS`.
        data: digest of the encoded data.
        split: "random" or "time".
        model: a name in `MODELS`.
        purpose: "trial" of the tuning, "seed" of the table (these alone read the test split), "guard", "ablation".
        config: everything that was set, defaults included.
        seed: of initial values, the order of rows and dropout.
        rows: rows a split.
        validation: metrics; None for a run whose loss was no longer finite.
        test: metrics (purpose "seed").
        bootstrap: the test metrics resampled (purpose "seed").
        bootstrap_validation: the validation metrics resampled (purpose "ablation").
        parameters: None where they cannot be compared (trees).
        flops: floating point operations a row, a multiply-add counted as two.
        steps: optimiser steps of all phases that are part of what was kept.
        epochs: passes over the training rows.
        cpu_seconds: processor time of training and evaluation, one thread.
        facts: what else a model says of its run.
        created: when, UTC, ISO 8601.
        versions: of the libraries.
    """

    format: Literal["reaction-accuracy"] = FORMAT
    version: Literal[1] = VERSION
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{20}$")]
    task: str
    data: str
    split: Literal["random", "time"]
    model: str
    purpose: Purpose
    config: dict[str, Any]
    seed: int
    rows: dict[str, int]
    validation: Metrics | None = None
    test: Metrics | None = None
    bootstrap: Bootstrap | None = None
    bootstrap_validation: Bootstrap | None = None
    parameters: Parameters | None = None
    flops: int | None = None
    steps: int | None = None
    epochs: float | None = None
    cpu_seconds: float
    facts: dict[str, Any] = {}
    created: str
    versions: dict[str, str]


def run_key(task: str, data: str, model: str, purpose: Purpose, config: Mapping[str, Any], *, seed: int) -> str:
    """The digest that a run is known by."""
    content = [FORMAT, VERSION, task, data, model, purpose, config, seed]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


def rounded(value: Any) -> Any:
    """The same, every float with `DIGITS` decimals at most."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list | tuple) else value


class Ledger:
    """A file of lines.

    Args:
        path: the file; need not exist.

    Attributes:
        lines: key -> line, in the order of the file.
        torn: what was set aside when it was opened: the text of an unfinished last line, or "".

    Raises:
        LedgerError: a line is no run, other than a last one that is no JSON either; says which.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, Line] = {}
        self.torn = ""
        if path.exists():
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)  # no line is half written by a process that lives
                content = file.read()
            self._read(content)

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines.values())

    def __contains__(self, key: object) -> bool:
        return key in self.lines

    @property
    def aside(self) -> Path:
        """Where unfinished lines go."""
        return self.path.with_name(self.path.name + ".torn")

    def append(self, line: Line) -> None:
        """Write a line through to the disk; several processes may append to one file."""
        text = json.dumps(line.model_dump(mode="json", exclude_none=True), separators=(",", ":"))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(text.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines[line.key] = line

    def _read(self, content: bytes) -> None:
        *whole, rest = content.split(b"\n")
        for number, text in enumerate(whole, 1):
            try:
                line = _parse(text)
            except ValueError as error:
                if number == len(whole) and not rest and not _is_json(text):
                    rest = text + b"\n"
                    break
                raise LedgerError(
                    f"{self.path}, line {number}: expected a run of {FORMAT} {VERSION}: {error}"
                ) from None
            self.lines[line.key] = line
        if rest:
            self._set_aside(rest, len(content) - len(rest))

    def _set_aside(self, rest: bytes, length: int) -> None:
        self.torn = rest.decode(errors="replace").rstrip("\n")
        with self.aside.open("ab") as file:
            file.write(rest if rest.endswith(b"\n") else rest + b"\n")
        with self.path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, os.SEEK_END) == length + len(rest):  # nobody has written since
                file.truncate(length)


def opened(path: Path, *, there: bool) -> Ledger:
    """Open a ledger; one to be written may be new.

    Raises:
        LedgerError: It should be there, and is not.
    """
    if there and not path.is_file():
        raise LedgerError(f"--ledger: expected a ledger at {path}, got no file")
    return Ledger(path)


def _is_json(text: bytes) -> bool:
    """Whether a line is whole: what cannot be understood then is another version's, and stays."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _parse(text: bytes) -> Line:
    try:
        return Line.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))) from None
