"""The supervisor: starts the workers, replaces one that ends, and ends them all when it is told to.

It binds the listening socket and the file of the counts, which every worker inherits; whichever worker is free takes
the next connection. Workers are fresh processes: ONNX Runtime's threads do not survive a fork. The supervisor loads
neither it nor numpy nor a web framework, so that it takes little memory and has little to fail.

A worker ends with its supervisor: their standard input is a pipe that only this process holds open.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec

from service.cells import PID, READY, RESTARTS, SPENT_SECONDS, STARTED, Cells, shared_file
from service.logging import get_logger
from service.manifest import MANIFEST_FILE
from service.plan import Plan  # noqa: TC001 - msgspec reads the annotation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from service.settings import Settings

__all__ = ["START_ERROR", "Order", "Supervisor"]

START_ERROR: Final = 1
# A worker that lived this long has not failed at its start; the next wait begins at nothing again.
_SETTLED_SECONDS: Final = 60.0
_FIRST_WAIT_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 30.0
# After the time that requests in flight have: the server closes connections and the interpreter ends.
_GRACE_SECONDS: Final = 3.0
_IDLE_SECONDS: Final = 3600.0

_log: Final = get_logger("service.supervisor")


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker is told.

    Attributes:
        number: Its place among the workers, from 0.
        plan: The plan of all.
        listener: Descriptor of the listening socket.
        cells: Descriptor of the counts' file.
        late: It replaces another one: it takes connections only once it is ready.
        given: Settings from the command line; the others are in the environment.
        manifest_sha256: Which bundle it is to serve; None for any, where there was none to be read yet.
    """

    number: int
    plan: Plan
    listener: int
    cells: int
    late: bool
    given: dict[str, Any]
    manifest_sha256: str | None


@dataclass
class _Place:
    """One of the workers' places, and what is known of the process in it.

    Attributes:
        number: From 0.
        process: The process; None between two.
        since: When it was started (`monotonic`, seconds).
        due: When the next one is to be started.
        wait: How long to wait before the next but one, in seconds.
    """

    number: int
    process: subprocess.Popen[bytes] | None = None
    since: float = 0.0
    due: float = 0.0
    wait: float = 0.0


