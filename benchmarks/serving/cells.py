"""One cell of the measurement: a server under a load for a few seconds, and what that cost it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.serving.processes import LOAD_CORE, SERVER_CORE, TICK_SECONDS, core_ticks, pinned, ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.serving.processes import Running, Ticks

_SCRIPT: Final = Path(__file__).with_name("post.lua")
_ROOT: Final = Path(__file__).resolve().parents[2]
WARM_UP_SECONDS: Final = 1.0
"""Of an open loop."""
NOISE: Final = 0.05
"""Share of either core that other processes may use before a cell is marked noisy."""

GENERATOR_BUSY: Final = 0.8
"""Share of its core from which on a closed loop's generator is taken to have held the server back."""
SERVICE_TIMES: Final = 10
"""An open loop's lag is judged against the cell's own p99, but against no more than this many service times."""

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
        objective: Largest latency, in seconds, that the generator's lag is judged against; a slow server's own p99
            would forgive any.
    """

    url: str
    requests: Path
    rows: int
    rate: float
    seconds: float
    objective: float = math.inf

    def command(self) -> list[str]:
        """The load tool's command line."""
        tool = [sys.executable, "-m", "benchmarks.serving.openloop"]
        return [*tool, self.url, str(self.requests), *map(repr, (self.rate, self.seconds, self.objective))]

    @property
    def accounted(self) -> float:
        """Share of the requests sent that the result counts: the warm-up's are left out."""
        return self.seconds / (self.seconds + WARM_UP_SECONDS)


def run_pinned(
    command: Sequence[str], core: int, timeout: float, environment: dict[str, str] | None = None
) -> Measured:
    """Run a program on a core and read the JSON object that its last line holds.

    Raises:
        LoadError: It failed, took too long, or printed none.
    """
    try:
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
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{command[0]}: expected an end within {timeout:g} s, got none") from error
    lines = [line for line in done.stdout.splitlines() if "{" in line]
    if done.returncode or not lines:
        raise LoadError(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-400:]}")
    found: Measured = json.loads(lines[-1][lines[-1].index("{") :])
    return found


class Spent(NamedTuple):
    """What a cell took, in clock ticks.

    Attributes:
        server: Processor time of the server's processes.
        server_core: Time of its core for anyone.
        generator: Processor time of the load generator.
        load_core: Time of its core for anyone.
        wall: By the clock.
    """

    server: Ticks
    server_core: int
    generator: float
    load_core: int
    wall: float


def account(result: Measured, load: Closed | Open, spent: Spent) -> Measured:
    """What a generator printed and what it cost.

    Returns:
        The generator's own figures and `requests_per_second`, `rows_per_second`, `cpu_us` (the server's processor time
        a request), `rows_per_cpu_second`, `kernel_us` (of it, in the kernel), `busy` (share of its core),
        `generator_cpu` (the generator's share of its own) and `noise` (share of either core that others used).
    """
    others = max(spent.server_core - spent.server.total, spent.load_core - spent.generator, 0.0)
    count = max(1, result["requests"]) / load.accounted
    rate = result["requests"] / result["seconds"]
    cpu = spent.server.total * TICK_SECONDS / count
    return result | {
        "requests_per_second": rate,
        "rows_per_second": rate * load.rows,
        "cpu_us": cpu * 1e6,
        "rows_per_cpu_second": load.rows / cpu if cpu else None,
        "kernel_us": spent.server.system * TICK_SECONDS / count * 1e6,
        "busy": spent.server.total / spent.wall,
        "generator_cpu": round(spent.generator / spent.wall, 3),
        "noise": round(others / spent.wall, 3),
    }


def measure(server: Running, load: Closed | Open) -> Measured:
    """Load a server and account for it: see `account`."""
    pids = server.pids()
    before = ticks(pids), core_ticks(SERVER_CORE), core_ticks(LOAD_CORE), os.times(), time.monotonic()
    result = run_pinned(load.command(), LOAD_CORE, timeout=load.seconds * 3 + 60)
    after = ticks(pids), core_ticks(SERVER_CORE), core_ticks(LOAD_CORE), os.times(), time.monotonic()
    generator = (
        after[3].children_user + after[3].children_system - before[3].children_user - before[3].children_system
    ) / TICK_SECONDS
    wall = (after[4] - before[4]) / TICK_SECONDS
    spent = Spent(after[0] - before[0], after[1] - before[1], generator, after[2] - before[2], wall)
    return account(result, load, spent)


def unusable(record: Mapping[str, Any]) -> str | None:
    """Why no figure may be made of a cell; None if one may."""
    if record.get("error"):
        return str(record["error"])
    if record.get("errors") or not record.get("requests", 1):
        kinds = ", ".join(f"{kind} {count}" for kind, count in record.get("error_kinds", {}).items() if count)
        answered = f"{record.get('errors', 0)} errors among {record.get('requests', 0)} answers"
        return f"{answered} ({kinds})" if kinds else answered
    bound = record.get("generator_bound")
    return f"generator-bound: {bound}" if bound else None


def least_disturbed(attempt: Callable[[], Measured], retries: int) -> Measured:
    """Measure a cell, again while the generator held it back or others used the cores.

    Args:
        attempt: Measures it once.
        retries: How often again, at most.

    Returns:
        The least disturbed attempt, but the first that has errors: those are the server's, and stay.
    """
    best: Measured | None = None
    for _ in range(retries + 1):
        found = attempt()
        if found["errors"]:
            return found
        if best is None or _disturbance(found) < _disturbance(best):
            best = found
        if unusable(best) is None and best["noise"] <= NOISE:
            break
    assert best is not None  # noqa: S101 - one attempt was made
    return best


def _disturbance(found: Measured) -> tuple[bool, float]:
    return unusable(found) is not None, found["noise"]
