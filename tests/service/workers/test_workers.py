"""Several workers: one socket, one set of counts; one that ends is replaced, and all end with their supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from processes import GOOD, ask, count_all, scored, wait_for, workers_of
from serving import MODEL_ID, ROOT, Server, serving

from service.counts.feature_health import SAMPLED_ROWS
from service.runtime import Runtime
from service.settings import Settings
from service.workers.assignment import Assignment
from service.workers.machine import Machine
from service.workers.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

PIDFD_GETFD = 438  # number of the system call, the same on every architecture


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
        looked_at = counts[f'reaction_field_values_total{{field="ad",model="{MODEL_ID}"}}']
        assert SAMPLED_ROWS < looked_at <= 3 * ok  # of many rows at once a sample
        assert counts[f'reaction_stage_seconds_count{{model="{MODEL_ID}",outcome="ok",stage="total"}}'] == ok
        assert counts['reaction_workers{state="ready"}'] == counts['reaction_workers{state="planned"}'] == 3


def test_connections_that_are_opened_at_once_and_kept_are_spread(trio: Server) -> None:
    pids = workers_of(trio)

    def held() -> list[int]:
        processes = map(psutil.Process, pids)
        return [sum(c.status == psutil.CONN_ESTABLISHED for c in p.net_connections("tcp")) for p in processes]

    wait_for(lambda: sum(held()) == 0, "no connection is left of earlier tests")
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(socket.create_connection(trio.address, timeout=10))
        wait_for(lambda: sum(held()) == 60, "all are accepted")
        assert min(held()) >= 5, held()


def test_metrics_of_processes_are_those_of_all(trio: Server) -> None:
    everyone = [psutil.Process(pid) for pid in (trio.process.pid, *workers_of(trio))]
    spent = sum(sum(p.cpu_times()[:2]) for p in everyone)
    counts = count_all(trio)
    assert counts["process_cpu_seconds_total"] >= spent - 0.1  # the client library counts in clock ticks
    assert counts["process_cpu_seconds_total"] <= sum(sum(p.cpu_times()[:2]) for p in everyone) + 0.1
    assert counts["process_start_time_seconds"] == pytest.approx(min(p.create_time() for p in everyone), abs=1.5)
    assert counts["process_open_fds"] == pytest.approx(sum(p.num_fds() for p in everyone), abs=8)
    maps = [p.memory_info() for p in everyone]
    own, files = sum(m.rss - m.shared for m in maps), max(m.shared for m in maps)
    assert counts["process_resident_memory_bytes"] == pytest.approx(own + files, rel=0.1)  # not `files` four times


def test_every_line_of_a_worker_names_it_and_the_plan_is_logged_once(bundle: Path) -> None:
    with serving(bundle, workers=2) as running:
        pass
    events = Counter((line["event"], line.get("worker")) for line in running.log)
    assert events == {
        ("plan", None): 1,
        ("listening", None): 1,
        **{(event, worker): 1 for event in ("starting", "ready", "stopped") for worker in (0, 1)},
        ("all_stopped", None): 1,
    }


def test_one_worker_is_the_process_itself_and_a_supervisor_loads_nothing_that_serves(bundle: Path) -> None:
    with serving(bundle, workers=1) as running:
        assert workers_of(running) == []
        assert count_all(running)['reaction_workers{state="planned"}'] == 1
    code = (
        "import sys, service.__main__, service.workers.supervisor\n"
        "print(*{'onnxruntime', 'numpy', 'uvicorn', 'fastapi', 'prometheus_client'} & {*sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""


@pytest.mark.parametrize("late", [False, True])
def test_a_replacement_listens_when_it_is_ready_and_a_first_worker_at_once(bundle: Path, late: bool) -> None:
    settings = Settings(bundle=bundle)

    async def begin() -> str:
        runtime = Runtime(settings, make_plan(settings, Machine(1)), Assignment(late=late))
        runtime.start()
        await runtime.may_listen()
        stage = runtime.stage
        while runtime.stage == "starting":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        runtime.stop()
        return stage

    assert asyncio.run(begin()) == ("ready" if late else "starting")
