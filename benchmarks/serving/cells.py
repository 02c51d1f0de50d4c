"""One cell of the measurement: a server under a load for a few seconds, and what that cost it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.serving.processes import LOAD_CORE, SERVER_CORE, TICK_SECONDS, core_ticks, pinned, ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.serving.processes import Running

_SCRIPT: Final = Path(__file__).with_name("post.lua")
_ROOT: Final = Path(__file__).resolve().parents[2]
WARM_UP_SECONDS: Final = 1.0
"""Of an open loop."""
NOISE: Final = 0.05
"""Share of either core that other processes may use before a cell is marked noisy."""

Measured = dict[str, Any]


class LoadError(RuntimeError):
    """A load generator did not end with a result."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Closed loop, for saturation throughput: wrk keeps this many connections busy.

    Attributes:
        url: Where to.
        requests: File of requests (`payloads.write_requests`).
        rows: Candidates a request.
        connections: How many at once.
        seconds: How long.
    """

    url: str
    requests: Path
    rows: int
    connections: int
    seconds: float

    def command(self) -> list[str]:
        """The command line of wrk."""
        options = ["-t1", f"-c{self.connections}", f"-d{max(1, round(self.seconds))}s", "--timeout", "20s"]
        return ["wrk", *options, "--latency", "-s", str(_SCRIPT), self.url, "--", str(self.requests)]

    @property
    def accounted(self) -> float:
        """Share of the requests sent that the result counts."""
        return 1.0


@dataclass(frozen=True, slots=True)
class Open:
    """Open loop, for latency: Poisson arrivals at one rate, whatever becomes of them.

    Attributes:
        url: Where to.
        requests: File of requests.
        rows: Candidates a request.
        rate: Requests a second.
        seconds: How long, after a warm-up.
    """

    url: str
    requests: Path
    rows: int
    rate: float
    seconds: float

    def command(self) -> list[str]:
        """The load tool's command line."""
        tool = [sys.executable, "-m", "benchmarks.serving.openloop"]
        return [*tool, self.url, str(self.requests), repr(self.rate), repr(self.seconds)]

    @property
    def accounted(self) -> float:
        """Share of the requests sent that the result counts: the warm-up's are left out."""
        return self.seconds / (self.seconds + WARM_UP_SECONDS)


def run_pinned(
    command: Sequence[str], core: int, timeout: float, environment: dict[str, str] | None = None
) -> Measured:
    """Run a program on a core and read the JSON object that its last line holds.

    Raises:
        LoadError: It failed, or printed none.
    """
    done = subprocess.run(
        list(command),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=environment,
        cwd=_ROOT,
        preexec_fn=pinned(core),
    )
    lines = [line for line in done.stdout.splitlines() if "{" in line]
    if done.returncode or not lines:
        raise LoadError(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-400:]}")
    found: Measured = json.loads(lines[-1][lines[-1].index("{") :])
    return found


def measure(server: Running, load: Closed | Open) -> Measured:
    """Load a server and account for it.

    Returns:
        The generator's own figures and `requests_per_second`, `rows_per_second`, `cpu_us` (the server's processor time
        a request), `rows_per_cpu_second`, `kernel_us` (of it, in the kernel), `busy` (share of its core) and `noise`
        (share of either core that others used).
    """
    pids = server.pids()
    before = ticks(pids), core_ticks(SERVER_CORE), core_ticks(LOAD_CORE), os.times(), time.monotonic()
    result = run_pinned(load.command(), LOAD_CORE, timeout=load.seconds * 3 + 60)
    after = ticks(pids), core_ticks(SERVER_CORE), core_ticks(LOAD_CORE), os.times(), time.monotonic()
    used = after[0] - before[0]
    wall = (after[4] - before[4]) / TICK_SECONDS
    generator = (
        after[3].children_user + after[3].children_system - before[3].children_user - before[3].children_system
    ) / TICK_SECONDS
    noise = max(after[1] - before[1] - used.total, after[2] - before[2] - generator, 0.0) / wall
    count = max(1, result["requests"]) / load.accounted
    rate = result["requests"] / result["seconds"]
    cpu = used.total * TICK_SECONDS / count
    return result | {
        "requests_per_second": rate,
        "rows_per_second": rate * load.rows,
        "cpu_us": cpu * 1e6,
        "rows_per_cpu_second": load.rows / cpu if cpu else None,
        "kernel_us": used.system * TICK_SECONDS / count * 1e6,
        "busy": used.total / wall,
        "noise": round(noise, 3),
    }
