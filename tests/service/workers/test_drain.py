"""SIGTERM: not ready at once, served on until balancers have noticed, what is in flight finished, then gone."""

from __future__ import annotations

import json
import socket
import sys
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import httpx
import pytest
from processes import GOOD, wait_for
from serving import MODEL_ID, start

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

BODY = json.dumps(GOOD).encode()
HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)


def status_of(url: str) -> int:
    return httpx.get(url).status_code


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_told_to_end_fails_its_probe_scores_on_and_takes_leave_of_all(bundle: Path, workers: int) -> None:
    running = start(bundle, workers=workers, drain_seconds=120, shutdown_seconds=20)
    begun = socket.create_connection(running.address, timeout=30)  # in flight when the signal comes
    begun.sendall(HEAD + BODY[:10])
    kept = HTTPConnection(*running.address, timeout=30)
    kept.request("POST", "/score", BODY, {"content-type": "application/json"})
    assert kept.getresponse().read()
    held = kept.sock
    running.process.terminate()
    wait_for(lambda: status_of(f"{running.url}/readyz") == 503, "its probe fails")
    assert status_of(f"{running.url}/livez") == 200
    for _ in range(8):  # on connections of their own, whichever worker takes them
        answer = httpx.post(f"{running.url}/score", json=GOOD)
        assert (answer.status_code, answer.json()["model"]) == (200, MODEL_ID)
        assert answer.headers["connection"] == "close"
        assert status_of(f"{running.url}/readyz") == 503
    kept.request("POST", "/score", BODY, {"content-type": "application/json"})
    answer = kept.getresponse()
    assert (answer.status, answer.getheader("connection")) == (200, "close")
    assert kept.sock is None, "told with its answer, on the connection that it had kept"
    assert held is not None
    assert held.fileno() == -1 or held.recv(1) == b""
    assert not refuses(running.address)
    running.process.terminate()  # told again: no more delay
    wait_for(lambda: refuses(running.address), "nothing new is taken")
    assert running.process.poll() is None, "it waits for what is in flight"
    begun.sendall(BODY[10:])
    with begun:
        assert begun.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert running.stop() == 0
    assert "worker_killed" not in {line["event"] for line in running.log}


def refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=10).close()
    except OSError:
        return True
    return False
