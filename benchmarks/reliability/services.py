"""Real services to try: processes with a store of two versions, asked over their admin sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.reliability.fuzz.bundle import write_small_bundle
from benchmarks.reliability.steady import Bodies
from service.bundle import read_bundle
from service.scorer import Scorer
from service.versions.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["VERSIONS", "Service", "free_port", "get", "make_store", "service"]

VERSIONS: Final = ("even", "odd")
_SECONDS: Final = 120.0
_BODIES: Final = 16
_CANDIDATES: Final = 20
_LOOKS: Final = 5
_LOOK_SECONDS: Final = 0.02


class _AdminConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("admin", timeout=2 * _SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True, slots=True)
class Service:
    """A running service.

    Attributes:
        process: Its supervisor.
        port: Where it listens on the loopback.
        admin: Its admin socket.
    """

    process: subprocess.Popen[bytes]
    port: int
    admin: Path

    def ask(self, method: str, url: str) -> tuple[int, dict[str, Any]]:
        """Ask the admin API."""
        connection = _AdminConnection(self.admin)
        with contextlib.closing(connection):
            connection.request(method, url)
            answer = connection.getresponse()
            document: dict[str, Any] = json.loads(answer.read())
        return answer.status, document

    def memory_bytes(self) -> int:
        """What all of its processes hold, shared pages once (PSS)."""
        found = 0
        for worker in (self.process.pid, *(worker["process"] for worker in self.ask("GET", "/status")[1]["workers"])):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{worker}/smaps_rollup").read_text(encoding="ascii")
                found += sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:"))
        return found

    def metrics(self) -> dict[str, float]:
        """A scrape, by `name{labels}`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def workers(self) -> list[int]:
        """Processes that serve."""
        found = self.ask("GET", "/status")[1]["workers"]
        return [worker["process"] for worker in found if worker["role"] == "worker" and worker["ready"]]

    def log(self) -> list[dict[str, Any]]:
        """What it has logged, where that goes to a file."""
        lines = self.admin.with_suffix(".log").read_bytes().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}\n")]

    def descriptors(self) -> int:
        """Files and sockets that its supervisor has open, the least of a few looks: an answer may just be ending."""
        found = []
        for _ in range(_LOOKS):
            found.append(sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir()))
            time.sleep(_LOOK_SECONDS)
        return min(found)


def get(port: int, path: str) -> tuple[int, str]:
    """Status and text of a page of the loopback; status 0 where there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error)
    finally:
        connection.close()


def make_store(place: Path, *, values: int = 12, candidates: Sequence[int] = (_CANDIDATES,)) -> tuple[Store, Bodies]:
    """A store of two versions with the same fields and other weights, and requests with what each of them answers.

    Args:
        place: An empty directory.
        values: Values that one field's vocabulary holds.
        candidates: How many a request has, in turns.
    """
    store = Store(place / "store")
    generator = np.random.default_rng(5)
    documents = [
        {
            "context": {"user": f"u{generator.integers(25)}", "hour": int(generator.integers(24)), "page": f"/{n}"},
            "candidates": [
                {"ad": f"a{generator.integers(values + 2)}", "price": round(float(generator.uniform(0, 10)), 2)}
                for _ in range(candidates[n % len(candidates)])
            ],
        }
        for n in range(_BODIES)
    ]
    scores = {}
    for seed, name in enumerate(VERSIONS):
        write_small_bundle(place / name, model_id=name, seed=seed, ads=values)
        scorer = Scorer(read_bundle(place / name))
        scores[name] = [scorer.score(d["context"], d["candidates"]) for d in documents]  # type: ignore[arg-type]
        store.add(place / name)
    store.activate(VERSIONS[0])
    return store, Bodies(documents, scores)


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def service(
    bundle: Path,
    place: Path,
    *,
    port: int | None = None,
    stderr: int | None = None,
    environment: Mapping[str, str] | None = None,
    **settings: object,
) -> Iterator[Service]:
    """Start a service, wait until it is ready, and end it.

    Args:
        bundle: A bundle or a store.
        place: Directory for its log and its admin socket.
        port: Where it listens; a free one if None.
        stderr: Where its log goes; a file in `place` if None.
        environment: Variables beside the settings.
        settings: Further ones, by name.

    Raises:
        TimeoutError: It does not become ready.
    """
    port = free_port() if port is None else port
    admin = place / f"{port}.sock"
    given = {"bundle": bundle, "port": port, "admin_socket": admin, "request_log_ratio": 0, **settings}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REACTION_")}
    whole = clean | {f"REACTION_{name.upper()}": str(value) for name, value in given.items()} | dict(environment or {})
    with (place / f"{port}.log").open("ab") as log:
        stderr = log.fileno() if stderr is None else stderr
        process = subprocess.Popen([sys.executable, "-m", "service"], env=whole, stderr=stderr, stdout=log)
    try:
        _wait_ready(process, port)
        yield Service(process, port, admin)
    finally:
        process.terminate()
        process.wait()


def _wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:  # noqa: PLR2004
                return
        time.sleep(0.05)
    raise TimeoutError(f"expected a service that is ready in {_SECONDS:g} s at port {port}, got none")
