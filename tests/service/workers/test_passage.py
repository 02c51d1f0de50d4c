"""Connections that pass from a process to the one that takes its place: their clients notice nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
from certificates import certify
from processes import GOOD, wait_for, workers_of
from serving import ROOT, Server, serving, start
from stores import build_store, model_of

from service.workers.passage import NO_PASSAGE, Giver, open_passage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="queues of connections are Linux's")

BODY = json.dumps(GOOD).encode()
REQUEST = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)
REQUEST += BODY
HOW = {"watch_seconds": 0.05, "request_log_ratio": 0}
IDLE = 150  # more than are handed on at a time


def read(connection: socket.socket) -> tuple[int, bytes, dict[str, Any]]:
    """An answer's status, its head in lower case, and its document."""
    text = b""
    while (end := text.find(b"\r\n\r\n")) < 0:
        part = connection.recv(1 << 16)
        assert part, "the connection ended without an answer"
        text += part
    head, body = text[:end].lower(), text[end + 4 :]
    while len(body) < int(head.partition(b"content-length:")[2].partition(b"\r")[0]):
        body += connection.recv(1 << 16)
    return int(head.split(b" ", 2)[1]), head, json.loads(body)


def ask(connection: socket.socket) -> tuple[int, bytes, str]:
    connection.sendall(REQUEST)
    status, head, document = read(connection)
    return status, head, document["model"]


