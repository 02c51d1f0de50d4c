"""Goodput of requests of one row at several times what a service can score: refusing one costs what scoring it costs.

So nothing is refused: what a worker has not come to waits in its sockets, and a client that keeps a bounded pool of
connections, as every client library does, waits for a free one and sends no more. One worker on one core, the generator
on another. The most is what is answered when at least twice as much is offered; then come multiples of that.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.reliability.overload import server
from benchmarks.serving.model import write_bundles
from benchmarks.serving.payloads import random_batches, ranking_rows, to_json
from benchmarks.serving.processes import LOAD_CORE
from service.bench.arrivals import NANOSECONDS
from service.bench.http import OK, Target
from service.bench.load import Body, run_load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from service.bench.load import LoadResult

__all__ = ["MULTIPLES", "backpressure_figures"]

MULTIPLES: Final = (0.5, 1.0, 2.0, 3.0)
_CONNECTIONS: Final = 32
_BODIES: Final = 256
_GUESS: Final = 8000.0
_SHARE: Final = 0.5
_BEYOND: Final = 4.0  # times what was the most before
_WARM_UP_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Load:
    port: int
    bodies: list[Body]

    def at(self, rate: float, seconds: float) -> tuple[float, LoadResult]:
        """Answers a second within the time in which requests are due, and the run; what waits at its end is left."""
        before = min(_WARM_UP_SECONDS, seconds)
        run = run_load(
            Target("127.0.0.1", self.port),
            self.bodies,
            rate,
            seconds,
            warm_up=before,
            connections=_CONNECTIONS,
            warm_connections=_CONNECTIONS,
            timeout=10 * (seconds + before),
            give_up=seconds + before,
        )
        ended = run.records.ended[run.records.outcome == OK] / NANOSECONDS
        inside = (ended >= before) & (ended < before + seconds)
        return float(inside.sum()) / seconds, run

    def most(self, guess: float, seconds: float) -> float:
        """Answers a second when at least twice as many are offered, `guess` to begin with."""
        while (found := self.at(guess, seconds)[0]) > _SHARE * guess:
            guess *= 2
        return found


def backpressure_figures(folder: Path, seconds: float, multiples: Sequence[float] = MULTIPLES) -> dict[str, float]:
    """Measure; this process stays on the generator's core.

    Args:
        folder: For a bundle and a log.
        seconds: Length of each run.
        multiples: Of the most, to offer.

    Returns:
        Figures by key.
    """
    os.sched_setaffinity(0, {LOAD_CORE})
    write_bundles(folder)
    contents = [to_json(ranking_rows(rows)) for rows in random_batches(1, _BODIES, shared=True)]
    with server(folder / "bundle", folder / "log") as port:
        load = _Load(port, [Body(content, candidates=1) for content in contents])
        most = load.most(_GUESS, seconds)
        found: dict[str, float] = {"backpressure_seconds": seconds, "backpressure_connections": _CONNECTIONS}
        broken = 0
        for multiple in multiples:
            # The most is measured before and after each run: other work on the machine changes it.
            answered, run = load.at(multiple * most, seconds)
            after = load.most(_BEYOND * most, seconds / 3)
            most, share = after, answered / ((most + after) / 2)
            broken += sum(count for kind, count in run.errors.items() if kind != "abandoned")
            found[f"backpressure_goodput_{multiple:g}x"] = round(share, 3)
            found[f"backpressure_p99_ms_{multiple:g}x"] = round(run.service.p99 * 1e3, 2)
            found[f"backpressure_generator_busy_{multiple:g}x"] = round(run.busy_share, 2)
    return found | {"backpressure_most_requests": round(most), "backpressure_failed": broken}
