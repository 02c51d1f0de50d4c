"""The load tool against real servers: stalls, failures, and what a closed loop would have missed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from service.bench import Body, LoadResult, Target, TargetError, network, parse_target, run_load
from service.bench.arrivals import poisson_arrivals
from service.bench.probe import probe
from service.workers import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
BODY = Body(b'{"candidates":[{},{}]}', candidates=2)
STALL = 0.3
OPTIONS = [
    "--loop",
    "uvloop",
    "--http",
    "httptools",
    "--log-level",
    "error",
    "--no-access-log",
    "--lifespan",
    "off",
]


def restart(target: Target) -> None:
    """Wait until the server listens; what it stalls for is counted from the next request."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(httpx.ConnectError):
            httpx.post(target.url.replace("/score", "/restart"), timeout=30).raise_for_status()
            return
        time.sleep(0.05)
    pytest.fail("the server does not listen")


@contextlib.contextmanager
def stalling_server(stalls: str = "", *options: str) -> Iterator[tuple[Target, subprocess.Popen[bytes]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "stalling_app:app", "--port", str(port), *OPTIONS, *options],
        cwd=HERE,
        env=os.environ | {"STALLS": stalls},
    )
    try:
        target = Target("127.0.0.1", port)
        restart(target)
        yield target, process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(10)


def assert_stall_was_seen(result: LoadResult, times: int) -> None:
    """Lower bounds alone: other work on the machine makes stalls longer, and adds some of its own."""
    assert result.latency.max > 0.9 * STALL
    assert result.latency.p999 > 0.8 * STALL
    long = [stall for stall in result.stalls if stall.seconds > 0.9 * STALL]
    assert len(long) >= times
    assert all(stall.waiting >= 0.3 * STALL * result.rate for stall in long)


def test_an_injected_stall_shows_in_the_tail_and_is_flagged_and_a_closed_loop_would_have_missed_it() -> None:
    with stalling_server(f"0.6:{STALL},1.7:{STALL}") as (target, _):
        result = run_load(target, [BODY], 150, 3, warm_up=0.2)
    assert_stall_was_seen(result, 2)
    assert result.errors == {}
    # The same server, one request after the other: one of them a stall is slow, however many it held up.
    with stalling_server(f"0.6:{STALL},1.7:{STALL}") as (target, _):
        took, end = [], time.monotonic() + 3
        with socket.create_connection((target.host, target.port)) as connection:
            while time.monotonic() < end:
                begin = time.perf_counter()
                connection.sendall(target.request(BODY.content, BODY.content_type))
                answer = b""
                while not answer.endswith(b"}"):
                    answer += connection.recv(65_536)
                took.append(time.perf_counter() - begin)
    slow = np.array(took) > 0.5 * STALL
    open_loop = result.records.ended - result.records.due > 0.5 * STALL * 1e9
    # each stall of 0.3 s holds up half of the arrivals of 0.3 s by more than half of it
    assert open_loop.mean() > 0.8 * (2 * 0.5 * STALL / 3)
    assert open_loop.sum() > 5 * slow.sum()


def test_a_server_that_is_stopped_from_outside_is_flagged_with_the_time_of_the_stop() -> None:
    with stalling_server() as (target, process):
        moments: list[int] = []

        def stop() -> None:
            time.sleep(1.5)
            process.send_signal(signal.SIGSTOP)
            moments.append(time.perf_counter_ns())
            time.sleep(STALL)
            moments.append(time.perf_counter_ns())
            process.send_signal(signal.SIGCONT)

        stopper = threading.Thread(target=stop)
        stopper.start()
        result = run_load(target, [BODY], 150, 3, warm_up=0.2)
        stopper.join()
    assert_stall_was_seen(result, 1)
    first, last = ((moment - result.records.began_ns) / 1e9 for moment in moments)
    # Half of it at least: what the generator itself stood still on a busy machine is taken off a stall.
    assert any(
        min(stall.start + stall.seconds, last) - max(stall.start, first) > 0.5 * STALL for stall in result.stalls
    )


def test_a_server_that_dies_in_the_middle_gives_resets_and_no_fast_successes() -> None:
    with stalling_server() as (target, process):
        threading.Timer(0.7, process.kill).start()
        result = run_load(target, [BODY], 200, 2, warm_up=0.0)
    assert result.answered < 0.8 * result.requests
    assert result.errors.keys() <= {"reset", "timeout"}
    assert result.answered + sum(result.errors.values()) == result.requests
    assert result.histogram.count == result.answered


