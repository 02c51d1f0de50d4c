"""Checkpoints of a training: a file a finished phase, one of the phase under way; each written whole or not at all.

workdir/<phase>.safetensors   the weights a phase ended with; its history in the file's metadata
workdir/current.safetensors   the phase under way: tensors; position and history in the metadata
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_FORMAT = "reaction-checkpoint"
_VERSION = "1"
_CURRENT = "current"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; says which file, expected and got."""


class CheckpointStore:
    """The checkpoints of one training.

    Args:
        directory: Where they lie; made if absent.
        fingerprint: What the training depends on; a checkpoint of another is refused.
        resume: Use what is there; otherwise it is removed.
        interval: Least seconds between two checkpoints of a phase under way.
    """

    def __init__(self, directory: Path, fingerprint: str, *, resume: bool, interval: float = 0.0) -> None:
        self.directory = directory
        self.fingerprint = fingerprint
        self.interval = interval
        self._saved = -float("inf")
        directory.mkdir(parents=True, exist_ok=True)
        if not resume:
            for path in directory.glob("*.safetensors"):
                path.unlink()

    def finished(self, phase: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What a finished phase left, or None."""
        return self._read(self._path(phase))

    def finish(self, phase: str, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Record that a phase is over."""
        self._write(self._path(phase), tensors, values)
        self._path(_CURRENT).unlink(missing_ok=True)

    def current(self, phase: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state of a phase under way, or None."""
        found = self._read(self._path(_CURRENT))
        return found if found is not None and found[1].pop("phase") == phase else None

    def save(self, phase: str, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Record a phase under way."""
        self._write(self._path(_CURRENT), tensors, {**values, "phase": phase})
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the interval since the last checkpoint is over."""
        return time.monotonic() - self._saved >= self.interval

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.safetensors"

    def _write(self, path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        # Copies, since parameters are views of one flat vector, which safetensors refuses.
        whole = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        metadata = {
            "format": _FORMAT,
            "version": _VERSION,
            "fingerprint": self.fingerprint,
            "values": json.dumps(values),
        }
        temporary = path.with_suffix(".tmp")
        save_file(whole, temporary, metadata=metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: expected a checkpoint, got {error}") from error
        if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
            raise CheckpointError(
                f"{path}: expected format {_FORMAT} {_VERSION}, got {metadata.get('format')} {metadata.get('version')}"
            )
        if metadata.get("fingerprint") != self.fingerprint:
            raise CheckpointError(f"{path}: is a checkpoint of another configuration or of other data; start anew")
        return tensors, json.loads(metadata["values"])
