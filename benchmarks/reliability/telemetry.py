"""What telemetry costs: a service with everything that is on by default beside one that counts and logs nothing.

One worker on one core, wrk on another keeps it busy; the services take turns, in an order drawn anew each round, so
that what else the machine does falls on all alike. Each that counts is scraped once a round.

Then one process in turns with itself, telemetry on for a moment and off for the next (`alternating`): where the memory
of two processes comes to lie makes more of a difference than telemetry, and takes many processes to average out.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.serving.cells import Closed, run_pinned
from benchmarks.serving.client import exchange
from benchmarks.serving.contestants import ROOT
from benchmarks.serving.model import write_bundles
from benchmarks.serving.payloads import JSON, http_post, random_batches, ranking_rows, to_json, write_requests
from benchmarks.serving.processes import LOAD_CORE, TICK_SECONDS, Running, free_ports, ticks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["WAYS", "Round", "alternated", "compared", "telemetry_figures"]

UNTOLD: Final = "untold"
TOLD: Final = "told"
WAYS: Final[dict[str, Mapping[str, object]]] = {
    UNTOLD: {},
    TOLD: {},
    "recorded": {"RECORD_DIRECTORY": "recorded", "RECORD_RATIO": 0.01},
}
"""Settings of each service beside the defaults; the first is run by `untold`."""

WORKLOADS: Final = {1: 8, 100: 4}
"""Connections by candidates a request."""

ALTERNATING: Final = "alternating"
_MOMENTS_LEFT_OUT: Final = 8  # until all is warm
_BODIES: Final = 64
_BLOCKS: Final = 10
_READY_SECONDS: Final = 60.0
_RESAMPLES: Final = 2000
_SCRAPE: Final = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Round:
    """One service under load for a while.

    Attributes:
        rate: Requests a second.
        cpu_seconds: Of the service, a request.
    """

    rate: float
    cpu_seconds: float


@contextlib.contextmanager
def _server(way: str, place: Path, port: int) -> Iterator[Running]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REACTION_")}
    given = {"BUNDLE": place / "bundle", "PORT": port, "WORKERS": 1, "DRAIN_SECONDS": 0, **WAYS.get(way, {})}
    environment = clean | {f"REACTION_{name}": str(value) for name, value in given.items()}
    environment["PYTHONPATH"] = str(ROOT)
    modules = {UNTOLD: ["benchmarks.reliability.untold"]}
    modules[ALTERNATING] = ["benchmarks.reliability.alternating", str(place / "moments.json")]
    server = Running([sys.executable, "-m", *modules.get(way, ["service"])], environment, place / f"{way}.log")
    try:
        end = time.monotonic() + _READY_SECONDS
        while b'"ready"' not in server.log.read_bytes():
            if time.monotonic() > end or server.exit_status is not None:
                raise TimeoutError(f"{way}: expected a server that is ready, got {server.log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield server
    finally:
        server.stop()


def telemetry_figures(*, rounds: int, seconds: float, workloads: Sequence[int] = tuple(WORKLOADS)) -> dict[str, float]:
    """Measure.

    Args:
        rounds: How often each service has its turn.
        seconds: Of a turn.
        workloads: Candidates a request.

    Returns:
        Figures by key.

    Raises:
        LoadError: wrk failed, or is not installed.
        TimeoutError: A server does not become ready.
    """
    generator = np.random.default_rng(1)
    blocks = min(_BLOCKS, rounds)
    found: dict[str, float] = {"telemetry_rounds": blocks * (rounds // blocks), "telemetry_round_seconds": seconds}
    seen: dict[int, dict[str, list[Round]]] = {number: {way: [] for way in WAYS} for number in workloads}
    with tempfile.TemporaryDirectory(prefix="telemetry-") as folder:
        place = Path(folder)
        write_bundles(place)
        for candidates in workloads:
            batches = random_batches(candidates, _BODIES, shared=True)
            requests = [http_post("/score", JSON, to_json(ranking_rows(rows))) for rows in batches]
            write_requests(place / f"{candidates}.requests", requests)
        for _ in range(blocks):
            _block(place, seen, rounds // blocks, seconds, generator)
        for candidates in workloads:
            moments = _moments(place, candidates, rounds * seconds)
            found |= alternated(moments, candidates, generator)
    for candidates, rounds_of in seen.items():
        found |= compared(rounds_of, candidates, generator)
    return found


def _block(
    place: Path,
    seen: Mapping[int, Mapping[str, list[Round]]],
    rounds: int,
    seconds: float,
    generator: np.random.Generator,
) -> None:
    """Some rounds with processes of their own: where one's memory comes to lie costs or saves it a percent or two."""
    first = free_ports(len(WAYS))
    ports = {way: first + number for number, way in enumerate(WAYS)}
    with contextlib.ExitStack() as stack:
        servers = {way: stack.enter_context(_server(way, place, port)) for way, port in ports.items()}
        for candidates, found in seen.items():
            file = place / f"{candidates}.requests"
            for way in WAYS:  # to warm up
                _turn(servers[way], ports[way], file, candidates, 1.0)
            for _ in range(rounds):
                for way in generator.permutation(list(WAYS)).tolist():
                    found[way].append(_turn(servers[way], ports[way], file, candidates, seconds))


