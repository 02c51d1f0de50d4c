"""The open loop, in a process of its own: `python -m benchmarks.serving.openloop URL REQUESTS RATE SECONDS OBJECTIVE`.

Poisson arrivals by the service's own load tool; latency counts from when a request was due. Prints one JSON object.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.cells import WARM_UP_SECONDS
from benchmarks.serving.payloads import read_requests
from service.bench.http import parse_target
from service.bench.load import Body, run_load

_CONTENT_TYPE: Final = re.compile(rb"\r\nContent-Type: ([^\r]+)\r\n")


def main(url: str, file: Path, rate: float, seconds: float, objective: float) -> dict[str, Any]:
    """Run, and tell what `cells.measure` reads."""
    bodies = []
    for request in read_requests(file):
        head, _, content = request.partition(b"\r\n\r\n")
        kind = _CONTENT_TYPE.search(head + b"\r\n")
        bodies.append(Body(content, kind[1].decode() if kind else "application/json"))
    # A server slower than the common rate cannot take part at all, so nothing is given up here but what hangs.
    # This process is pinned to a core that is its own.
    result = run_load(parse_target(url), bodies, rate, seconds, warm_up=WARM_UP_SECONDS, spins=True)
    latency = result.latency
    return {
        "requests": result.answered,
        "seconds": result.seconds,
        "errors": sum(result.errors.values()),
        "error_kinds": {str(kind): count for kind, count in result.errors.items()},
        "p50_ms": latency.p50 * 1e3,
        "p99_ms": latency.p99 * 1e3,
        "p999_ms": latency.p999 * 1e3,
        "max_ms": latency.max * 1e3,
        "lag_p99_ms": result.lag.p99 * 1e3,
        "generator_busy": result.busy_share,
        "generator_bound": result.generator_bound(min(latency.p99, objective)),
        "stalls": len(result.stalls),
    }


if __name__ == "__main__":
    json.dump(main(sys.argv[1], Path(sys.argv[2]), *map(float, sys.argv[3:6])), sys.stdout)
