"""`python -m service.trial.shadow`: scores what the workers answered once more, with the version on trial.

Started by the supervisor and by nobody else. A process of its own, at the lowest priority that there is, and the first
that the kernel ends where memory is short: whatever the version does to it, it does to nobody who serves.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = ["ShadowOrder", "main"]

_STANDARD_INPUT: Final = 0
_ORDER_BYTES: Final = 1 << 20
_LOWEST: Final = 19
# Of all in the session that this process leads, against other sessions, where the kernel shares CPUs out by those.
_SESSION: Final = Path("/proc/self/autogroup")


class ShadowOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a shadow is told.

    Attributes:
        workers: How many there are.
        block: Its block of the counts.
        cells: Descriptor of the counts' file.
        requests: Descriptor that the workers' requests come from.
        reports: Descriptor that it writes lines of `Told` to.
        given: Settings from the command line; the others are in the environment.
        bundle: Directory of the bundle.
        manifest_sha256: Which bundle that must be.
        label: Its name in metrics.
        tolerance: A score differs if it is further than this from the one that was answered.
        threads: Threads of a call of the model.
    """

    workers: int
    block: int
    cells: int
    requests: int
    reports: int
    given: dict[str, Any]
    bundle: str
    manifest_sha256: str
    label: str
    tolerance: float
    threads: int


def main() -> int:
    """Score as ordered until the supervisor goes; returns the exit status."""
    _step_back()
    order = msgspec.json.decode(_read_line(), type=ShadowOrder)
    from service.trial.shadow_loop import run  # noqa: PLC0415 - only now, at the lowest priority

    return run(order)


def _step_back() -> None:
    """Let everybody else go first, in time and in memory."""
    for step in (
        lambda: _SESSION.write_text(str(_LOWEST), encoding="ascii"),
        lambda: os.setpriority(os.PRIO_PROCESS, 0, _LOWEST),
        lambda: Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii"),
    ):
        with contextlib.suppress(OSError, AttributeError):  # a sandbox may forbid it, another system not know it
            step()


def _read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(_STANDARD_INPUT, _ORDER_BYTES)
        if not part:
            raise SystemExit("service.trial.shadow is started by a service with a store of versions, by nobody else")
        line += part
    return line


if __name__ == "__main__":
    raise SystemExit(main())
