"""Looking at a service of several processes from outside."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from serving import ROW_CANDIDATES, ROW_CONTEXT, Server, samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOOD = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}


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
    return counts.get('reaction_requests_total{route="/score",status="200"}', 0.0)


def ask(server: Server, times: int) -> Counter[int]:
    """Score on a connection of its own; the answers' statuses."""
    with httpx.Client(base_url=server.url) as client:
        return Counter(client.post("/score", json=GOOD).status_code for _ in range(times))


def ask_until_told(server: Server, stop: list[bool], *, keep: bool) -> tuple[int, int]:
    """Answers with scores, and requests that got none; on one connection or on a new one each, as told."""
    good = lost = 0
    while not stop:
        with httpx.Client(base_url=server.url) as client:
            try:
                while not stop:
                    assert client.post("/score", json=GOOD).status_code == 200
                    good += 1
                    if not keep:
                        break
            except httpx.TransportError:
                lost += 1
    return good, lost


@contextlib.contextmanager
def group_with_quota(microseconds: int) -> Iterator[Path]:
    """A control group below the mounted root whose processes get this much CPU time in 100,000 us."""
    roots = {"cpu.cfs_quota_us": Path("/sys/fs/cgroup/cpu"), "cpu.max": Path("/sys/fs/cgroup")}
    tried = []
    for name, root in roots.items():
        group = root / f"reaction-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            tried.append(str(error))
            continue
        try:
            if (group / name).exists():
                (group / name).write_text(f"{microseconds}" if "cfs" in name else f"{microseconds} 100000")
                yield group
                return
            tried.append(f"{group} has no {name}: the controller is not enabled there")
        except PermissionError as error:
            tried.append(str(error))
        finally:
            group.rmdir()
    pytest.skip(f"needs a control group of its own (root, a writable hierarchy): {'; '.join(tried)}")
