"""What a shadow does to those who serve: nothing on trial, one that works, one that stands still, one that spins.

They take turns under one steady load, in an order that moves on every round, so that what else the machine does falls
on all alike. One that hangs is left to hang throughout its turn: it is never found out.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.reliability.fuzz.bundle import write_small_bundle
from benchmarks.reliability.reload import p99_interval
from benchmarks.reliability.services import VERSIONS, make_store, service
from benchmarks.reliability.steady import clients

if TYPE_CHECKING:
    from benchmarks.reliability.services import Service
    from benchmarks.reliability.steady import Seen

__all__ = ["KINDS", "shadow_figures"]

KINDS: Final = ("none", "working", "stopped", "spinning")
_VERSION: Final = {"working": VERSIONS[1], "stopped": VERSIONS[1], "spinning": "endless"}
_GONE_SECONDS: Final = 30.0
_SETTLE_SECONDS: Final = 1.0
_P: Final = 99.0
_OK: Final = 200
_ENDLESS_ABOVE: Final = 15  # golden rows are fewer, candidates of a request more


def shadow_figures(*, rounds: int, rate: float, seconds: float = 5.0, workers: int = 1) -> dict[str, float]:
    """Let the kinds of a shadow take turns.

    Args:
        rounds: How often each has its turn.
        rate: Requests of 20 candidates a second.
        seconds: Of a turn.
        workers: Processes that serve.

    Returns:
        Figures by key.

    Raises:
        RuntimeError: A shadow did not come or go.
    """
    spans: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="shadow-") as folder:
        place = Path(folder)
        store, bodies = make_store(place)
        write_small_bundle(place / "endless", model_id="endless", seed=1, endless_above=_ENDLESS_ABOVE)
        store.add(place / "endless")
        how: dict[str, Any] = {"workers": workers, "watch_seconds": 0, "drain_seconds": 0, "shadow_seconds": 3600}
        with (
            service(store.root, place, **how) as running,
            clients(("127.0.0.1", running.port), bodies, rate=rate) as seen,
        ):
            for number in range(rounds * len(KINDS)):
                kind = KINDS[(number + number // len(KINDS)) % len(KINDS)]
                _begin(running, kind)
                time.sleep(_SETTLE_SECONDS)
                begin = time.perf_counter()
                time.sleep(seconds)
                spans[kind].append((begin, time.perf_counter()))
                if kind != "none":
                    _end(running)
            counts = running.metrics()
    return {
        "shadow_rounds": rounds,
        "shadow_workers": workers,
        "shadow_requests": len(seen.seconds) + len(seen.failed),
        "shadow_failed_requests": len(seen.failed),
        "shadow_wrong_answers": len(seen.mixed) + sum(n for name, n in seen.models.items() if name != VERSIONS[0]),
        "shadow_scored": counts[f'reaction_shadow_requests_total{{model="{VERSIONS[1]}",outcome="ok"}}'],
        **_p99s(seen, spans),
    }


def _p99s(seen: Seen, spans: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    apart = {kind: [seen.latencies([span]) for span in turns] for kind, turns in spans.items()}
    # One that hangs may do so in either way.
    apart["hanging"] = [np.concatenate(pair) for pair in zip(apart["stopped"], apart["spinning"], strict=True)]
    p99 = {kind: float(np.percentile(np.concatenate(found), _P)) for kind, found in apart.items()}
    found: dict[str, float] = {"shadow_none_p99_ms": round(p99["none"] * 1e3, 3)}
    for kind in (*KINDS[1:], "hanging"):
        name = "shadow" if kind == "hanging" else f"shadow_{kind}"
        low, high = p99_interval(apart["none"], apart[kind])
        found |= {
            f"{name}_p99_ms": round(p99[kind] * 1e3, 3),
            f"{name}_p99_ratio": round(p99[kind] / p99["none"], 3),
            f"{name}_p99_ratio_low": low,
            f"{name}_p99_ratio_high": high,
        }
    return found


def _begin(running: Service, kind: str) -> None:
    if kind == "none":
        return
    found = _ask(running, f"/shadow?version={_VERSION[kind]}&wait_seconds=120")
    if kind == "stopped":
        os.kill(found["shadow"]["process"], signal.SIGSTOP)


def _end(running: Service) -> None:
    """End the trial, and wait until its process has gone: the next turn must not take it for its own."""
    process = (running.ask("GET", "/status")[1]["shadow"] or {}).get("process")
    _ask(running, "/end")
    by = time.monotonic() + _GONE_SECONDS
    while process is not None and Path(f"/proc/{process}").exists():
        if time.monotonic() > by:
            raise RuntimeError(f"expected the shadow's process {process} to end in {_GONE_SECONDS:g} s, it lives on")
        time.sleep(0.05)


def _ask(running: Service, url: str) -> dict[str, Any]:
    status, found = running.ask("POST", url)
    if status != _OK:
        raise RuntimeError(f"{url}: expected it done, got {status} {found}")
    return found
