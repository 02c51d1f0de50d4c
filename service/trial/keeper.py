"""The supervisor's side of a shadow: its process started, watched, ended and replaced; the queue to it.

The queue is a pair of sockets for datagrams, made once, so that it outlives the process that reads it; what it holds
is bounded by the kernel. A shadow that takes too long for a request is killed, and one that ends replaced, later each
time; one that does not live is taken off trial.
"""

from __future__ import annotations

import signal
import socket
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from service.counts.cells import BEAT, SHADOW, SPENT_SECONDS, shadow_block
from service.logging import get_logger
from service.trial.names import end_cell, lost_cells
from service.trial.shadow import ShadowOrder
from service.workers.place import WorkerProcess, start_process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.settings import Settings
    from service.trial.trial import Trial
    from service.versions.store import Deployed
    from service.workers.crew import Crew
    from service.workers.plan import Plan

__all__ = ["Keeper"]

_QUEUE_BYTES: Final = 1 << 22  # the kernel may allow less
_SETTLED_SECONDS: Final = 60.0
_ATTEMPTS: Final = 5
_FIRST_WAIT_SECONDS: Final = 0.5

_log: Final = get_logger("service.trial")


class Keeper:
    """Keeps the shadow that the trial asks for.

    Args:
        crew: Whose counts and slots are used.
        settings: The settings.
        given: Those of them that came from the command line.
        plan: Threads to use.

    Attributes:
        sender: Descriptor that workers write to.
    """

    def __init__(self, crew: Crew, settings: Settings, given: Mapping[str, Any], plan: Plan) -> None:
        self._crew = crew
        self._settings = settings
        self._given = dict(given)
        self._plan = plan
        kind = socket.SOCK_DGRAM if sys.platform != "win32" else socket.SOCK_STREAM
        self._sender, self._receiver = socket.socketpair(type=kind)
        self._sender.setblocking(False)
        self._sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE_BYTES)
        self.sender = self._sender.fileno()
        self._process: WorkerProcess | None = None
        self._label = ""
        self._wanted: tuple[Deployed, float] | None = None  # and tolerance
        self._reason = ""  # why the process was killed
        self._attempts = 0
        self._start_at = 0.0

    @property
    def processes(self) -> list[WorkerProcess]:
        """The one, if there is one."""
        return [] if self._process is None else [self._process]

    @property
    def slots(self) -> set[int]:
        """Slots of counts that are in use."""
        return set() if self._process is None else set(self._process.slots)

    def changing(self, trial: Trial) -> bool:
        """Whether a shadow that is asked for does not score yet."""
        return trial.shadow is not None and (self._process is None or not self._process.ready)

    def status(self) -> dict[str, Any] | None:
        """The process, for the admin API."""
        process = self._process
        if process is None or process.version is None:
            return None
        return {"process": process.process.pid, "version": process.version.version, "ready": process.ready}

    def due(self) -> list[float]:
        """When to look again (`monotonic`, seconds)."""
        process = self._process
        if process is None:
            return [self._start_at] if self._wanted is not None else []
        return [self._late_at(process)] if not self._reason else []

    def step(self, trial: Trial, *, stopping: bool) -> None:
        """Bring about what the trial asks for, a step at a time."""
        version = None if stopping else trial.shadow
        wanted = None if version is None or trial.wanted is None else (version, trial.wanted[0].tolerance)
        if wanted != self._wanted:
            self._wanted, self._attempts, self._start_at = wanted, 0, 0.0
            self._kill("unwanted")
        process = self._process
        if process is not None:
            process.listen()
            ended = process.ended()
            if ended is not None:
                self._note_end(process, *ended, trial)
            elif not self._reason and monotonic() >= self._late_at(process):
                self._kill("hung" if process.ready else "timeout")
        if self._process is None and self._wanted is not None and monotonic() >= self._start_at:
            self._start(*self._wanted)
        process = self._process
        scores = process is not None and process.ready and not self._reason
        cells = self._crew.cells
        cells.values[SHADOW] = float(lost_cells(cells, self._label)) if scores else 0.0

    def _late_at(self, process: WorkerProcess) -> float:
        """When it will have taken too long."""
        if not process.ready:
            return process.since + self._settings.reload_seconds
        return self._crew.cells.state_of(process.block)[BEAT] + self._settings.shadow_seconds

    def _start(self, version: Deployed, tolerance: float) -> None:
        part = self._crew.part(version)
        self._label = part.label or version.model_id
        self._reason = ""
        order = ShadowOrder(
            workers=self._plan.workers,
            block=shadow_block(self._plan.workers),
            cells=self._crew.descriptor,
            requests=self._receiver.fileno(),
            reports=-1,
            given=self._given,
            bundle=part.bundle,
            manifest_sha256=version.manifest_sha256,
            label=self._label,
            tolerance=tolerance,
            threads=self._plan.model_threads,
        )
        process, reports = start_process(
            [sys.executable, "-m", "service.trial.shadow"], order, (order.cells, order.requests), apart=True
        )
        self._process = WorkerProcess(process, order.block, (part.slot,), version, reports)

    def _kill(self, reason: str) -> None:
        """End the process at once: it holds nothing that anybody waits for."""
        if self._process is not None and not self._reason:
            self._reason = reason
            self._process.send(signal.SIGKILL)

    def _note_end(self, process: WorkerProcess, status: int, cpu_seconds: float, trial: Trial) -> None:
        cells = self._crew.cells
        cells.forget(process.block)
        cells.values[SPENT_SECONDS] += cpu_seconds
        self._process = None
        reason, self._reason = self._reason, ""
        if reason == "unwanted" or process.version is None or self._wanted is None:
            return
        kind, detail = process.why_ended(status)
        if reason:
            kind = reason
            detail = f"expected it to take less than {self._settings.shadow_seconds:g} s for a request, it took more"
        if process.told is not None and process.told.state == "failed":
            trial.refuse(process.version, kind, detail)
            return
        cells.values[end_cell(cells, self._label, "hung" if reason == "hung" else "ended")] += 1.0
        self._attempts = 1 if monotonic() - process.since >= _SETTLED_SECONDS else self._attempts + 1
        self._start_at = monotonic() + _FIRST_WAIT_SECONDS * 2 ** (self._attempts - 1)
        _log.error("shadow_lost", version=process.version.version, exit_status=status, reason=kind, error=detail)
        if self._attempts >= _ATTEMPTS or reason == "timeout":
            trial.refuse(process.version, kind, detail)
