"""A worker's place, and the processes in it: the one that serves, the one to come, and the one that goes."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Final

import msgspec

from service.versions.rollout import CRASHED
from service.workers.boot import boot_command
from service.workers.order import Order, Told
from service.workers.passage import Passage, open_passage

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

    from service.versions.store import Deployed

__all__ = ["Place", "WorkerProcess", "start_process", "start_worker"]

_READ_BYTES: Final = 1 << 16


@dataclass
class WorkerProcess:
    """A serving process, seen by its supervisor.

    Attributes:
        process: The process.
        block: Its block of the counts.
        slots: Where among them its models' are.
        version: What it serves; None where there was none to be read yet.
        reports: Descriptor of what it tells; -1 once read to its end.
        since: When it was started (`monotonic`, seconds).
        ready: It scores requests.
        told: The last thing it told.
        canary_fault: What its canary said last, where that fails too often.
        kill_by: When it is to be killed; None while it may go on.
    """

    process: subprocess.Popen[bytes]
    block: int
    slots: tuple[int, ...]
    version: Deployed | None
    reports: int
    since: float = field(default_factory=monotonic)
    ready: bool = False
    told: Told | None = None
    canary_fault: str | None = None
    kill_by: float | None = None
    _text: bytes = b""

    def listen(self) -> None:
        """Take in what it has told since the last time."""
        while self.reports >= 0 and select.select([self.reports], [], [], 0)[0]:
            part = os.read(self.reports, _READ_BYTES)
            if not part:
                self._hang_up()
                return
            *lines, self._text = (self._text + part).split(b"\n")
            for line in lines:
                with contextlib.suppress(msgspec.DecodeError):
                    self._take(msgspec.json.decode(line, type=Told))

    def _take(self, told: Told) -> None:
        if told.state == "canary_failed":
            self.canary_fault = told.detail
            return
        self.told = told
        self.ready = self.ready or told.state == "ready"

    def send(self, number: signal.Signals) -> None:
        """Signal it. It was not reaped yet, so that its number is still its own; it may have ended already.

        `Popen.send_signal` would reap one that has ended, and with it what the supervisor is to learn of its end.
        """
        os.kill(self.process.pid, number)

    def ended(self) -> tuple[int, float] | None:
        """Exit status (minus the signal that ended it) and CPU seconds, if it has ended; it is reaped then."""
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if not pid:
            return None
        self.listen()
        self._hang_up()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.stdin is not None:
            self.process.stdin.close()
        return self.process.returncode, usage.ru_utime + usage.ru_stime

    def why_ended(self, status: int) -> tuple[str, str]:
        """Kind and message of the error for which it ended without having served, as far as it told."""
        if self.told is not None and self.told.state == "failed":
            return self.told.reason, self.told.detail
        return CRASHED, f"expected it to become ready, got exit status {status}"

    def _hang_up(self) -> None:
        if self.reports >= 0:
            os.close(self.reports)
            self.reports = -1


@dataclass
class Place:
    """One of the workers' places.

    Attributes:
        number: From 0.
        blocks: Blocks of the counts that its processes use in turns.
        worker: The process that serves; None between two.
        incoming: The one that is to take its place.
        retiring: The one whose place was taken.
        passage: The queue of connections that its processes hand on.
        due: When the next one is to be started (`monotonic`, seconds).
        wait: How long to wait before the next but one, in seconds.
    """

    number: int
    blocks: tuple[int, int]
    worker: WorkerProcess | None = None
    incoming: WorkerProcess | None = None
    retiring: WorkerProcess | None = None
    passage: Passage = field(default_factory=open_passage)
    due: float = 0.0
    wait: float = 0.0

    @property
    def processes(self) -> list[WorkerProcess]:
        """All that are in it."""
        return [process for process in (self.worker, self.incoming, self.retiring) if process is not None]

    def free_block(self) -> int | None:
        """A block that none of its processes counts in."""
        used = {process.block for process in self.processes}
        return next((block for block in self.blocks if block not in used), None)


def start_worker(order: Order, version: Deployed | None) -> WorkerProcess:
    """Start a worker and give it its order; `order.reports` is filled in here."""
    given = (order.listener, order.cells, order.shadow, *(end for end in order.passage if end >= 0))
    process, reader = start_process(boot_command(low=order.low), order, given)
    slots = tuple(part.slot for part in (order.part, order.canary) if part is not None)
    return WorkerProcess(process, order.block, slots, version, reader)


def start_process(
    command: Sequence[str], order: msgspec.Struct, given: tuple[int, ...], *, apart: bool = False
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process of ours and give it its order.

    Args:
        command: Its command line.
        order: Its order; `reports` is filled in here.
        given: Descriptors that it gets.
        apart: It has a session of its own.

    Returns:
        The process, and the descriptor of what it reports.
    """
    reader, writer = os.pipe()
    order = msgspec.structs.replace(order, reports=writer)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            pass_fds=(*given, writer),
            # Ctrl-C in a terminal is for the supervisor, which drains the workers.
            start_new_session=apart,
            process_group=None if apart else 0,
        )
    finally:
        os.close(writer)
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # it ended at once, and will be reaped
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
    return process, reader
