"""Servers to measure: real processes of `python -m service` on free ports of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.advise.errors import ServerError
from service.bench.http import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["RunningServer", "running_servers"]

HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 30.0
_LONGEST_LOG: Final = 1 << 24
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is ready.

    Attributes:
        target: Where it listens.
        process: Number of its process; of several workers, of their parent.
    """

    target: Target
    process: int

    def cpu_seconds(self) -> float | None:
        """Processor time of its processes so far; None where the system does not tell."""
        ticks, found = 0, False
        for path in _PROC.glob("[0-9]*/stat"):
            try:
                text = path.read_text(encoding="ascii", errors="replace")
            except OSError:
                continue  # it ended meanwhile
            # proc(5): the name is in brackets and may hold anything; the parent is field 4, times are 14 and 15.
            fields = text.rpartition(")")[2].split()
            if self.process in {int(path.parent.name), int(fields[1])}:
                ticks, found = ticks + int(fields[11]) + int(fields[12]), True
        return ticks / os.sysconf("SC_CLK_TCK") if found else None


@contextmanager
def running_servers(bundle: Path, ways: Mapping[str, Mapping[str, object]]) -> Iterator[dict[str, RunningServer]]:
    """Ready servers, which end with the block.

    Args:
        bundle: What to serve.
        ways: Name to the settings that differ from those of the environment; `workers` must be among them.

    Raises:
        ServerError: One ended, or was not ready in time; with what it logged.
    """
    with ExitStack() as stack:
        # All are started before the first is waited for: most of a start is imports.
        started = {way: (stack.enter_context(_server(bundle, settings)), settings) for way, settings in ways.items()}
        yield {
            way: RunningServer(_wait(process, log, int(str(settings["workers"]))), process.pid)
            for way, ((process, log), settings) in started.items()
        }


@contextmanager
def _server(bundle: Path, settings: Mapping[str, object]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    given = {"bundle": bundle, "host": HOST, "port": 0, "log_level": "info", **settings}
    # They listen on this machine alone, for a moment, and the load has no key to show.
    open_to_all = {name: value for name, value in os.environ.items() if not name.startswith("REACTION_API_KEYS")}
    environment = open_to_all | {f"REACTION_{name.upper()}": str(value) for name, value in given.items()}
    # A file, not a pipe: nobody reads it while servers are driven.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.advise.child", str(os.getpid())],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            yield process, log.fileno()
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], log: int, workers: int) -> Target:
    """Where the server listens, once every worker says that it is ready."""
    end = time.monotonic() + _START_SECONDS
    while True:
        ended = process.poll()
        lines = os.pread(log, _LONGEST_LOG, 0).decode(errors="replace").splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]
        if ended is not None or time.monotonic() > end:
            raise ServerError(
                f"server: expected it to become ready, got exit status {ended}, having logged:\n{''.join(lines)}"
            )
        if sum(event.get("event") == "ready" for event in events) >= workers:
            (port,) = [event["port"] for event in events if event.get("event") == "listening"]
            return Target(HOST, port)
        time.sleep(0.02)