def test_every_byte_that_the_server_gets_is_the_request_and_arrivals_keep_their_order_on_one_connection() -> None:
    received: list[bytes] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                data = b""
                while chunk := connection.recv(1 << 16):
                    data += chunk
                    while b"\r\n\r\n" in data:
                        head, _, rest = data.partition(b"\r\n\r\n")
                        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                        if len(rest) < length:
                            break
                        received.append(rest[:length])
                        data = rest[length:]
                        # in pieces, the second one chunked
                        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{")
                        connection.sendall(b"}\r\n0\r\n\r\n")

        server = threading.Thread(target=serve)
        server.start()
        bodies = [Body(bytes([65 + n]) * (1 + n * 400_000)) for n in range(4)]  # more than a socket takes at once
        target = Target("127.0.0.1", listener.getsockname()[1])
        result = run_load(target, bodies, 40, 1, warm_up=0.0, connections=1)
        server.join(10)
    assert result.errors == {}
    assert received == [bodies[n % 4].content for n in range(result.requests)]


@pytest.mark.parametrize(("poller", "spins"), [("_Epoll", False), ("_Selector", True)])
def test_every_poller_sends_everything_spinning_or_not_and_idle_connections_may_be_closed_by_the_server(
    monkeypatch: pytest.MonkeyPatch, poller: str, *, spins: bool
) -> None:
    monkeypatch.setattr("service.bench.network._Epoll", getattr(network, poller))
    # a seed with a gap in which the connection is closed, and none that ends near the moment of the closing
    gaps = ((seed, np.diff(poisson_arrivals(2, 3, seed)) / 1e9) for seed in range(1000))
    seed = next(seed for seed, gap in gaps if gap.max(initial=0) > 1.5 and not ((gap > 0.6) & (gap < 1.5)).any())
    with stalling_server("", "--timeout-keep-alive", "1") as (target, _):
        result = run_load(target, [BODY], 60, 0.5, warm_up=0.0, spins=spins)
        time.sleep(0.1)
        rare = run_load(target, [BODY], 2, 3, warm_up=0.0, spins=spins, warm_connections=1, seed=seed)
    assert result.errors == {}
    assert result.answered == result.requests > 0
    assert rare.connections > 1
    assert rare.errors == {}


@pytest.mark.parametrize(
    ("affinity", "quota", "spins"),
    [(1, None, False), (2, None, True), (8, 1.5, False), (8, 2.0, True), (1, 4.0, False)],
)
def test_it_spins_by_itself_only_where_affinity_and_quota_give_it_two_cpus(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float | None, *, spins: bool
) -> None:
    host = machine.Machine(affinity, None if quota is None else machine.Limit(quota, "cpu.max"))
    monkeypatch.setattr(machine.Machine, "read", lambda: host)
    for asked, expected in ((None, spins), (True, True), (False, False)):
        found = network.Machine(Target("127.0.0.1", 80), spins=asked)
        found.close()
        assert found.spins is expected


def test_an_address_at_which_nobody_listens_is_told_before_any_load() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = Target("127.0.0.1", unused.getsockname()[1])
        with pytest.raises(TargetError, match=rf"{target.url}: expected a server that listens, got: .*refused"):
            probe(target, [BODY])


def test_a_short_answer_is_no_success() -> None:
    with stalling_server() as (target, _):
        assert len(probe(target, [BODY])) == 1
        with pytest.raises(TargetError, match="expected 3 scores, got 2"):
            probe(target, [Body(BODY.content, candidates=3)])


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("http://a:81/x?y=1", Target("a", 81, "/x?y=1")),
        ("http://a", Target("a", 80, "/score")),
        ("127.0.0.1:9", Target("127.0.0.1", 9, "/score")),
        ("http://[::1]:8080/", Target("::1", 8080, "/score")),
    ],
)
def test_a_url_is_read_as_it_is_meant(url: str, parsed: Target) -> None:
    assert parse_target(url) == parsed


@pytest.mark.parametrize("url", ["https://a", "ftp://a", "http://", "http://a:99999"])
def test_a_url_that_is_not_plain_http_is_refused(url: str) -> None:
    with pytest.raises(TargetError, match="expected"):
        parse_target(url)
