"""Finished phases, shared between variants: what a phase ends with depends on what it is given, not on who asks.

A tower that is trained alone is the same in every variant of one seed, so it is trained once. A phase's name in the
store is a digest of all that decides its outcome.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from training.phases.checkpoint import CheckpointStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor


@dataclass
class Spent:
    """What the phases of one variant took, whoever ran them first.

    Attributes:
        steps: Optimiser steps a phase.
        cpu_seconds: Processor time a phase.
    """

    steps: dict[str, int] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)


class SharedPhases(CheckpointStore):
    """A store of phases that variants share.

    Args:
        directory: Of all phases.
        describe: Phase name -> all that decides its outcome, of the variant under way.

    Attributes:
        spent: What this variant's phases took.
        digests: Phase name -> digest, of this variant's phases so far.
    """

    def __init__(self, directory: Path, describe: Callable[[str], dict[str, Any]]) -> None:
        super().__init__(directory, "shared", resume=True)
        self._describe = describe
        self.spent = Spent()
        self.digests: dict[str, str] = {}
        self._started = time.process_time()

    def finished(self, phase: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What a finished phase left, or None."""
        text = json.dumps(self._describe(phase), sort_keys=True)
        self.digests[phase] = hashlib.sha256(text.encode()).hexdigest()[:20]
        found = super().finished(phase)
        self._started = time.process_time()
        if found is not None:
            self._count(phase, found[1])
        return found

    def finish(self, phase: str, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Record that a phase is over."""
        values = {**values, "cpu_seconds": time.process_time() - self._started}
        self._write(self._path(phase), tensors, values)
        self._count(phase, values)

    def current(self, phase: str) -> None:  # noqa: ARG002
        """None: a phase that was cut short is run again; it takes a minute."""
        return

    def save(self, phase: str, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Record nothing: see `current`."""

    def _path(self, name: str) -> Path:
        return self.directory / f"{self.digests[name]}.safetensors"

    def _count(self, phase: str, values: dict[str, Any]) -> None:
        self.spent.steps[phase] = values["history"][-1]["step"]
        self.spent.cpu_seconds[phase] = values["cpu_seconds"]
