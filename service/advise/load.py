"""Servers under load, driven in turns by a closed loop.

A closed loop sends a connection's next request when the last one is answered. It finds the most a server can do, which
is what settings are compared by; latency at a given rate is what `python -m service bench` measures.
"""

from __future__ import annotations

import selectors
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from service.advise.errors import LoadError
from service.advise.measured import LoadTimes
from service.bench.http import OK, AnswerReader, Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.advise.servers import RunningServer

__all__ = ["Drive", "Load", "compare_servers", "drive"]

ROUNDS: Final = 8
SHORTEST_SECONDS: Final = 0.02
_ANSWER_SECONDS: Final = 30.0
_CHUNK: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Load:
    """What to drive servers with.

    Attributes:
        bodies: Bodies of `/score`, sent in turn.
        connections: Requests on their way at once.
    """

    bodies: Sequence[bytes]
    connections: int


@dataclass(frozen=True, slots=True)
class Drive:
    """What driving a server for a while found.

    Attributes:
        requests: Requests answered.
        rate: The same a second.
        p50: Median latency in seconds.
        p99: 99th percentile.
        generator: This process's processor time, as a share of one CPU.
    """

    requests: int
    rate: float
    p50: float
    p99: float
    generator: float


def compare_servers(
    servers: Mapping[str, RunningServer], loads: Mapping[str, Load], seconds: float, *, rounds: int = ROUNDS
) -> LoadTimes:
    """Drive servers in turns, each with every load in every round.

    Args:
        servers: Way to server.
        loads: Case to load.
        seconds: For all of it.
        rounds: How many.

    Raises:
        LoadError: See `drive`.
    """
    each = max(seconds / (len(servers) * len(loads) * (rounds + 1)), SHORTEST_SECONDS)
    found: dict[tuple[str, str], list[Drive]] = {(case, way): [] for case in loads for way in servers}
    spent: dict[tuple[str, str], list[float]] = {key: [] for key in found}
    for number in range(rounds + 1):
        order = list(servers) if number % 2 == 0 else list(reversed(list(servers)))
        for case, load in loads.items():
            for way in order:
                before = servers[way].cpu_seconds()
                measured = drive(servers[way].target, load, each)
                after = servers[way].cpu_seconds()
                if number:  # the first round warms up
                    found[case, way].append(measured)
                    if before is not None and after is not None:
                        spent[case, way].append((after - before) / measured.requests)

    def rounds_of(name: str) -> dict[tuple[str, str], tuple[float, ...]]:
        return {key: tuple(getattr(one, name) for one in drives) for key, drives in found.items()}

    # A round so short that the clock of processor time did not move says nothing.
    known = all(rounds and min(rounds) > 0 for rounds in spent.values())
    return LoadTimes(
        ways=tuple(servers),
        cases=tuple(loads),
        rates=rounds_of("rate"),
        p50=rounds_of("p50"),
        p99=rounds_of("p99"),
        generator=rounds_of("generator"),
        cpu={key: tuple(rounds) for key, rounds in spent.items()} if known else {},
    )


def drive(target: Target, load: Load, seconds: float) -> Drive:
    """Keep a number of requests on their way for a time.

    Raises:
        LoadError: An answer that is not 200, none for too long, or a connection that was refused or ended.
    """
    requests = [target.request(body, "application/json") for body in load.bodies]
    latencies: list[float] = []
    with selectors.DefaultSelector() as selector:
        connections: list[_Connection] = []
        try:
            for _ in range(load.connections):
                connection = _Connection(target)
                connections.append(connection)
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            busy = time.process_time()
            began = time.perf_counter()
            for place, connection in enumerate(connections):
                connection.send(requests[place % len(requests)])
            sent, waiting, end = len(connections), len(connections), began + seconds
            while waiting:
                ready = selector.select(_ANSWER_SECONDS)
                if not ready:
                    raise LoadError(f"{target.url}: expected an answer within {_ANSWER_SECONDS:g} s, got none")
                for key, _ in ready:
                    latency = key.data.receive()
                    if latency is None:
                        continue
                    latencies.append(latency)
                    if time.perf_counter() < end:
                        key.data.send(requests[sent % len(requests)])
                        sent += 1
                    else:
                        waiting -= 1
            spent = time.perf_counter() - began
            busy = time.process_time() - busy
        except (OSError, ValueError) as error:
            raise LoadError(f"{target.url}: expected answers, got {error}") from error
        finally:
            for connection in connections:
                connection.socket.close()
    p50, p99 = np.quantile(latencies, (0.5, 0.99)).tolist()
    return Drive(len(latencies), len(latencies) / spent, p50, p99, busy / spent)


class _Connection:
    """One connection, with one request on its way at a time."""

    def __init__(self, target: Target) -> None:
        self.socket = socket.create_connection((target.host, target.port), timeout=_ANSWER_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._url = target.url
        self._reader = AnswerReader()
        self._sent = 0.0

    def send(self, request: bytes) -> None:
        self._sent = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> float | None:
        """Latency of the answer, None if it is not complete."""
        data = self.socket.recv(_CHUNK)
        if not data:
            raise LoadError(f"{self._url}: expected an answer, got the end of the connection")
        answer = self._reader.feed(data)
        if answer is None:
            return None
        if answer.status != OK:
            got = answer.body.decode(errors="replace")[:500]
            raise LoadError(f"{self._url}: expected status 200, got {answer.status}: {got}")
        return time.perf_counter() - self._sent
