"""Faults of the machine, one at a time, under a steady load: served on, or refused clearly.

Each is brought about for real: a full disk under the log, a log nobody reads or whose reader stands still, a bundle
cut short, a store that is gone, a clock that jumps (libfaketime, where it is installed), no descriptors left, no
temporary directory, a worker that stands still.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.reliability.services import VERSIONS, get, make_store, service
from benchmarks.reliability.steady import clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.reliability.services import Service
    from benchmarks.reliability.steady import Bodies, Seen
    from service.versions.store import Store

__all__ = ["FAULTS", "Outcome", "fault_figures", "libfaketime", "try_fault"]

_WORKERS: Final = 2
_WAIT_SECONDS: Final = 60.0
_DAY_SECONDS: Final = 86_400
_OK: Final = 200
_HANG_SECONDS: Final = 2.0


@dataclass(slots=True)
class Outcome:
    """What became of a service under a fault.

    Attributes:
        requests: Sent while the fault was there, and before and after.
        failed: Of these without scores, but for those that a worker held which the fault killed.
        wrong: Answers with other scores than those of the version they name.
        complaints: What was expected of the service and did not come.
    """

    requests: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def expect(self, held: object, what: str) -> None:
        """Note what was expected, unless it held."""
        if not held:
            self.complaints.append(what)


@dataclass(frozen=True, slots=True)
class _Trial:
    place: Path
    store: Store
    bodies: Bodies
    seconds: float
    outcome: Outcome

    @contextlib.contextmanager
    def served(self, *, in_flight: bool = False, **how: Any) -> Iterator[Service]:
        """A service under load; with `in_flight`, requests that fail while a worker is being killed are not counted."""
        settings = {
            "workers": _WORKERS,
            "watch_seconds": 0,
            "drain_seconds": 0,
            "idle_seconds": 1,
            "patience_seconds": 1,
        }
        with (
            service(self.store.root, self.place, **(settings | how)) as running,
            clients(("127.0.0.1", running.port), self.bodies, rate=100) as seen,
        ):
            time.sleep(self.seconds)
            yield running
            time.sleep(self.seconds)
        self.note(seen, in_flight=in_flight)
        self.outcome.expect(running.process.returncode == 0, f"exit status 0, got {running.process.returncode}")

    def note(self, seen: Seen, *, in_flight: bool) -> None:
        self.outcome.requests += len(seen.seconds) + len(seen.failed)
        self.outcome.failed += [why for why in seen.failed if not (in_flight and "onnection" in why)]
        self.outcome.wrong += seen.mixed

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait until something holds, and complain if it does not."""
        by = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < by:
            if holds():
                return
            time.sleep(0.1)
        self.outcome.complaints.append(f"{what} in {_WAIT_SECONDS:g} s")


def _full_log(trial: _Trial) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with trial.served(stderr=full, request_log_ratio=1):
            pass
    finally:
        os.close(full)


def _unread_log(trial: _Trial) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with trial.served(stderr=writer, request_log_ratio=1):
            pass
    finally:
        os.close(writer)


