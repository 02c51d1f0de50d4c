"""The supervisor: starts the workers, replaces one that ends, changes the version they serve, and ends them all.

It binds the listening socket and the file of the counts, which every worker inherits; whichever worker is free takes
the next connection. Workers are fresh processes: ONNX Runtime's threads do not survive a fork. The supervisor loads
neither it nor numpy nor a web framework, so that it takes little memory and has little to fail.

Another version is loaded by fresh processes too, one place after the other: what a bundle does to its process it does
to nobody who serves, and nobody waits for it. Once the new process scores, the old one takes no more connections, ends
those that it has after their next answer, and goes.

A worker ends with its supervisor: their standard input is a pipe that only this process holds open.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from service.counts.cells import REFUSED, SHARE, TRIAL_REFUSED
from service.logging import get_logger
from service.versions.rollout import Rollout
from service.versions.store import is_store
from service.workers.crew import Crew
from service.workers.order import HURRY
from service.workers.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from socketserver import UnixStreamServer
    from types import FrameType

    from service.settings import Settings
    from service.versions.store import Deployed
    from service.workers.place import Place, WorkerProcess
    from service.workers.plan import Plan

__all__ = ["START_ERROR", "Supervisor"]

START_ERROR: Final = 1
_IDLE_SECONDS: Final = 3600.0
_HANG_UP: Final = signal.SIGHUP if sys.platform != "win32" else signal.SIGTERM

_log: Final = get_logger("service.workers.supervisor")


class Supervisor:
    """Runs workers until told to stop.

    Args:
        settings: The settings.
        given: Those of them that came from the command line.
        plan: How many workers, and their threads.
        listener: Where clients connect; closed at the end.

    Attributes:
        rollout: Which version is served.
        crew: The workers.
    """

    def __init__(self, settings: Settings, given: Mapping[str, Any], plan: Plan, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._watch_seconds = settings.watch_seconds if is_store(settings.bundle) else 0.0
        self._look_at = monotonic() + self._watch_seconds if self._watch_seconds else 0.0
        self._told: list[int] = []  # signals that came since the last look
        self._asked: SimpleQueue[Callable[[], None]] = SimpleQueue()  # by other threads
        self._wake: socket.socket | None = None
        self._stop_by = 0.0  # when what is left will be killed; 0.0 while serving
        self._status = 0
        self.crew = Crew(settings, given, plan, listener)
        self.rollout = Rollout(settings.bundle, self._count_reload)
        self._hurried: Deployed | None = None  # what is taken up at full priority, having not come up at the lowest
        self._watchdog = Watchdog(self.crew.cells, settings.hang_seconds)

    def run(self) -> int:
        """Serve until told to stop.

        Returns:
            The exit status: 0 after a stop that was asked for, 1 if nothing could be served.
        """
        reader, writer = socket.socketpair()
        with reader, writer:
            writer.setblocking(False)
            reader.setblocking(False)
            self._wake = writer
            signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            signal.signal(signal.SIGCHLD, lambda *_: None)
            for number in (signal.SIGTERM, signal.SIGINT, _HANG_UP):
                signal.signal(number, self._note)
            self.rollout.begin()
            admin = self._serve_admin()
            while True:
                self._obey()
                self._reap()
                self.crew.keeper.step(self.rollout.trial, stopping=bool(self._stop_by))
                if self._stop_by and not self.crew.processes and not self.crew.keeper.processes:
                    break
                if not self._stop_by:
                    self._watch()
                    self._hear_of_canaries()
                    self._change_versions()
                    self._start_what_is_due()
                    self._watchdog.look(place.worker for place in self.crew.places if place.worker is not None)
                self._say()
                self.crew.kill_what_is_late()
                self._wait(reader)
            signal.set_wakeup_fd(-1)
            if admin is not None:
                admin.server_close()
        _log.info("all_stopped", process=os.getpid())
        return self._status

    def _serve_admin(self) -> UnixStreamServer | None:
        """The admin API, where it is asked for. A service goes on without it: it scores, and says what is wrong."""
        path = self._settings.admin_socket
        if path is None:
            return None
        from service.versions.admin import Admin  # noqa: PLC0415 - only where it is asked for

        try:
            return Admin(self, self._settings.bundle).serve(path)
        except OSError as error:
            _log.error("admin_failed", path=str(path), error=str(error))
            return None

    def status(self) -> dict[str, Any]:
        """What is served and what is to be, for the admin API; to be called on the supervisor's own thread."""
        return {
            **(found := self.rollout.status()),
            "changing": found["changing"] or self.crew.keeper.changing(self.rollout.trial),
            "shadow": self.crew.keeper.status(),
            "stopping": bool(self._stop_by),
            "workers": self.crew.status(),
        }

    def ask(self, what: Callable[[], None]) -> None:
        """Have something done on the supervisor's own thread; may be called on any."""
        self._asked.put(what)
        if self._wake is not None:
            self._wake.send(b"\0")

    def _say(self) -> None:
        """Let the workers know what is served, and tried."""
        values = self.crew.cells.values
        values[REFUSED] = float(self.rollout.refused)
        values[TRIAL_REFUSED] = float(self.rollout.trial.refused)
        values[SHARE] = self.rollout.share

    def _wait(self, reader: socket.socket) -> None:
        """Return once a signal came, a worker told something, or something is due."""
        self.crew.hear(reader.fileno(), self._idle_seconds())
        while True:
            try:
                reader.recv(4096)
            except BlockingIOError:
                return

    def _idle_seconds(self) -> float:
        """How long nothing needs doing unless a signal comes or a worker tells something."""
        due = [process.kill_by for process in self.crew.processes if process.kill_by is not None]
        if not self._stop_by:
            due += [place.due for place in self.crew.places if place.worker is None]
            due += [self._look_at] if self._look_at else []
            due += self.crew.keeper.due()
            due += [self._watchdog.due] if self._watchdog.due is not None else []
            due += [self.rollout.due] if not self.rollout.may_start else []
        return max(0.0, min(due, default=monotonic() + _IDLE_SECONDS) - monotonic())

    def _start_what_is_due(self) -> None:
        now = monotonic()
        for place in self.crew.places:
            if place.worker is None and place.due <= now:
                # A change of versions that nobody has come through yet is no reason to lose a worker.
                proven = self.crew.serves(self.rollout.target)
                place.worker = self.crew.start(place, self.rollout.target if proven else self.rollout.good)

    # ---- changing versions

    def _watch(self) -> None:
        if self._look_at and monotonic() >= self._look_at:
            self._look_at = monotonic() + self._watch_seconds
            self.rollout.look()

    def _hear_of_canaries(self) -> None:
        for process in self.crew.processes:
            fault, process.canary_fault = process.canary_fault, None
            if fault is not None:
                self.rollout.canary_failed(process.version, fault)

    def _change_versions(self) -> None:
        """Take the next step towards the target: one place after the other, each once the one before has come round."""
        target = self.rollout.target
        for place in self.crew.places:
            if place.incoming is not None and place.incoming.ready and place.incoming.version == target:
                self.crew.take_over(place, place.incoming)
        incoming = [place.incoming for place in self.crew.places if place.incoming is not None]
        for process in incoming:
            if process.version != target:  # it was overtaken by a further change
                process.kill_by = 0.0
        if incoming or target is None:
            return
        behind = [place for place in self.crew.places if place.worker is None or place.worker.version != target]
        if not behind:
            if all(place.worker is not None and place.worker.ready for place in self.crew.places):
                self.rollout.done()
                self._hurried = None
            return
        place = behind[0]
        # One that was lost is started again first; and the one that its block belonged to has to have gone.
        if place.worker is not None and self.crew.has_room(place) and self.rollout.may_start:
            # Where nobody serves, nobody is held up.
            low = self._hurried != target and any(
                one.worker is not None and one.worker.ready for one in self.crew.places
            )
            place.incoming = self.crew.start(place, target, low=low)
            if place.incoming is not None:
                seconds = self._settings.reload_seconds
                place.incoming.kill_by = monotonic() + (
                    min(seconds, self._settings.patience_seconds) if low else seconds
                )

    def _count_reload(self, outcome: str, reason: str) -> None:
        cells = self.crew.cells
        cells.values[cells.take(f"reloads {outcome} {reason}", 1)] += 1.0

    # ---- ending

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """A signal handler: it may come in the middle of a start, so it only takes note."""
        self._told.append(number)

    def _obey(self) -> None:
        while self._told:
            number = self._told.pop(0)
            if number == _HANG_UP and number != signal.SIGTERM:
                self.rollout.look(again=True)
                continue
            if not self._stop_by:
                self._stop(signal.Signals(number))
            elif number == signal.SIGINT:  # asked twice: at once
                self.crew.kill_all()
            else:
                self.crew.end_all(HURRY, min(self._stop_by, monotonic() + self.crew.end_seconds))
        while True:
            try:
                self._asked.get_nowait()()
            except Empty:
                return

    def _stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._stop_by:
            return
        served = number == signal.SIGTERM and self.crew.any_started()
        delay = self._settings.drain_seconds if served else 0.0
        self._stop_by = monotonic() + delay + self.crew.end_seconds
        self._listener.close()  # so that the last worker's close refuses new connections
        self.crew.end_all(number, self._stop_by)

    def _reap(self) -> None:
        for place, process, status in self.crew.reap():
            if process is place.retiring:
                place.retiring = None
            elif process is place.incoming:
                place.incoming = None
                self._did_not_come(process, status)
            else:
                place.worker = None
                self._lost(place, process, status)

    def _did_not_come(self, process: WorkerProcess, status: int) -> None:
        """A process that was to serve another version ended instead."""
        if self._stop_by or process.version != self.rollout.target:
            return
        low = self._hurried != process.version
        took, patience = monotonic() - process.since, self._settings.patience_seconds
        if low and process.told is None and patience <= took < self._settings.reload_seconds:
            # Those that serve leave it nothing. A version that takes all there is must be got rid of all the same.
            self._hurried = process.version
            _log.warning("reload_hurried", seconds=patience)
            return
        if took >= self._settings.reload_seconds:
            kind, detail = "timeout", f"expected it ready within {self._settings.reload_seconds:g} s, got no answer"
        else:
            kind, detail = process.why_ended(status)
        self.rollout.failed(kind, detail, proven=self.crew.serves(self.rollout.target))

    def _lost(self, place: Place, process: WorkerProcess, status: int) -> None:
        """A worker ended unasked."""
        if self._stop_by:
            return
        if not self.crew.any_started():
            sure = status == START_ERROR
            another = self.rollout.start_failed(process.version, *process.why_ended(status), sure=sure)
            if sure and another:
                return  # with which its place is filled at once
            if sure:
                # What cannot be served now cannot be served by another attempt; the worker's log says why.
                self._status = START_ERROR
                self._stop()
                return
        self.rollout.lost(process.version)
        self.crew.replace_soon(place, process, status)