def _moments(place: Path, candidates: int, seconds: float) -> list[tuple[bool, int, float, float]]:
    """Moments of a service that alternates, in order: telemetry on, answers, seconds, CPU seconds."""
    port = free_ports(1)
    with _server(ALTERNATING, place, port) as server:
        _turn(server, port, place / f"{candidates}.requests", candidates, seconds)
    return [(on, *more) for on, *more in json.loads((place / "moments.json").read_bytes())][_MOMENTS_LEFT_OUT:]


def alternated(
    moments: Sequence[tuple[bool, int, float, float]], candidates: int, generator: np.random.Generator
) -> dict[str, float]:
    """Share of throughput that telemetry costs, each moment with it beside those before and after.

    Args:
        moments: As of `_moments`.
        candidates: A request.
        generator: Draws the moments for intervals.
    """
    end = "" if candidates == 1 else f"_{candidates}"
    each = np.array([seconds / answers for _, answers, seconds, _ in moments])
    inner = np.array([n for n in range(1, len(moments) - 1) if moments[n][0]])
    costs = 1 - (each[inner - 1] + each[inner + 1]) / 2 / each[inner]
    low, high = np.percentile(_medians(costs, generator), (2.5, 97.5))
    key = f"telemetry_alternating_cost_ratio{end}"
    figures = {key: np.median(costs), f"{key}_low": low, f"{key}_high": high}
    return {name: round(float(value), 4) for name, value in figures.items()}


def _turn(server: Running, port: int, requests: Path, candidates: int, seconds: float) -> Round:
    load = Closed(f"http://127.0.0.1:{port}", requests, candidates, WORKLOADS[candidates], seconds)
    pids = server.pids()
    before = ticks(pids)
    exchange(port, _SCRAPE)  # one that counts nothing answers little: a scrape is part of what telemetry costs
    result: dict[str, Any] = run_pinned(load.command(), LOAD_CORE, 60.0 + seconds)
    if result["errors"]:
        raise RuntimeError(f"expected answers alone, got {result}")
    spent = (ticks(pids) - before).total * TICK_SECONDS
    return Round(result["requests"] / result["seconds"], spent / result["requests"])


def compared(seen: Mapping[str, Sequence[Round]], candidates: int, generator: np.random.Generator) -> dict[str, float]:
    """Share of throughput that each way costs, by the rounds' medians, with an interval from resampled rounds."""
    end = "" if candidates == 1 else f"_{candidates}"
    found: dict[str, float] = {}
    rates = {way: np.array([one.rate for one in rounds]) for way, rounds in seen.items()}
    spent = {way: np.array([one.cpu_seconds for one in rounds]) for way, rounds in seen.items()}
    found[f"telemetry_requests_per_second{end}"] = round(float(np.median(rates[UNTOLD])))
    for way, name in ((TOLD, "telemetry"), ("recorded", "telemetry_recording")):
        costs = 1 - rates[way] / rates[UNTOLD]  # of one round: what disturbed it disturbed both
        found[f"{name}_cost_ratio{end}"] = round(float(np.median(costs)), 4)
        low, high = np.percentile(_medians(costs, generator), (2.5, 97.5))
        found[f"{name}_cost_ratio{end}_low"], found[f"{name}_cost_ratio{end}_high"] = round(low, 4), round(high, 4)
        found[f"{name}_cpu_ratio{end}"] = round(float(np.median(spent[way] / spent[UNTOLD])) - 1, 4)
    return found


def _medians(values: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    picked = generator.integers(len(values), size=(_RESAMPLES, len(values)))
    medians: NDArray[np.float64] = np.median(values[picked], axis=1)
    return medians
