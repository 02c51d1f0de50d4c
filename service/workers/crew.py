"""The workers' places and the processes in them: starting, hearing, signalling, killing and reaping them."""

from __future__ import annotations

import select
import signal
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from service.counts.cells import RESTARTS, SPENT_SECONDS, STARTED, Cells, blocks_of, shared_file
from service.counts.slots import SlotTable
from service.logging import get_logger
from service.trial.keeper import Keeper
from service.workers.order import HURRY, RETIRE, Order, Part
from service.workers.place import Place, start_worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

    from service.settings import Settings
    from service.versions.store import Deployed
    from service.workers.place import WorkerProcess
    from service.workers.plan import Plan

__all__ = ["Crew"]

# A worker that lived this long has not failed at its start; the next wait begins at nothing again.
_SETTLED_SECONDS: Final = 60.0
_FIRST_WAIT_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 30.0
# After the time that requests in flight have: the server closes connections and the interpreter ends.
_GRACE_SECONDS: Final = 3.0
# For what is on its way in a process that a further change waits for: who sends a body for long holds up no rollback.
_HURRY_SECONDS: Final = 3.0

_log: Final = get_logger("service.workers.supervisor")


class Crew:
    """All serving processes of a supervisor.

    Args:
        settings: The settings.
        given: Those of them that came from the command line.
        plan: How many workers, and their threads.
        listener: Where clients connect.

    Attributes:
        places: One for each worker.
        cells: The supervisor's view of all counts.
        descriptor: The file of the counts.
        keeper: Of a shadow.
    """

    def __init__(self, settings: Settings, given: Mapping[str, Any], plan: Plan, listener: socket.socket) -> None:
        self._settings = settings
        self._given = dict(given)
        self._plan = plan
        self._listener = listener
        self.descriptor = shared_file(plan.workers)
        self.cells = Cells(plan.workers, None, descriptor=self.descriptor)
        self._slots = SlotTable(self.cells)
        self.keeper = Keeper(self, settings, given, plan)
        self.places = [Place(number, blocks_of(number, plan.workers)) for number in range(plan.workers)]

    @property
    def processes(self) -> list[WorkerProcess]:
        """All that were started and have not ended."""
        return [process for place in self.places for process in place.processes]

    @property
    def end_seconds(self) -> float:
        """How long a process may take to end once it takes no more requests."""
        return self._settings.shutdown_seconds + _GRACE_SECONDS

    def status(self) -> list[dict[str, Any]]:
        """Every process: its place, what it does there, what it serves."""
        roles = ("worker", "incoming", "retiring")
        return [
            {
                "worker": place.number,
                "role": role,
                "process": process.process.pid,
                "version": None if process.version is None else process.version.version,
                "canary": None
                if process.version is None or process.version.canary is None
                else process.version.canary.version,
                "ready": process.ready,
            }
            for place in self.places
            for role in roles
            if (process := getattr(place, role)) is not None
        ]

    def any_started(self) -> bool:
        """Whether any worker has ever served."""
        return any(self.cells.states(STARTED))

    def serves(self, version: Deployed | None) -> bool:
        """Whether a worker serves a version already."""
        workers = [place.worker for place in self.places if place.worker is not None]
        return any(worker.ready and worker.version == version for worker in workers)

    def start(self, place: Place, version: Deployed | None, *, low: bool = False) -> WorkerProcess | None:
        """Start a process for a place, unless both of its blocks are still in use.

        Args:
            place: Where it is to serve.
            version: What it is to serve; None for whatever is there.
            low: Others are at full strength: it gets ready with what they leave it, and serves only then.
        """
        block = place.free_block()
        if block is None:
            return None
        # Of two processes of a place one may be ready, and with it the service, while the other still starts: that one
        # must not take a connection, for all that it could say is that it is not ready.
        beside = place.worker is not None or place.incoming is not None
        part = self.part(version)
        canary = None if version is None or version.canary is None else self.part(version.canary, part.slot)
        order = Order(
            number=place.number,
            block=block,
            plan=self._plan,
            listener=self._listener.fileno(),
            cells=self.descriptor,
            shadow=self.keeper.sender,
            passage=place.passage,
            reports=-1,
            late=low or beside or bool(self.cells.states(STARTED)[place.number]),
            low=low,
            given=self._given,
            part=part,
            canary=canary,
        )
        return start_worker(order, version)

    def part(self, version: Deployed | None, *taken: int) -> Part:
        """A version as a process is told of it, with a slot for its counts beside those `taken`."""
        in_use = {slot for process in self.processes for slot in process.slots} | set(taken) | self.keeper.slots
        if version is None:
            return Part(str(self._settings.bundle), None, *self._slots.take(None, None, in_use))
        slot, label = self._slots.take(version.manifest_sha256, version.model_id, in_use)
        return Part(str(version.path), version.manifest_sha256, slot, label)

    def take_over(self, place: Place, process: WorkerProcess) -> None:
        """Let the process that was to come serve, and the one that served go."""
        place.worker, place.incoming, place.retiring = process, None, place.worker
        process.kill_by, place.wait = None, 0.0
        if place.retiring is not None:
            place.retiring.kill_by = monotonic() + self._settings.idle_seconds + self.end_seconds
            place.retiring.send(RETIRE)

    def has_room(self, place: Place) -> bool:
        """Whether another process may come to a place; else the one whose place was taken is to end soon."""
        if place.free_block() is not None:
            return True
        retiring = place.retiring
        by = monotonic() + _HURRY_SECONDS
        if retiring is not None and retiring.kill_by is not None and retiring.kill_by > by:
            retiring.kill_by = by
            retiring.send(HURRY)
        return False

    def hear(self, other: int, seconds: float) -> None:
        """Wait until a process tells something, `other` can be read, or so many seconds have passed."""
        processes = [*self.processes, *self.keeper.processes]
        tellers = [process.reports for process in processes if process.reports >= 0]
        select.select([other, *tellers], [], [], seconds)
        for process in processes:
            process.listen()

    def end_all(self, number: signal.Signals, by: float) -> None:
        """Signal all to end, and kill those that have not by then (`monotonic`, seconds)."""
        for process in self.processes:
            process.kill_by = by
            process.send(number)

    def kill_all(self) -> None:
        """Kill all at the next look."""
        for process in self.processes:
            process.kill_by = 0.0

    def kill_what_is_late(self) -> None:
        """Kill every process whose time is over."""
        for place in self.places:
            for process in place.processes:
                if process.kill_by is not None and process.kill_by <= monotonic():
                    _log.warning("worker_killed", worker=place.number, process=process.process.pid)
                    process.send(signal.SIGKILL)
                    process.kill_by = None  # the kernel ends it

    def reap(self) -> Iterator[tuple[Place, WorkerProcess, int]]:
        """Processes that have ended since the last time, still in their places, and their exit statuses."""
        for place in self.places:
            for process in place.processes:
                ended = process.ended()
                if ended is None:
                    continue
                status, cpu_seconds = ended
                self.cells.forget(process.block)
                self.cells.values[SPENT_SECONDS] += cpu_seconds
                yield place, process, status

    def replace_soon(self, place: Place, process: WorkerProcess, status: int) -> None:
        """Note that a worker was lost, and when to start another one: later each time that it does not live."""
        now = monotonic()
        if now - process.since >= _SETTLED_SECONDS:
            place.wait = 0.0
        place.due = now + place.wait
        self.cells.values[RESTARTS] += 1.0
        _log.error(
            "worker_lost",
            worker=place.number,
            process=process.process.pid,
            exit_status=status,  # minus the signal that ended it
            restart_seconds=place.wait,
        )
        place.wait = min(max(2 * place.wait, _FIRST_WAIT_SECONDS), _LONGEST_WAIT_SECONDS)
