"""`python -m benchmarks.reliability.alternating FILE`: the service, its telemetry on for a moment and off for the next.

One process in turns with itself: where two processes' memory comes to lie costs or saves one a few percent, more than
what is to be measured. At its end it writes of each moment whether telemetry was on, the requests answered, and the
process's own CPU time, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Final

from service.__main__ import cli
from service.edge.fast_lane import FastLane
from service.logging import write_lines

if TYPE_CHECKING:
    from collections.abc import Callable

_MOMENT_SECONDS: Final = 0.25
# After a change, until caches hold what is needed now.
_SETTLE_SECONDS: Final = 0.03


class _Switch:
    """Counts answers, and lets every other moment's be told."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._on = False
        self._answers = 0
        self._since: tuple[int, float, float] | None = None
        self.moments: list[tuple[bool, int, float, float]] = []

    def note(self, lane: FastLane, asked: Any, status: int) -> None:
        """Take an answer's telemetry, or leave it."""
        if self._answers == 0:
            asyncio.get_running_loop().call_soon(self._begin)
        self._answers += 1
        if self._on:
            self._tell(lane, asked, status)

    def _begin(self) -> None:
        self._since = self._answers, perf_counter(), process_time()
        asyncio.get_running_loop().call_later(_MOMENT_SECONDS, self._change)

    def _change(self) -> None:
        write_lines()  # of this moment
        if self._since is not None:
            answers, wall, cpu = self._since
            self.moments.append((self._on, self._answers - answers, perf_counter() - wall, process_time() - cpu))
        self._on = not self._on
        asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self._begin)


if __name__ == "__main__":
    to = Path(sys.argv.pop(1))
    switch = _Switch(FastLane._note)  # noqa: SLF001

    def note(lane: FastLane, asked: Any, status: int) -> None:
        """In place of the lane's own."""
        switch.note(lane, asked, status)

    FastLane._note = note  # type: ignore[method-assign, assignment] # noqa: SLF001
    try:
        cli()
    finally:
        to.write_text(json.dumps(switch.moments), encoding="ascii")
