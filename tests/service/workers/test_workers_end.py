"""Workers that end, asked or not: what clients notice of it, and what the supervisor does about it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from processes import GOOD, ask_until_told, count_all, is_alive, scored, wait_for, workers_of
from serving import MODEL_ID, ROOT, Server, build_bundle, environment, parse_log, serving, start

from service.counts.model_counts import _REQUESTS_QUEUED

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="one worker only")

CLIENTS = 6
BODY = json.dumps(GOOD).encode()
HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)


def test_a_killed_worker_loses_what_it_had_in_flight_and_nothing_else(bundle: Path) -> None:
    stop: list[bool] = []
    with serving(bundle, workers=3) as running, ThreadPoolExecutor(CLIENTS) as clients, contextlib.ExitStack() as end:
        end.callback(stop.append, True)
        asked = [clients.submit(ask_until_told, running, stop, keep=client % 2 == 0) for client in range(CLIENTS)]
        before = workers_of(running)
        wait_for(lambda: scored(count_all(running)) > 200, "requests are scored")
        spent = sum(psutil.Process(before[1]).cpu_times()[:2])
        assert spent > 0.2  # it has imported a lot
        os.kill(before[1], signal.SIGKILL)
        wait_for(lambda: count_all(running)["reaction_worker_restarts_total"] == 1, "the loss is noticed")
        wait_for(lambda: count_all(running)['reaction_workers{state="ready"}'] == 3, "it is replaced")
        assert httpx.get(f"{running.url}/readyz").status_code == 200
        time.sleep(0.3)
        stop.append(True)
        good, lost = (sum(numbers) for numbers in zip(*(future.result() for future in asked), strict=True))
        assert lost <= CLIENTS  # each client had one request in flight
        time.sleep(1.0)  # what idle workers have queued
        counts = count_all(running)
        # What the killed one had counted is still there, apart from answers that it was killed right after.
        assert good - CLIENTS <= scored(counts) <= good + lost
        # Stages, candidates and features are counted in batches: the killed one took its last batch with it.
        candidates = counts[f'reaction_candidates_total{{model="{MODEL_ID}"}}']
        assert 3 * (good - _REQUESTS_QUEUED) <= candidates <= 3 * scored(counts)
        after = workers_of(running)
        alive = sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in (running.process.pid, *after))
        assert count_all(running)["process_cpu_seconds_total"] > alive + spent - 0.1
        assert len(after) == 3
        assert len({*after, *before}) == 4
    (told,) = [line for line in running.log if line["event"] == "worker_lost"]
    assert (told["process"], told["exit_status"], told["restart_seconds"]) == (before[1], -signal.SIGKILL, 0.0)
    assert [line["late"] for line in running.log if line["event"] == "starting"] == [False] * 3 + [True]
    assert running.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_after_what_they_have_in_flight(bundle: Path, number: signal.Signals) -> None:
    running = start(bundle, workers=2)
    pids = workers_of(running)
    connections = [socket.create_connection(running.address, timeout=10) for _ in range(8)]
    for connection in connections:
        connection.sendall(HEAD + BODY[:10])
    time.sleep(0.4)  # the workers have begun to read
    running.process.send_signal(number)
    time.sleep(0.4)
    assert all(is_alive(pid) for pid in pids)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(running.address, timeout=10)
    for connection in connections:
        with connection:
            connection.sendall(BODY[10:])
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert running.stop() == 0
    assert not any(is_alive(pid) for pid in pids)
    assert running.log[-1]["event"] == "all_stopped"


def test_workers_end_with_their_supervisor_however_it_ends(bundle: Path) -> None:
    running = start(bundle, workers=2)
    pids = workers_of(running)
    running.process.kill()
    running.process.communicate(timeout=20)
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "the workers have ended")


def test_a_bundle_that_cannot_be_loaded_ends_all_with_status_1(tmp_path: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "service", "--bundle", str(tmp_path / "none"), "--port", "0", "--workers", "2"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 1
    assert "Traceback" not in outcome.stderr
    lines = [json.loads(line) for line in outcome.stderr.splitlines()]
    (*_, failed) = [line for line in lines if line["event"] == "start_failed"]
    assert "expected the directory of a bundle, got nothing" in failed["error"]
    assert lines[-1]["event"] == "all_stopped"


@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGTERM), (2, signal.SIGTERM), (1, signal.SIGINT)])
def test_a_process_ends_although_a_thread_still_scores(tmp_path: Path, workers: int, number: signal.Signals) -> None:
    few = 20
    build_bundle(tmp_path / "bundle", endless_above=few)
    with serving(tmp_path / "bundle", workers=workers, shutdown_seconds=1, inline_body_bytes=0) as running:
        pids = workers_of(running) or [running.process.pid]
        assert httpx.post(f"{running.url}/score", json=GOOD).status_code == 200
        spent = {pid: sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids}

        def busy() -> list[int]:
            return [pid for pid in pids if sum(psutil.Process(pid).cpu_times()[:2]) > spent[pid] + 0.5]

        with socket.create_connection(running.address, timeout=60) as client:
            body = json.dumps({"candidates": [{}] * (few + 1)}).encode()
            client.sendall(HEAD.replace(b"%d" % len(BODY), b"%d" % len(body)) + body)
            wait_for(lambda: bool(busy()), "it is being scored")
            running.process.send_signal(number)
            try:
                _, rest = running.process.communicate(timeout=60)
            finally:
                running.process.kill()
    assert running.process.returncode == 0
    events = [line["event"] for line in parse_log(rest)]
    assert "worker_killed" not in events  # each ends by itself
    assert events.count("stopped") == workers
    assert events.count("scoring_cut_off") == 1


def is_dead_and_not_yet_noticed(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_worker_that_died_just_before_the_signal_to_stop_does_not_disturb_the_stop(bundle: Path) -> None:
    running = start(bundle, workers=2)
    killed, other = workers_of(running)
    running.process.send_signal(signal.SIGSTOP)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: is_dead_and_not_yet_noticed(killed), "the worker is dead")
    running.process.terminate()  # pending until it goes on: then it learns of both at once
    running.process.send_signal(signal.SIGCONT)
    assert running.stop() == 0
    assert not is_alive(other)
    assert running.log[-1]["event"] == "all_stopped"


def stopped_over_failed_workers(bundle: Path) -> Server:
    """A supervisor that stands still while both of its workers have failed, so that it learns of both at once."""
    for _ in range(20):
        running = start(bundle, wait=False, workers=2)
        wait_for(lambda: len(workers_of(running)) == 2, "both are started")  # noqa: B023 - called at once
        running.process.send_signal(signal.SIGSTOP)
        both = workers_of(running)
        with contextlib.suppress(pytest.fail.Exception):  # too early: one waits to be told what to serve
            wait_for(lambda: all(map(is_dead_and_not_yet_noticed, both)), "both have failed", seconds=5)  # noqa: B023
            return running
        running.process.kill()
        running.process.communicate()
    raise AssertionError("expected both workers to have been told, got one that waits, twenty times")


def test_workers_that_all_failed_at_their_start_are_noticed_at_once_without_a_traceback(tmp_path: Path) -> None:
    running = stopped_over_failed_workers(tmp_path / "none")
    running.process.send_signal(signal.SIGCONT)
    _, rest = running.process.communicate(timeout=30)
    assert running.process.returncode == 1
    assert parse_log(rest)[-1]["event"] == "all_stopped"


def test_a_worker_that_cannot_be_replaced_leaves_the_others_serving_until_it_can(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    build_bundle(bundle)
    with serving(bundle, workers=2) as running:
        bundle.rename(tmp_path / "away")
        os.kill(workers_of(running)[0], signal.SIGKILL)
        wait_for(lambda: count_all(running)["reaction_worker_restarts_total"] >= 2, "a replacement has failed")
        for _ in range(5):
            assert httpx.post(f"{running.url}/score", json=GOOD).status_code == 200
            assert httpx.get(f"{running.url}/readyz").status_code == 200
        (tmp_path / "away").rename(bundle)
        wait_for(lambda: count_all(running)['reaction_workers{state="ready"}'] == 2, "it is replaced")
    waits = [line["restart_seconds"] for line in running.log if line["event"] == "worker_lost"]
    assert waits[:2] == [0.0, 0.5]
    assert waits == sorted(waits)
    assert running.process.returncode == 0


def test_a_bundle_that_was_replaced_on_disk_is_not_served_beside_the_one_the_others_serve(tmp_path: Path) -> None:
    bundle, other = tmp_path / "bundle", tmp_path / "other"
    build_bundle(bundle)
    build_bundle(other, model_id="tiny-2")
    with serving(bundle, workers=2) as running:
        bundle.rename(tmp_path / "away")
        other.rename(bundle)
        os.kill(workers_of(running)[0], signal.SIGKILL)
        wait_for(lambda: count_all(running)["reaction_worker_restarts_total"] >= 2, "a replacement has refused it")
        for _ in range(20):
            assert httpx.post(f"{running.url}/score", json=GOOD).json()["model"] == MODEL_ID
            assert httpx.get(f"{running.url}/readyz").status_code == 200
        bundle.rename(other)
        (tmp_path / "away").rename(bundle)
        wait_for(lambda: count_all(running)['reaction_workers{state="ready"}'] == 2, "it is replaced")
    told = [line["error"] for line in running.log if line["event"] == "start_failed"]
    assert any("the bundle changed on disk; restart the service to serve it" in error for error in told)
    assert {line["model"] for line in running.log if line["event"] == "ready"} == {MODEL_ID}
    assert running.process.returncode == 0


def test_a_worker_that_does_not_end_in_time_is_killed(bundle: Path) -> None:
    running = start(bundle, workers=2, shutdown_seconds=1)
    stuck = workers_of(running)[0]
    os.kill(stuck, signal.SIGSTOP)
    ended = threading.Timer(0.0, running.stop)
    ended.start()
    ended.join(30)
    assert not is_alive(stuck)
    assert ("worker_killed", stuck) in [(line["event"], line.get("process")) for line in running.log]