def connect(server: Server) -> socket.socket:
    connection = socket.create_connection(server.address, timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def swap(store: Any, server: Server, name: str) -> None:
    """Have another version served, and wait until whoever served before has gone."""
    before = workers_of(server)
    store.activate(name)
    wait_for(lambda: model_of(server) == name, f"{name} is served", 120)
    wait_for(lambda: not set(before) & set(workers_of(server)), "who served before has gone", 120)


def test_idle_connections_are_served_on_by_the_next_process_and_none_is_closed(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second")
    with serving(store.root, **HOW, idle_seconds=30) as running:
        connections = [connect(running) for _ in range(IDLE)]
        assert {ask(connection)[2] for connection in connections[:20]} == {"first"}  # the others have asked nothing yet
        swap(store, running, "second")  # long before `idle_seconds`: nothing is left to wait for
        for _ in range(2):
            for connection in connections:
                status, head, model = ask(connection)
                assert (status, model) == (200, "second")
                assert b"connection: close" not in head
        for connection in connections:
            connection.close()


@dataclass
class Crowd:
    """Clients of a server, until they are told to stop.

    Attributes:
        models: Who answered each client that never pauses, on the one connection that it has.
        faults: Requests that got no scores, and connections that ended.
    """

    server: Server
    stop: threading.Event = field(default_factory=threading.Event)
    models: list[set[str]] = field(default_factory=lambda: [set() for _ in range(4)])
    faults: list[str] = field(default_factory=list)

    def never_pause(self, number: int) -> None:
        with connect(self.server) as connection:
            while not self.stop.is_set():
                try:
                    status, head, model = ask(connection)
                except (OSError, AssertionError) as error:
                    self.faults.append(repr(error))
                    return
                self.models[number].add(model)
                if status != 200 or b"connection: close" in head:
                    self.faults.append(head.decode())

    def connect_early(self) -> None:
        """Connect, and ask a while later: a connection may be accepted as its worker is told to go."""
        early: deque[tuple[socket.socket, float]] = deque()
        while early or not self.stop.is_set():
            if not self.stop.is_set():
                early.append((connect(self.server), time.monotonic() + 0.1))
            if self.stop.is_set() or early[0][1] < time.monotonic():
                connection, _ = early.popleft()
                self.ask_once(connection)
            time.sleep(0.001)

    def ask_once(self, connection: socket.socket) -> None:
        with connection:
            try:
                ask(connection)
            except (OSError, AssertionError) as error:
                self.faults.append(f"early: {error!r}")


def test_connections_outlive_swaps_whether_their_clients_never_pause_or_have_only_just_come(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second")
    with serving(store.root, **HOW) as running:
        crowd = Crowd(running)
        threads = [threading.Thread(target=crowd.never_pause, args=(number,)) for number in range(len(crowd.models))]
        threads += [threading.Thread(target=crowd.connect_early) for _ in range(2)]
        for thread in threads:
            thread.start()
        for name in ("second", "first", "second"):
            swap(store, running, name)
        crowd.stop.set()
        for thread in threads:
            thread.join()
    assert crowd.faults == []
    assert crowd.models == [{"first", "second"}] * len(crowd.models)


def test_a_request_that_is_half_there_is_answered_by_whoever_has_the_half(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second")
    with serving(store.root, **HOW, idle_seconds=20) as running, connect(running) as half, connect(running) as whole:
        assert ask(half)[2] == "first"
        half.sendall(REQUEST[:-7])
        store.activate("second")
        wait_for(lambda: ask(whole)[2] == "second", "another version is served", 120)
        half.sendall(REQUEST[-7:])
        status, head, document = read(half)
        assert (status, document["model"]) == (200, "first")
        if b"connection: close" not in head:  # there was time to hand it on after its answer
            wait_for(lambda: ask(half)[2] == "second", "it is handed on")


def test_clients_of_encrypted_connections_are_told_with_an_answer_that_they_end(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second")
    certificate, key = certify(tmp_path, "own")
    trust = ssl.create_default_context(cafile=certificate)
    admin = tmp_path / "admin.sock"
    files = {"tls_certificate_file": certificate, "tls_key_file": key, "admin_socket": admin}
    server = start(store.root, wait=False, **HOW, **files, idle_seconds=30)
    try:
        wait_for(admin.exists, "it listens")
        reload = httpx.Client(transport=httpx.HTTPTransport(uds=str(admin)), timeout=120)
        wait_for(lambda: reload.get("http://admin/status").json()["workers"][0]["ready"], "it serves", 120)
        with trust.wrap_socket(connect(server), server_hostname=server.address[0]) as kept:
            assert ask(kept)[2] == "first"
            assert reload.post("http://admin/reload?version=second&wait_seconds=100").json()["serves"] == "second"
            wait_for(lambda: (told := ask(kept))[2] == "first" and b"connection: close" in told[1], "it is told")
            assert kept.recv(1) == b""
        with trust.wrap_socket(connect(server), server_hostname=server.address[0]) as new:
            assert ask(new)[2] == "second"
        reload.close()
    finally:
        assert server.stop() == 0


def policies(pid: int) -> set[int]:
    """Scheduling policies of a process's threads (sched(7)), as the kernel has them."""
    return {os.sched_getscheduler(thread.id) for thread in psutil.Process(pid).threads()}


def test_who_gets_ready_steps_back_and_who_serves_does_not(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second")
    seen: set[int] = set()
    # Whatever starts a thread is switched on.
    beside = {"record_directory": tmp_path / "records", "record_ratio": 1, "trace_ratio": 1, "threads": 2}
    beside |= {"trace_url": "http://127.0.0.1:9/v1", "coalesce": True, "patience_seconds": 60}
    with serving(store.root, **HOW, **beside) as running:
        (before,) = workers_of(running)
        assert model_of(running) == "first"
        assert policies(before) == {os.SCHED_OTHER}
        store.activate("second")

        def is_served() -> bool:
            for pid in set(workers_of(running)) - {before}:
                try:
                    seen.update(policies(pid))
                except (psutil.NoSuchProcess, ProcessLookupError):
                    continue
            return model_of(running) == "second"

        wait_for(is_served, "it is served", 120)
        assert seen == {os.SCHED_OTHER, os.SCHED_IDLE}
        wait_for(lambda: before not in workers_of(running), "who served before has gone", 120)
        (serves,) = workers_of(running)
        many = {"candidates": [{"ad": "a1"}] * 9000}  # by a thread
        assert httpx.post(f"{running.url}/score", json=many).status_code == 200
        assert len(psutil.Process(serves).threads()) >= 6  # of which two record and trace
        assert policies(serves) == {os.SCHED_OTHER}  # all of its threads
        assert os.getsid(serves) == os.getsid(running.process.pid)
        assert os.getpgid(serves) != os.getpgid(running.process.pid)  # Ctrl-C is for the supervisor
        assert httpx.get(f"{running.url}/readyz").status_code == 200
    if "reload_hurried" in str(running.log):
        pytest.skip(
            "the machine left nothing to a process that steps back for 60 s, so that one was started that does not"
        )


def test_who_sends_for_long_holds_up_no_further_change(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second")
    # Far longer than is waited here for the way back.
    patient = {"idle_seconds": 100, "shutdown_seconds": 100, "body_seconds": 300}
    with serving(store.root, **HOW, **patient) as running, connect(running) as half:
        half.sendall(REQUEST[:-7])
        time.sleep(0.2)  # it has come in
        store.activate("second")
        wait_for(lambda: model_of(running) == "second", "second is served", 120)
        assert len(workers_of(running)) == 2  # one has a request on its way
        store.activate("first")
        wait_for(lambda: model_of(running) == "first", "first is served again", 60)


def test_a_process_that_is_killed_while_it_gets_ready_is_started_once_more(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second")
    with serving(store.root, **HOW) as running:
        before = set(workers_of(running))
        store.activate("second")
        wait_for(lambda: bool(set(workers_of(running)) - before), "it is started", 120)
        for pid in set(workers_of(running)) - before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: model_of(running) == "second", "it is served all the same", 120)
    assert [line["event"] for line in running.log if line["event"] in ("reload_retried", "reload_refused")] == [
        "reload_retried"
    ]


def test_a_worker_looks_for_modules_no_further_than_its_supervisor() -> None:
    def flags(*words: str) -> list[str]:
        """Those of an interpreter that is started as a worker of one with these."""
        code = "from service.workers.boot import boot_command; print(boot_command(low=True)[1:-3])"
        said = subprocess.run(
            [sys.executable, *words, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return json.loads(said.stdout.replace("'", '"'))  # type: ignore[no-any-return]

    assert flags() == ["-S", "-P"]
    assert flags("-E", "-s") == ["-S", "-P", "-E", "-s"]


class Idle:
    """A connection as a giver sees it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.gone = False

    def pass_on(self, give: Callable[[int], bool]) -> bool:
        if not self.gone:
            self.gone = give(self.descriptor)
            return self.gone
        return False


def test_what_finds_no_room_in_the_queue_is_kept_until_there_is_some() -> None:
    passage = open_passage()
    assert passage != NO_PASSAGE
    giver, taker = Giver(passage.giver), socket.socket(fileno=passage.taker)
    ours, theirs = socket.socketpair()
    connections = [Idle(theirs.fileno()) for _ in range(2000)]
    while giver.step(connections):
        pass
    waiting = [connection for connection in connections if not connection.gone]
    assert 0 < len(waiting) < len(connections)
    given = len(connections) - len(waiting)
    for number in range(given):
        _, (descriptor,), _, _ = socket.recv_fds(taker, 1, 1)
        with socket.socket(fileno=descriptor) as connection:
            connection.sendall(b"%d." % number)  # whichever process has it: it is that connection
        assert ours.recv(16) == b"%d." % number
    with pytest.raises(BlockingIOError):
        taker.recv(1)
    assert giver.step(connections)
    assert len([connection for connection in connections if not connection.gone]) < len(waiting)
    for end in (ours, theirs, taker, giver):
        end.close()
    os.close(passage.giver)
