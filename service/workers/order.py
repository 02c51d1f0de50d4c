"""What a supervisor and its workers tell each other: an order at the start, then one line a change."""

from __future__ import annotations

import signal
import sys
from typing import Any, Final, Literal

import msgspec

from service.workers.passage import Passage  # noqa: TC001 - msgspec reads the annotation
from service.workers.plan import Plan  # noqa: TC001 - msgspec reads the annotation

__all__ = ["HURRY", "RETIRE", "Order", "Part", "Told"]

RETIRE: Final = signal.SIGUSR1 if sys.platform != "win32" else signal.SIGTERM
"""The signal that tells a worker to take no more connections, finish with those it has, and end."""

HURRY: Final = signal.SIGUSR2 if sys.platform != "win32" else signal.SIGTERM
"""The signal that tells a worker that was told to end to wait no longer for others to notice."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that a process is to serve.

    Attributes:
        bundle: Directory of its bundle.
        manifest_sha256: Which bundle that must be; None for any, where there was none to be read yet.
        slot: Where among the counts its model's are.
        label: What the model is called in metrics; None for its id.
    """

    bundle: str
    manifest_sha256: str | None
    slot: int
    label: str | None


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker is told.

    Attributes:
        number: Its place among the workers, from 0.
        block: Its block of the counts, one of its place's.
        plan: The plan of all.
        listener: Descriptor of the listening socket.
        cells: Descriptor of the counts' file.
        shadow: Descriptor that requests for a shadow are written to.
        passage: Descriptors of the queue of connections that its place's processes hand on.
        reports: Descriptor that it writes lines of `Told` to.
        late: Others serve meanwhile: it takes connections only once it is ready.
        low: They are at full strength: it gets ready with what they leave it.
        given: Settings from the command line; the others are in the environment.
        part: What it is to serve.
        canary: What is to get a share of that; None for nothing.
    """

    number: int
    block: int
    plan: Plan
    listener: int
    cells: int
    shadow: int
    passage: Passage
    reports: int
    late: bool
    low: bool
    given: dict[str, Any]
    part: Part
    canary: Part | None


class Told(msgspec.Struct, frozen=True):
    """What a worker tells.

    Attributes:
        state: It scores requests now, or never will; or its canary fails too often.
        reason: Name of the kind of error, where it never will.
        detail: Its message.
    """

    state: Literal["ready", "failed", "canary_failed"]
    reason: str = ""
    detail: str = ""
