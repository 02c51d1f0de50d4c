"""Swaps under a steady load: nothing failed, nothing mixed, and what they did to the p99 and to memory.

Spans of a swap and spans without one take turns, so that what else the machine does falls on both alike. So do spans
in which a process that has nothing to do with the service computes as a worker that gets ready does, when nobody else
wants the CPU: what that does to the p99 is the machine's doing, and no way of loading a version can cost less.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.reliability.services import VERSIONS, make_store, service
from benchmarks.reliability.steady import clients

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["p99_interval", "reload_figures"]

_SETTLE_SECONDS: Final = 3.0
# Allocates, as loading does, and lets nobody wait for its lock, as there is nobody.
_STRANGER: Final = """
import numpy as np
from service.workers.boot import run_low
def compute():
    while True:
        (np.arange(1_000_000) * 0.5).sum()
        sum(range(10_000))
run_low(compute)
"""
_STRANGER_SECONDS: Final = 0.4  # until it computes
_P: Final = 99.0
_RESAMPLES: Final = 1000


def reload_figures(
    *,
    swaps: int,
    rate: float,
    steady_seconds: float = 1.5,
    stranger_seconds: float = 0.8,
    workers: int = 1,
    values: int = 1_000_000,
    patience_seconds: float = 10.0,
) -> dict[str, float]:
    """Swap between two versions.

    Args:
        swaps: How often.
        rate: Requests of 20 candidates a second.
        steady_seconds: Between two swaps.
        stranger_seconds: How long a process that is none of the service's computes in between.
        workers: Processes that serve.
        values: Values that one field's vocabulary holds.
        patience_seconds: How long a version is loaded at the lowest priority before it takes its share.

    Returns:
        Figures by key.

    Raises:
        RuntimeError: A swap was not done.
    """
    calm: list[tuple[float, float]] = []
    busy: list[tuple[float, float]] = []
    beside: list[tuple[float, float]] = []
    memory, descriptors = [], []
    with tempfile.TemporaryDirectory(prefix="reload-") as folder:
        place = Path(folder)
        store, bodies = make_store(place, values=values)
        how: dict[str, Any] = {"workers": workers, "watch_seconds": 0, "idle_seconds": 1, "drain_seconds": 0}
        how["patience_seconds"] = patience_seconds
        with (
            service(store.root, place, **how) as running,
            clients(("127.0.0.1", running.port), bodies, rate=rate) as seen,
        ):
            time.sleep(_SETTLE_SECONDS)
            for swap in range(swaps):
                begin = time.perf_counter()
                name = VERSIONS[(swap + 1) % len(VERSIONS)]
                status, found = running.ask("POST", f"/reload?version={name}&wait_seconds=300")
                if status != 200 or found["serves"] != name:  # noqa: PLR2004
                    raise RuntimeError(f"swap {swap}: expected {name} served, got {status} {found}")
                # Until those before have gone: that, too, is the swap.
                while len(running.ask("GET", "/status")[1]["workers"]) > workers:
                    time.sleep(0.05)
                end = time.perf_counter()
                busy.append((begin, end))
                time.sleep(steady_seconds)
                calm.append((end, time.perf_counter()))
                with _stranger():
                    begin = time.perf_counter()
                    time.sleep(stranger_seconds)
                    beside.append((begin, time.perf_counter()))
                memory.append(running.memory_bytes())
                descriptors.append(running.descriptors())
    steady, swapping, disturbed = (seen.latencies(spans) for spans in (calm, busy, beside))
    tenth = max(1, swaps // 10)
    calm_each, busy_each, beside_each = ([seen.latencies([span]) for span in spans] for spans in (calm, busy, beside))
    low, high = p99_interval(calm_each, busy_each)
    stranger_low, stranger_high = p99_interval(calm_each, beside_each)
    over_low, over_high = p99_interval(beside_each, busy_each)
    return {
        "reload_swaps": swaps,
        "reload_workers": workers,
        "reload_vocabulary_values": values,
        "reload_requests": len(seen.seconds) + len(seen.failed),
        "reload_requests_during_swaps": len(swapping),
        "reload_failed_requests": len(seen.failed),
        "reload_mixed_answers": len(seen.mixed),
        "reload_p99_ms": round(float(np.percentile(swapping, _P)) * 1e3, 3),
        "reload_steady_p99_ms": round(float(np.percentile(steady, _P)) * 1e3, 3),
        "reload_p99_ratio": round(float(np.percentile(swapping, _P) / np.percentile(steady, _P)), 3),
        "reload_p99_ratio_low": low,
        "reload_p99_ratio_high": high,
        "reload_stranger_p99_ms": round(float(np.percentile(disturbed, _P)) * 1e3, 3),
        "reload_stranger_p99_ratio": round(float(np.percentile(disturbed, _P) / np.percentile(steady, _P)), 3),
        "reload_stranger_p99_ratio_low": stranger_low,
        "reload_stranger_p99_ratio_high": stranger_high,
        "reload_over_stranger_p99_ratio": round(float(np.percentile(swapping, _P) / np.percentile(disturbed, _P)), 3),
        "reload_over_stranger_p99_ratio_low": over_low,
        "reload_over_stranger_p99_ratio_high": over_high,
        "reload_median_ratio": round(float(np.median(swapping) / np.median(steady)), 3),
        "reload_seconds": round(float(np.median([end - begin for begin, end in busy])), 3),
        "reload_memory_growth_ratio": round(
            float(np.median(memory[-tenth:]) / np.median(memory[tenth : 2 * tenth] or memory)), 4
        ),
        "reload_descriptor_growth": descriptors[-1] - descriptors[0],
    }


@contextlib.contextmanager
def _stranger() -> Iterator[None]:
    """A process that computes with what others leave, until the block ends."""
    process = subprocess.Popen([sys.executable, "-c", _STRANGER], process_group=0)
    try:
        time.sleep(_STRANGER_SECONDS)
        yield
    finally:
        process.kill()
        process.wait()


def p99_interval(calm: list[np.ndarray], busy: list[np.ndarray]) -> tuple[float, float]:
    """95% interval of the ratio of p99s, from resampled spans: what disturbs one span disturbs all of its requests.

    Args:
        calm: Seconds of the requests of each span without.
        busy: Those of as many spans with.
    """
    generator = np.random.default_rng(1)
    ratios = []
    for _ in range(_RESAMPLES):
        chosen = generator.integers(len(calm), size=len(calm))
        top = np.percentile(np.concatenate([busy[n] for n in chosen]), _P)
        ratios.append(top / np.percentile(np.concatenate([calm[n] for n in chosen]), _P))
    low, high = np.percentile(ratios, (2.5, 97.5))
    return round(float(low), 3), round(float(high), 3)
