"""Swaps under a steady load: nothing failed, nothing mixed, and what they did to the p99 and to memory.

Spans of a swap and spans without one take turns, so that what else the machine does falls on both alike.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.reliability.services import VERSIONS, make_store, service
from benchmarks.reliability.steady import clients

__all__ = ["p99_interval", "reload_figures"]

_SETTLE_SECONDS: Final = 3.0
_P: Final = 99.0
_RESAMPLES: Final = 1000


def reload_figures(
    *,
    swaps: int,
    rate: float,
    steady_seconds: float = 2.0,
    workers: int = 1,
    values: int = 1_000_000,
    patience_seconds: float = 10.0,
) -> dict[str, float]:
    """Swap between two versions.

    Args:
        swaps: How often.
        rate: Requests of 20 candidates a second.
        steady_seconds: Between two swaps.
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
                memory.append(running.memory_bytes())
                descriptors.append(running.descriptors())
    steady, swapping = seen.latencies(calm), seen.latencies(busy)
    tenth = max(1, swaps // 10)
    low, high = p99_interval([seen.latencies([span]) for span in calm], [seen.latencies([span]) for span in busy])
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
        "reload_median_ratio": round(float(np.median(swapping) / np.median(steady)), 3),
        "reload_seconds": round(float(np.median([end - begin for begin, end in busy])), 3),
        "reload_memory_growth_ratio": round(
            float(np.median(memory[-tenth:]) / np.median(memory[tenth : 2 * tenth] or memory)), 4
        ),
        "reload_descriptor_growth": descriptors[-1] - descriptors[0],
    }


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
