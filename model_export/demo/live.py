"""A running service and a client of it: the standard library alone, as any caller in production could be."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model_export.demo.workplace import DemoError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

HOST: Final = "127.0.0.1"
USUAL_PORT: Final = 8080
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
JSON_HEADERS: Final = {"content-type": "application/json"}
FEWEST_CALLS: Final = 20


@dataclass(frozen=True)
class Latency:
    """Seconds of a call over HTTP, seen by the client."""

    rows: int
    calls: int
    median: float
    p99: float


class Client:
    """One connection that is kept open.

    Args:
        port: Where the service listens on this machine.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection(HOST, port, timeout=30)

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def post(self, body: bytes) -> dict[str, Any]:
        """Score an encoded request.

        Raises:
            DemoError: The service refused it.
        """
        self._connection.request("POST", "/score", body, JSON_HEADERS)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != http.client.OK:
            raise DemoError(f"POST /score: expected 200, got {answer.status} {content.decode(errors='replace')}")
        document: dict[str, Any] = json.loads(content)
        return document

    def score(
        self,
        context: Mapping[str, Any] | None,
        candidates: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
        **others: object,
    ) -> dict[str, Any]:
        """Score candidates: objects, or one array a field."""
        document = {"candidates": candidates, **({} if context is None else {"context": context}), **others}
        return self.post(json.dumps(document).encode())

    def latency(self, bodies: Sequence[bytes], rows: int, *, seconds: float) -> Latency:
        """Send the bodies in turn, one call after the other."""
        spent: list[float] = []
        self.post(bodies[0])
        end = time.perf_counter() + seconds
        while len(spent) < FEWEST_CALLS or time.perf_counter() < end:
            body = bodies[len(spent) % len(bodies)]
            start = time.perf_counter()
            self.post(body)
            spent.append(time.perf_counter() - start)
        return Latency(rows, len(spent), float(np.median(spent)), float(np.quantile(spent, 0.99)))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def free_port() -> int:
    """The usual port if nobody listens there, else any other."""
    for port in (USUAL_PORT, 0):
        with socket.socket() as probe:
            # As the service binds: a connection that was just closed is no reason to go elsewhere.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError(f"expected a free port on {HOST}, found none")


def service_command(bundle: Path, port: int) -> list[str]:
    """The command that serves a bundle."""
    return [sys.executable, "-m", "service", "--bundle", str(bundle), "--port", str(port)]


@contextmanager
def running_service(bundle: Path, log: Path, *, keep: bool = False) -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
    """Start the service as anyone would, wait until it is ready, and stop it at the end unless it is kept.

    Args:
        bundle: What to serve.
        log: File for what it says.
        keep: Leave it running if all went well.

    Raises:
        DemoError: It ended, or was not ready in time; the message ends with its log.
    """
    port = free_port()
    with log.open("wb") as output:
        # In a session of its own, so that a Ctrl-C here does not reach a service that is to be kept.
        process = subprocess.Popen(
            service_command(bundle, port), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    done = False
    client = Client(port)
    try:
        _wait_until_ready(process, port, log)
        yield process, client
        done = True
    finally:
        client.close()
        if not (keep and done):
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        probe = Client(port)
        try:
            if probe.get("/readyz")[0] == http.client.OK:
                return
        except OSError:
            pass  # not listening yet
        finally:
            probe.close()
        time.sleep(0.05)
    got = "no readiness" if process.poll() is None else f"exit status {process.returncode}"
    raise DemoError(
        f"service: expected it to be ready within {START_SECONDS:.0f} s, got {got}; {log} says:\n{_tail(log)}"
    )


def _tail(log: Path, lines: int = 10) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