def _stuck_log(trial: _Trial) -> None:
    """Whoever reads the log stands still, and not one line has room."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"\n" * 4096)
    os.set_blocking(writer, True)
    try:
        with trial.served(stderr=writer, request_log_ratio=1) as running:
            trial.outcome.expect(get(running.port, "/livez")[0] == _OK, "/livez")
    finally:
        os.close(writer)
        os.close(reader)


def _full_store(trial: _Trial) -> None:
    """A version is added where there is no room for it: the largest file may have 1 KiB."""
    names = trial.store.names()
    with trial.served() as running:
        added = subprocess.run(
            [sys.executable, "-m", "service", "versions", "add", str(trial.store.root),
             str(trial.store.path(VERSIONS[1])), "--name", "third", "--activate"],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)),
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        trial.outcome.expect(added.returncode != 0, "an exit status that says that nothing was added")
        trial.outcome.expect("Traceback" not in added.stderr and added.stderr, f"one clear line, got {added.stderr!r}")
        trial.outcome.expect(trial.store.names() == names, f"the versions of before, got {trial.store.names()}")
        left = [path.name for path in trial.store.root.iterdir() if "third" in path.name]
        trial.outcome.expect(not left, f"nothing left behind, got {left}")
        status = running.ask("POST", "/reload")[1]
        trial.outcome.expect(status["serves"] == VERSIONS[0], f"{VERSIONS[0]} served, got {status['serves']}")


def _unreadable_version(trial: _Trial) -> None:
    with trial.served(in_flight=True) as running:
        broken = trial.store.path(VERSIONS[1]) / "model.onnx"
        whole = broken.read_bytes()
        broken.write_bytes(whole[: len(whole) // 2])
        status, found = running.ask("POST", f"/reload?version={VERSIONS[1]}&wait_seconds=60")
        trial.outcome.expect("refused" in found.get("detail", ""), f"a refusal that says why, got {status} {found}")
        trial.outcome.expect(running.ask("GET", "/status")[1]["serves"] == VERSIONS[0], f"{VERSIONS[0]} served on")
        # The one that replaces a lost worker serves what the others do.
        lost = running.workers()[0]
        os.kill(lost, signal.SIGKILL)
        trial.until(lambda: lost not in running.workers() and len(running.workers()) == _WORKERS, "a worker again")
        broken.write_bytes(whole)
        status, found = running.ask("POST", f"/reload?version={VERSIONS[1]}&wait_seconds=60")
        trial.outcome.expect(found.get("serves") == VERSIONS[1], f"it served once mended, got {status} {found}")


def _store_gone(trial: _Trial) -> None:
    away = trial.store.root.with_name("away")
    with trial.served(in_flight=True) as running:
        trial.store.root.rename(away)
        running.process.send_signal(signal.SIGHUP)
        lost = running.workers()[0]
        os.kill(lost, signal.SIGKILL)
        time.sleep(trial.seconds)
        left = running.workers()
        trial.outcome.expect(left, "the other worker to serve on")
        away.rename(trial.store.root)
        trial.until(lambda: len(running.workers()) == _WORKERS, "both workers once the store was back")


def _clock_jumps(trial: _Trial) -> None:
    ahead = trial.place / "ahead"
    ahead.write_text("+0s\n", encoding="ascii")
    environment = {
        "LD_PRELOAD": str(libfaketime()),
        "FAKETIME_TIMESTAMP_FILE": str(ahead),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    more: dict[str, Any] = {"feedback_secret": "s" * 16, "feedback_ratio": 1, "request_log_ratio": 0.1}
    with trial.served(environment=environment, **more) as running:
        for jump in (f"+{_DAY_SECONDS}s", "+0s", f"-{_DAY_SECONDS}s"):
            ahead.write_text(f"{jump}\n", encoding="ascii")
            time.sleep(1.0 + trial.seconds)  # the library reads its file once a second
            status, _ = get(running.port, "/metrics")
            trial.outcome.expect(status == _OK, f"/metrics at {jump}, got {status}")
            # Not waited for by the admin API: the library gives its thread a time to sleep until that is in the past.
            trial.store.activate(VERSIONS[jump != "+0s"])
            running.process.send_signal(signal.SIGHUP)
            trial.until(
                lambda: running.ask("GET", "/status")[1]["serves"] == VERSIONS[jump != "+0s"],  # noqa: B023 - at once
                f"a swap at {jump}",
            )
        stamps = {event["timestamp"][:10] for event in running.log() if "timestamp" in event}
        trial.outcome.expect(len(stamps) > 1, f"a log of several days, or the clock did not jump: {stamps}")


def _no_descriptors(trial: _Trial) -> None:
    with contextlib.ExitStack() as connections, trial.served() as running:
        workers = running.workers()
        before = {worker: resource.prlimit(worker, resource.RLIMIT_NOFILE) for worker in workers}
        for worker in workers:
            held = max(int(opened.name) for opened in Path(f"/proc/{worker}/fd").iterdir())
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (held + 4, before[worker][1]))
        for _ in range(64):
            connections.enter_context(socket.create_connection(("127.0.0.1", running.port)))
        time.sleep(trial.seconds)  # those connected already are served
        connections.close()
        for worker in workers:
            resource.prlimit(worker, resource.RLIMIT_NOFILE, before[worker])
        trial.until(lambda: get(running.port, "/readyz")[0] == _OK, "new connections once descriptors are free")


def _hung_worker(trial: _Trial) -> None:
    with trial.served(in_flight=True, hang_seconds=_HANG_SECONDS) as running:
        hung = running.workers()[0]
        os.kill(hung, signal.SIGSTOP)
        trial.until(lambda: hung not in running.workers() and len(running.workers()) == _WORKERS, "another worker")
        told = [event for event in running.log() if event["event"] == "worker_hung"]
        trial.outcome.expect([event["process"] for event in told] == [hung], f"a line that says so, got {told}")


def _no_temporary_directory(trial: _Trial) -> None:
    scratch = trial.place / "scratch"
    scratch.mkdir()
    with trial.served(environment={"TMPDIR": str(scratch)}) as running:
        shutil.rmtree(scratch)
        first = _scored(running)
        status, found = running.ask("POST", f"/reload?version={VERSIONS[1]}&wait_seconds=60")
        trial.outcome.expect(status == _OK, f"a swap, got {status} {found}")
        trial.outcome.expect(get(running.port, "/metrics")[0] == _OK, "/metrics")
        trial.outcome.expect(_scored(running) > first > 0, "counts that go on")


FAULTS: Final[dict[str, Callable[[_Trial], None]]] = {
    "full_log": _full_log,
    "unread_log": _unread_log,
    "stuck_log": _stuck_log,
    "full_store": _full_store,
    "unreadable_version": _unreadable_version,
    "store_gone": _store_gone,
    "clock_jumps": _clock_jumps,
    "no_descriptors": _no_descriptors,
    "hung_worker": _hung_worker,
    "no_temporary_directory": _no_temporary_directory,
}


def try_fault(name: str, *, seconds: float) -> Outcome | None:
    """Bring one about.

    Args:
        name: Of `FAULTS`.
        seconds: Before it, while it is there, and after it.

    Returns:
        What came of it; None where what it takes is not installed.
    """
    if name == "clock_jumps" and libfaketime() is None:
        return None
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        store, bodies = make_store(Path(folder))
        FAULTS[name](_Trial(Path(folder), store, bodies, seconds, outcome))
    return outcome


def fault_figures(*, seconds: float) -> tuple[dict[str, float], dict[str, Outcome]]:
    """Bring all about, one after the other.

    Args:
        seconds: See `try_fault`.

    Returns:
        Figures by key, and what came of each fault.
    """
    outcomes = {name: found for name in FAULTS if (found := try_fault(name, seconds=seconds)) is not None}
    return {
        "faults": len(outcomes),
        "fault_requests": sum(outcome.requests for outcome in outcomes.values()),
        "fault_failed_requests": sum(len(outcome.failed) for outcome in outcomes.values()),
        "fault_wrong_answers": sum(len(outcome.wrong) for outcome in outcomes.values()),
        "faults_not_borne": sum(bool(outcome.complaints) for outcome in outcomes.values()),
    }, outcomes


def libfaketime() -> Path | None:
    """The library that makes a process's clock jump, where it is installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return found[0] if found else None


def _scored(running: Service) -> float:
    counts = running.metrics().items()
    return sum(count for name, count in counts if name.startswith("reaction_candidates_total{"))
