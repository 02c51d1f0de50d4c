"""Several workers: one socket, one set of counts; one that ends is replaced, and all end with their supervisor."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import socket
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from serving import MODEL_ID, ROW_CANDIDATES, ROW_CONTEXT, Server, samples, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

GOOD = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}
PIDFD_GETFD = 438  # number of the system call, the same on every architecture


def workers_of(server: Server) -> list[int]:
    return sorted(child.pid for child in psutil.Process(server.process.pid).children())


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"not in {seconds:g} s: {what}")


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def count_all(server: Server) -> dict[str, float]:
    return samples(httpx.get(f"{server.url}/metrics").text)


def scored(counts: dict[str, float]) -> float:
    return counts['reaction_requests_total{route="/score",status="200"}']


def ask(server: Server, times: int) -> Counter[int]:
    """Score on a connection of its own; the answers' statuses."""
    with httpx.Client(base_url=server.url) as client:
        return Counter(client.post("/score", json=GOOD).status_code for _ in range(times))


def ask_until_told(server: Server, stop: list[bool]) -> tuple[int, int]:
    """Answers with scores, and requests that got no answer, each on a new connection after a failure."""
    good = lost = 0
    while not stop:
        with httpx.Client(base_url=server.url) as client:
            try:
                while not stop:
                    assert client.post("/score", json=GOOD).status_code == 200
                    good += 1
            except httpx.TransportError:
                lost += 1
    return good, lost


@pytest.fixture(scope="module")
def trio(bundle: Path) -> Iterator[Server]:
    with serving(bundle, workers=3) as running:
        yield running


def connection_of(client: socket.socket, pids: list[int]) -> tuple[int, int]:
    """Process and descriptor of the server's end of a connection, by way of the kernel's table of sockets."""
    (host, port), (_, server_port) = client.getsockname(), client.getpeername()
    assert host == "127.0.0.1"
    wanted = f"0100007F:{server_port:04X} 0100007F:{port:04X}"
    table = Path("/proc/net/tcp").read_text(encoding="ascii")
    (line,) = [line for line in table.splitlines() if wanted in line]
    inode = line.split()[9]
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if descriptor.readlink() == Path(f"socket:[{inode}]"):
                return pid, int(descriptor.name)
    raise AssertionError(f"no worker holds {line}")


def borrowed(pid: int, descriptor: int) -> socket.socket:
    """A socket of another process; skips where the kernel or a sandbox does not lend it."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    copy = libc.syscall(PIDFD_GETFD, process, descriptor, 0)
    os.close(process)
    if copy < 0:
        pytest.skip(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    return socket.socket(fileno=copy)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_connection_that_is_kept_sends_small_answers_at_once(bundle: Path, workers: int) -> None:
    # An answer is written in two parts: under Nagle's algorithm the second waits for an acknowledgement, 40 ms.
    with serving(bundle, workers=workers) as running:
        pids = workers_of(running) if workers > 1 else [running.process.pid]
        assert len(pids) == workers
        for _ in range(8):
            with contextlib.closing(http.client.HTTPConnection(*running.address, timeout=10)) as client:
                for _ in range(2):
                    client.request("POST", "/score", json.dumps(GOOD), {"content-type": "application/json"})
                    assert json.load(client.getresponse())["model"] == MODEL_ID
                assert client.sock is not None  # kept
                with borrowed(*connection_of(client.sock, pids)) as theirs:
                    assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_the_counts_of_any_worker_are_those_of_all(trio: Server) -> None:
    before = count_all(trio).get('reaction_requests_total{route="/score",status="200"}', 0.0)
    with ThreadPoolExecutor(12) as clients:
        statuses = sum(clients.map(lambda _: ask(trio, 40), range(12)), Counter())
    assert statuses == {200: 480}
    time.sleep(1.0)  # what idle workers have queued
    for _ in range(6):  # whichever worker answers
        counts = count_all(trio)
        assert scored(counts) - before == 480
        ok = scored(counts)
        assert counts[f'reaction_candidates_total{{model="{MODEL_ID}"}}'] == 3 * ok
        assert counts[f'reaction_score_count{{model="{MODEL_ID}"}}'] == 3 * ok
        assert counts[f'reaction_field_values_total{{field="ad",model="{MODEL_ID}"}}'] == 3 * ok
        assert counts[f'reaction_stage_seconds_count{{model="{MODEL_ID}",outcome="ok",stage="total"}}'] == ok
        assert counts['reaction_workers{state="ready"}'] == counts['reaction_workers{state="planned"}'] == 3
