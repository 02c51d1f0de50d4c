"""`python -m tests.service.bench.bench_generator`: what the load generator can do, against a server that does nothing.

The server (a raw ASGI application on uvicorn) and the generator each get a processor of their own. The limits are the
generator's: a rate counts while the 99th percentile of its send lag is under 100 µs and it is busy for under 80% of the
time. Other work on either processor shows as lag; several rounds are run, and the median of each rate counts.
"""

# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time

from service.bench import Body, LoadResult, Target, run_load
from service.bench.load import LARGEST_BUSY_SHARE

RATES = (1000, 5000, 10_000, 15_000, 20_000, 25_000, 30_000)
LAG = 100e-6
ANSWER = b'{"model":"m","request_id":"r","scores":[0.5]}'


async def app(scope, receive, send):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Read the body, answer a constant."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


def main() -> None:
    """Print a line a rate, then the highest that counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rest", type=float, default=0.0, help="seconds between runs")
    options = parser.parse_args()
    first, *others = sorted(os.sched_getaffinity(0))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--loop", "uvloop", "--http", "httptools", "--lifespan", "off", "--no-access-log"]
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "tests.service.bench.bench_generator:app", "--port", str(port), *words],
        stderr=subprocess.DEVNULL,
    )
    try:
        os.sched_setaffinity(server.pid, {first})
        os.sched_setaffinity(0, set(others) or {first})
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.1)
        target, body = Target("127.0.0.1", port), Body(b'{"candidates":[{"ad":"a1"}]}', candidates=1)
        rounds: list[dict[int, LoadResult]] = []
        for number in range(options.rounds):
            rounds.append({})
            for rate in RATES:
                time.sleep(options.rest)
                rounds[-1][rate] = run_load(
                    target, [body], rate, options.seconds, warm_up=0.1, seed=number, give_up=1.0, spins=len(others) > 0
                )
    finally:
        server.terminate()
        server.wait()
    print("requests/s  lag p50 µs  lag p99 µs  busy  µs a request  latency p50 µs  p99 µs  overloaded")
    best = 0
    for rate in RATES:
        runs = [results[rate] for results in rounds]
        lag = statistics.median(run.lag.p99 for run in runs)
        busy = statistics.median(run.busy_share for run in runs)
        over = sum(run.overloaded for run in runs)
        cells = [
            f"{rate:10,}",
            f"{statistics.median(run.lag.p50 for run in runs) * 1e6:10.1f}",
            f"{lag * 1e6:10.1f}",
            f"{busy:4.0%}",
            f"{statistics.median(run.records.busy_ns / max(run.requests, 1) for run in runs) / 1e3:12.1f}",
            f"{statistics.median(run.latency.p50 for run in runs) * 1e6:14.0f}",
            f"{statistics.median(run.latency.p99 for run in runs) * 1e6:6.0f}",
            f"{over:10}",
        ]
        print("  ".join(cells))
        if lag < LAG and busy < LARGEST_BUSY_SHARE and 2 * over < len(runs):
            best = max(best, rate)
    print(f"highest rate with a send lag p99 under {LAG * 1e6:.0f} µs: {best:,} requests/s")


if __name__ == "__main__":
    main()
