"""Everything at once, for long: mixed load, spoilt requests, slow clients, swaps of the version, and workers killed.

Every answer is compared with the scores that its request has under the version it names. A request may fail only if a
worker was killed between its being sent and its failing. In the first part nobody is killed and nothing swapped, so
that the same processes live through it and a leak of theirs would show.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.reliability.fuzz.grammar import spoilt
from benchmarks.reliability.fuzz.requests import Client
from benchmarks.reliability.services import VERSIONS, get, make_store, service
from benchmarks.reliability.steady import FORMS, clients

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.reliability.services import Service
    from benchmarks.reliability.steady import Seen

__all__ = ["soak_figures"]

_CANDIDATES: Final = (1, 20, 200, 1000)
_CALM_SHARE: Final = 0.4  # of the time: nobody is killed, nothing swapped
_HEAD_SECONDS: Final = 1.0
_SLOW_GRACE_SECONDS: Final = 3.0
_FAULT: Final = 500
_OK: Final = 200
_RECOVERY_SECONDS: Final = 60.0
_MOST: Final = 10
_REQUESTS: Final = 'reaction_requests_total{route="/score"'


@dataclass(slots=True)
class _Outcomes:
    """What the parts of a soak count.

    Attributes:
        kills: For each kill, when it was sent and when the process had gone (`perf_counter`, seconds).
        swaps: Changes of version that were done.
        swaps_undone: Those that were not.
        spoilt: Spoilt requests answered.
        faults: Of these, answers with a status of 500 or more, and connections that ended with none.
        fault_spans: When those without an answer were sent and had failed.
        fault_whys: And how.
        slow: Slow clients cut off.
        slow_left: Slow clients that were not, long past their deadline.
        probes: Answers of `/metrics` and `/livez`.
        probe_spans: When those without a good answer were sent and had failed.
        probe_whys: And how.
        ok: Answers with scores, to spoilt requests that were good enough.
    """

    kills: list[tuple[float, float]] = field(default_factory=list)
    swaps: int = 0
    swaps_undone: list[str] = field(default_factory=list)
    spoilt: int = 0
    faults: list[str] = field(default_factory=list)
    fault_spans: list[tuple[float, float]] = field(default_factory=list)
    fault_whys: list[str] = field(default_factory=list)
    slow: int = 0
    slow_left: int = 0
    probes: int = 0
    probe_spans: list[tuple[float, float]] = field(default_factory=list)
    probe_whys: list[str] = field(default_factory=list)
    ok: int = 0


def soak_figures(
    *, seconds: float, rate: float, workers: int = 2, swap_seconds: float = 10.0, kill_seconds: float = 15.0
) -> tuple[dict[str, float], list[str]]:
    """Soak a service of its own.

    Args:
        seconds: For how long.
        rate: Requests a second with answers to check; of 1, 20, 200 and 1000 candidates, in every form of a body.
        workers: Processes that serve.
        swap_seconds: From one change of version to the next.
        kill_seconds: From one worker killed to the next.

    Returns:
        Figures by key, and what was not as it has to be, at most a few of a kind.
    """
    outcomes, end, calm_end = _Outcomes(), threading.Event(), threading.Event()
    memory: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        place = Path(folder)
        store, bodies = make_store(place, candidates=_CANDIDATES)
        how: dict[str, Any] = {
            "workers": workers,
            "watch_seconds": 0,
            "idle_seconds": 1,
            "drain_seconds": 0,
            "head_seconds": _HEAD_SECONDS,
            "body_seconds": _HEAD_SECONDS,
            "feedback_secret": "s" * 16,
            "feedback_ratio": 0.1,
            "request_log_ratio": 0.01,
            "record_directory": place / "records",
            "record_ratio": 0.05,
            "trace_url": "http://127.0.0.1:9/v1/traces",  # where nobody listens
            "trace_ratio": 0.01,
        }
        with (
            service(store.root, place, **how) as running,
            clients(("127.0.0.1", running.port), bodies, rate=rate, connections=8, forms=FORMS) as seen,
            clients(("127.0.0.1", running.port), bodies, rate=rate / 5, connections=8, anew=True) as early,
        ):
            parts: list[Callable[[], None]] = [
                lambda: _spoil(running.port, outcomes, end),
                lambda: _be_slow(running.port, outcomes, end),
                lambda: _probe(running.port, outcomes, end),
                lambda: _swap(running, outcomes, end, calm_end, swap_seconds),
                lambda: _kill(running, outcomes, end, calm_end, kill_seconds, workers),
            ]
            threads = [threading.Thread(target=part, daemon=True) for part in parts]
            for thread in threads:
                thread.start()
            descriptors_before = running.descriptors()
            begin = time.perf_counter()
            while (now := time.perf_counter() - begin) < seconds:
                if now >= _CALM_SHARE * seconds:
                    calm_end.set()
                time.sleep(min(1.0, seconds / 60))
                with contextlib.suppress(OSError, KeyError):
                    memory.append((now / seconds, running.memory_bytes()))
            end.set()
            calm_end.set()
            for thread in threads:
                thread.join()
            _recovered(running, workers)
            descriptors_after = running.descriptors()
            answered = len(seen.seconds) + len(early.seconds) + outcomes.ok
            counted = _counted(running)
        seen.add(early)
        alive = running.process.returncode == 0
    figures = _figures(seen, outcomes, memory, seconds) | {
        # Of the supervisor, with as many processes as at the start: each that comes or goes has some.
        "soak_descriptor_growth": descriptors_after - descriptors_before,
        "soak_uncounted_answers": max(0, answered - counted),
        "soak_ended_badly": int(not alive),
    }
    lost = [
        f"{what} at {begin:.3f}, failed at {end_of_it:.3f}: {why}; kills {outcomes.kills}"
        for what, spans, whys in (
            ("asked", seen.failed_spans, seen.failed),
            ("spoilt", outcomes.fault_spans, outcomes.fault_whys),
            ("probed", outcomes.probe_spans, outcomes.probe_whys),
        )
        for (begin, end_of_it), why in zip(spans, whys, strict=True)
        if not _explained(begin, end_of_it, outcomes.kills)
    ]
    return figures, [*lost[:_MOST], *outcomes.faults[:_MOST], *outcomes.swaps_undone[:_MOST], *seen.mixed[:_MOST]]


def _spoil(port: int, outcomes: _Outcomes, end: threading.Event) -> None:
    client, seed = Client(port), 0
    while not end.wait(0.01):
        seed += 1
        sent, begin = spoilt(seed), time.perf_counter()
        try:
            status, _, body = client.ask(sent)
        except (OSError, http.client.HTTPException) as error:
            outcomes.fault_spans.append((begin, time.perf_counter()))
            outcomes.fault_whys.append(f"seed {seed}: {error!r}")
            continue
        outcomes.spoilt += 1
        outcomes.ok += status == _OK and sent.path == "/score"
        if status >= _FAULT:
            outcomes.faults.append(f"seed {seed}: {status} {body[:200]!r}")
    client.close()


def _be_slow(port: int, outcomes: _Outcomes, end: threading.Event) -> None:
    """Clients that stop in the middle of a head, and of a body."""
    pieces = (
        b"POST /score HTTP/1.1\r\nhost: a\r\nx: ",
        b'POST /score HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"candi',
    )
    number = 0
    while not end.wait(0.05):
        number += 1
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(pieces[number % len(pieces)])
            connection.settimeout(_HEAD_SECONDS + _SLOW_GRACE_SECONDS)
            try:
                while connection.recv(1 << 12):
                    pass
                outcomes.slow += 1
            except TimeoutError:
                outcomes.slow_left += 1


def _probe(port: int, outcomes: _Outcomes, end: threading.Event) -> None:
    while not end.wait(0.5):
        for path in ("/metrics", "/livez", "/model"):
            begin, (status, text) = time.perf_counter(), get(port, path)
            outcomes.probes += 1
            if status != _OK:
                outcomes.probe_whys.append(f"{path}: {status} {text[:200]}")
                outcomes.probe_spans.append((begin, time.perf_counter()))


def _swap(running: Service, outcomes: _Outcomes, end: threading.Event, calm_end: threading.Event, every: float) -> None:
    calm_end.wait()
    while not end.wait(every):
        name = VERSIONS[(outcomes.swaps + 1) % len(VERSIONS)]
        status, found = running.ask("POST", f"/reload?version={name}&wait_seconds=120")
        if status == _OK and found["serves"] == name:
            outcomes.swaps += 1
        else:
            outcomes.swaps_undone.append(f"{name}: {status} {found}")


def _kill(  # noqa: PLR0917 - called once, above
    running: Service,
    outcomes: _Outcomes,
    end: threading.Event,
    calm_end: threading.Event,
    every: float,
    workers: int,
) -> None:
    calm_end.wait()
    draw = random.Random(1)  # noqa: S311
    while not end.wait(every):
        serving = running.workers()
        if len(serving) < workers:
            continue  # the one before is not replaced yet: with nobody left, more than what is in flight would fail
        begin, victim = time.perf_counter(), draw.choice(serving)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            # Its sockets are open until its last thread has gone; then the supervisor takes note of its end.
            while Path(f"/proc/{victim}").exists():
                time.sleep(0.0005)
            outcomes.kills.append((begin, time.perf_counter()))


def _recovered(running: Service, workers: int) -> None:
    """Wait until all serve one version again.

    Raises:
        TimeoutError: They do not.
    """
    by = time.monotonic() + _RECOVERY_SECONDS
    while time.monotonic() < by:
        found = running.ask("GET", "/status")[1]["workers"]
        if len(found) == workers and all(worker["ready"] for worker in found):
            return
        time.sleep(0.1)
    raise TimeoutError(f"expected {workers} workers that serve in {_RECOVERY_SECONDS:g} s, got {found}")


def _counted(running: Service) -> int:
    """Answers of `/score` with status 200, as the service counts them."""
    counts = running.metrics().items()
    return int(sum(count for name, count in counts if name.startswith(_REQUESTS) and 'status="200"' in name))


def _explained(begin: float, failed: float, kills: list[tuple[float, float]]) -> bool:
    """Whether what was sent and failed at these times was in flight while a worker was killed."""
    return any(begin <= gone and failed >= kill for kill, gone in kills)


def _figures(seen: Seen, outcomes: _Outcomes, memory: list[tuple[float, int]], seconds: float) -> dict[str, float]:
    def explained(spans: list[tuple[float, float]]) -> int:
        return sum(_explained(begin, failed, outcomes.kills) for begin, failed in spans)

    def lost(spans: list[tuple[float, float]]) -> int:
        return len(spans) - explained(spans)

    def during(first: float, last: float) -> float:
        found = [held for at, held in memory if first <= at < last]
        return float(np.median(found))

    calm = during(0.9 * _CALM_SHARE, _CALM_SHARE) / during(0.3 * _CALM_SHARE, 0.4 * _CALM_SHARE)
    busy = during(0.85, 1.0) / during(_CALM_SHARE + 0.1, _CALM_SHARE + 0.25)
    return {
        "soak_seconds": seconds,
        "soak_requests": len(seen.seconds) + len(seen.failed),
        "soak_candidates_most": max(_CANDIDATES),
        "soak_wrong_answers": len(seen.mixed),
        "soak_in_flight_at_a_kill": explained(seen.failed_spans),
        "soak_lost_answers": lost(seen.failed_spans),
        "soak_kills": len(outcomes.kills),
        "soak_swaps": outcomes.swaps,
        "soak_swaps_undone": len(outcomes.swaps_undone),
        "soak_spoilt": outcomes.spoilt,
        "soak_5xx": len(outcomes.faults) + lost(outcomes.fault_spans),
        "soak_slow_clients": outcomes.slow,
        "soak_slow_clients_left": outcomes.slow_left,
        "soak_probes": outcomes.probes,
        "soak_probes_failed": lost(outcomes.probe_spans),
        "soak_rss_growth_ratio": round(max(calm, busy), 4),
        "soak_rss_growth_ratio_calm": round(calm, 4),
        "soak_p99_ms": round(float(np.percentile(seen.seconds, 99)) * 1e3, 3),
    }
