"""`python -m benchmarks.reliability.overload`: goodput at several times what a service can score.

One worker on one core, the generator on another. The most it can score is measured first, by clients that each wait for
their answer; then requests of 1000 candidates come at multiples of that, whatever became of those before, each with a
deadline. Goodput counts candidates of answers with scores only, and what is answered has to be answered in time.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from benchmarks.reliability.page import FIGURES, publish
from benchmarks.serving.model import write_bundles
from benchmarks.serving.payloads import random_batches, ranking_rows, to_json
from benchmarks.serving.processes import LOAD_CORE, SERVER_CORE, pinned
from service.bench.http import Target
from service.bench.load import Body, run_load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.bench.load import LoadResult

CANDIDATES: Final = 1000
DEADLINE_MS: Final = 250  # of an objective of 300: the rest is the way there and back
MULTIPLES: Final = (1.0, 2.0, 5.0)
_BODIES: Final = 16
_CLIENTS: Final = 3
_CONNECTIONS: Final = 800
_START_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Overload:
    """What was measured.

    Attributes:
        peaks: The most candidates a second, before and after each run.
        runs: By multiple of that.
        after: At half of it, from a second after the heaviest on.
    """

    peaks: dict[float, float]
    runs: dict[float, LoadResult]
    after: LoadResult

    def goodput(self, multiple: float) -> float:
        """Candidates scored at a multiple, as a share of the most."""
        return (self.runs[multiple].candidates or 0.0) / self.peaks[multiple]


def measure(folder: Path, seconds: float, multiples: Sequence[float] = MULTIPLES) -> Overload:
    """Measure.

    Args:
        folder: For a bundle and a log.
        seconds: Length of each run.
        multiples: Of the most, to offer; the heaviest last.

    Raises:
        TimeoutError: The server does not become ready.
    """
    write_bundles(folder)
    contents = [to_json(ranking_rows(rows)) for rows in random_batches(CANDIDATES, _BODIES, shared=True)]
    bodies = [Body(content, candidates=CANDIDATES) for content in contents]
    with server(folder / "bundle", folder / "log") as port:
        target = Target("127.0.0.1", port, headers=(("X-Request-Deadline-Ms", str(DEADLINE_MS)),))
        _closed_loop(port, contents, min(2.0, seconds))
        brief = max(min(3.0, seconds), seconds / 6)
        peak = _closed_loop(port, contents, brief)
        runs, peaks = {}, {}
        for multiple in multiples:
            rate = multiple * peak / CANDIDATES
            runs[multiple] = run_load(target, bodies, rate, seconds, connections=_CONNECTIONS, timeout=5.0)
            after_it = _closed_loop(port, contents, brief)
            peaks[multiple], peak = (peak + after_it) / 2, after_it
        run_load(target, bodies, multiples[-1] * peak / CANDIDATES, brief, connections=_CONNECTIONS, timeout=5.0)
        # A second after the last of it, half the most is scored in full.
        after = run_load(target, bodies, 0.5 * peak / CANDIDATES, brief, warm_up=1.0, timeout=5.0)
    return Overload(peaks, runs, after)


@contextmanager
def server(bundle: Path, log: Path) -> Iterator[int]:
    """Start a service of one worker on the server's core, yield its port, and end it.

    Args:
        bundle: What it serves.
        log: File for its log.

    Raises:
        TimeoutError: It does not become ready.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REACTION_")}
    settings = {"BUNDLE": bundle, "PORT": 0, "WORKERS": 1, "REQUEST_LOG_RATIO": 0}
    environment = clean | {f"REACTION_{name}": str(value) for name, value in settings.items()}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            env=environment,
            stdout=file,
            stderr=file,
            preexec_fn=pinned(SERVER_CORE),  # noqa: PLW1509 - no thread runs yet
        )
    try:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and process.poll() is None:
            lines = [line for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            events = {event["event"]: event for event in map(json.loads, lines)}
            if "ready" in events and "listening" in events:
                yield int(events["listening"]["port"])
                return
            time.sleep(0.02)
        raise TimeoutError(f"expected a server that is ready, got {log.read_text(encoding='utf-8')}")
    finally:
        process.terminate()
        process.wait()


def _closed_loop(port: int, contents: Sequence[bytes], seconds: float) -> float:
    """Candidates a second that are scored for clients that each wait for their answer."""
    counts: list[int] = []
    began = time.monotonic()

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        count = 0
        while time.monotonic() < began + seconds:
            content = contents[(first + count) % len(contents)]
            connection.request("POST", "/score", content, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            count += answer.status == http.HTTPStatus.OK
        connection.close()
        counts.append(count)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) * CANDIDATES / (time.monotonic() - began)


def figures_of(measured: Overload, seconds: float) -> dict[str, float]:
    """The figures by their keys."""
    found: dict[str, float] = {
        "overload_seconds": seconds,
        "overload_peak_candidates": round(max(measured.peaks.values())),
    }
    failed = 0
    for multiple, run in measured.runs.items():
        refused = sum(count for kind, count in run.errors.items() if kind in {"http_429", "http_503"})
        failed += sum(run.errors.values()) - refused
        found[f"overload_goodput_{multiple:g}x"] = round(measured.goodput(multiple), 3)
        found[f"overload_p99_ms_{multiple:g}x"] = round(run.latency.p99 * 1e3, 1)
        found[f"overload_refused_{multiple:g}x"] = refused
    return found | {"overload_failed": failed, "overload_refused_after": sum(measured.after.errors.values())}


def main(
    seconds: Annotated[float, typer.Option(help="length of each run")] = 60.0,
    to: Annotated[
        Path, typer.Option("--figures", help="JSON file whose figures to set; the page lies beside it")
    ] = FIGURES,
) -> None:
    """Offer 1, 2 and 5 times the most that a service scores, and say what becomes of it."""
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="overload-") as folder:
        found = figures_of(measure(Path(folder), seconds), seconds)
    for key, value in found.items():
        typer.echo(f"{key}: {value}")
    publish(found, to)


if __name__ == "__main__":
    typer.run(main)