class Supervisor:
    """Runs workers until told to stop.

    Args:
        settings: The settings.
        given: Those of them that came from the command line.
        plan: How many workers, and their threads.
        listener: Where clients connect; closed at the end.
    """

    def __init__(self, settings: Settings, given: Mapping[str, Any], plan: Plan, listener: socket.socket) -> None:
        self._plan = plan
        self._given = dict(given)
        self._manifest = settings.bundle / MANIFEST_FILE
        self._manifest_sha256: str | None = None  # of the bundle that all workers are to serve
        self._listener = listener
        self._shutdown_seconds = settings.shutdown_seconds + _GRACE_SECONDS
        self._file = shared_file(plan.workers)
        self._cells = Cells(plan.workers, plan.workers, descriptor=self._file)
        self._places = [_Place(number) for number in range(plan.workers)]
        self._told: list[int] = []  # signals to stop that came since the last look
        self._stop_by = 0.0  # when what is left will be killed; 0.0 while serving
        self._status = 0

    def run(self) -> int:
        """Serve until told to stop.

        Returns:
            The exit status: 0 after a stop that was asked for, 1 if nothing could be served.
        """
        reader, writer = socket.socketpair()
        with reader, writer:
            writer.setblocking(False)
            reader.setblocking(False)
            signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            signal.signal(signal.SIGCHLD, lambda *_: None)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._note)
            while True:
                self._obey()
                self._reap()
                if self._stop_by and not any(place.process for place in self._places):
                    break
                self._start_what_is_due()
                select.select([reader], [], [], self._idle_seconds())
                while True:
                    try:
                        reader.recv(4096)
                    except BlockingIOError:
                        break
            signal.set_wakeup_fd(-1)
        _log.info("all_stopped", process=os.getpid())
        return self._status

    def _idle_seconds(self) -> float:
        """How long nothing needs doing unless a signal comes."""
        if self._stop_by:
            return max(0.0, self._stop_by - monotonic())
        due = [place.due for place in self._places if place.process is None]
        return max(0.0, min(due, default=monotonic() + _IDLE_SECONDS) - monotonic())

    # ---- starting

    def _start_what_is_due(self) -> None:
        now = monotonic()
        if not self._stop_by:
            for place in self._places:
                if place.process is None and place.due <= now:
                    self._start(place)
        elif now >= self._stop_by:
            for place in self._places:
                if place.process is not None:
                    _log.warning("worker_killed", worker=place.number, process=place.process.pid)
                    _send(place.process, signal.SIGKILL)
            self._stop_by = now + _IDLE_SECONDS  # the kernel ends them

    def _start(self, place: _Place) -> None:
        order = Order(
            number=place.number,
            plan=self._plan,
            listener=self._listener.fileno(),
            cells=self._file,
            late=bool(self._cells.state_of(place.number)[STARTED]),
            given=self._given,
            manifest_sha256=self._bundle_served(),
        )
        place.process = subprocess.Popen(
            [sys.executable, "-m", "service.worker"],
            stdin=subprocess.PIPE,
            pass_fds=(order.listener, order.cells),
            process_group=0,  # Ctrl-C in a terminal is for the supervisor, which drains the workers
        )
        place.since = monotonic()
        if place.process.stdin is not None:
            try:
                place.process.stdin.write(msgspec.json.encode(order) + b"\n")
                place.process.stdin.flush()
            except BrokenPipeError:  # it ended at once, and will be reaped
                return

    def _bundle_served(self) -> str | None:
        """What the manifest was at the first start: one that replaces a worker must not serve another bundle."""
        if self._manifest_sha256 is None:
            with contextlib.suppress(OSError):  # the worker will say what is wrong
                self._manifest_sha256 = hashlib.sha256(self._manifest.read_bytes()).hexdigest()
        return self._manifest_sha256

    # ---- ending

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """A signal handler: it may come in the middle of a start, so it only takes note."""
        self._told.append(number)

    def _obey(self) -> None:
        while self._told:
            number = self._told.pop(0)
            if self._stop_by and number == signal.SIGINT:  # asked twice: at once
                self._stop_by = monotonic()
            self._stop()

    def _stop(self) -> None:
        if self._stop_by:
            return
        self._stop_by = monotonic() + self._shutdown_seconds
        self._listener.close()  # so that the last worker's close refuses new connections
        for place in self._places:
            if place.process is not None:
                _send(place.process, signal.SIGTERM)

    def _reap(self) -> None:
        for place in self._places:
            if place.process is None:
                continue
            ended, status, usage = os.wait4(place.process.pid, os.WNOHANG)
            if not ended:
                continue
            place.process.returncode = os.waitstatus_to_exitcode(status)
            self._ended(place, place.process, usage.ru_utime + usage.ru_stime)

    def _ended(self, place: _Place, process: subprocess.Popen[bytes], cpu_seconds: float) -> None:
        place.process = None
        if process.stdin is not None:
            process.stdin.close()
        state = self._cells.state_of(place.number)
        state[PID] = state[READY] = 0.0
        self._cells.values[SPENT_SECONDS] += cpu_seconds
        if self._stop_by:
            return
        if process.returncode == START_ERROR and not any(self._cells.states(STARTED)):
            # What cannot be served now cannot be served by another attempt; the worker's log says why.
            self._status = START_ERROR
            self._stop()
            return
        now = monotonic()
        if now - place.since >= _SETTLED_SECONDS:
            place.wait = 0.0
        place.due = now + place.wait
        self._cells.values[RESTARTS] += 1.0
        _log.error(
            "worker_lost",
            worker=place.number,
            process=process.pid,
            exit_status=process.returncode,  # minus the signal that ended it
            restart_seconds=place.wait,
        )
        place.wait = min(max(2 * place.wait, _FIRST_WAIT_SECONDS), _LONGEST_WAIT_SECONDS)


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a worker that was not reaped yet, so that its number is still its own; it may have ended already.

    `Popen.send_signal` would reap one that has ended, and with it what `Supervisor` is to learn of its end.
    """
    os.kill(process.pid, number)
