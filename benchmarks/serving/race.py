"""Rounds: every server of a block is started once and frozen while another is measured, in an order that rotates."""

from __future__ import annotations

import math
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from benchmarks.serving.cells import (
    SERVICE_TIMES,
    Closed,
    LoadError,
    Measured,
    Open,
    least_disturbed,
    measure,
    unusable,
)
from benchmarks.serving.client import AnswerError, exchange, scores_of, stage_sums, stages_between
from benchmarks.serving.contestants import PORTS_EACH, Contestant, common_environment
from benchmarks.serving.figures import typical
from benchmarks.serving.payloads import BODIES, SCHEMAS, random_batches, read_requests, write_requests
from benchmarks.serving.processes import LOAD_CORE, Running, free_ports, pinned
from benchmarks.serving.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.serving.job import Job, Row

Record = dict[str, Any]

TOLERANCE: Final = 1e-5
"""Largest difference of a score from the model's."""
_START_SECONDS: Final = 90
_ATTEMPTS: Final = 2
_BREATH_SECONDS: Final = 0.1


class StartError(RuntimeError):
    """A server did not start."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One contestant, in one form, at one workload."""

    contestant: Contestant
    workload: str
    form: str

    @property
    def label(self) -> str:
        """Name in records: `service.columns`."""
        return f"{self.contestant.name}.{self.form}"


@dataclass
class Bodies:
    """Request files, made when first asked for.

    Attributes:
        folder: Where they lie.
        job: Gives the scores that answers must hold.
    """

    folder: Path
    job: Job
    _batches: dict[str, list[list[Row]]] = field(default_factory=dict)
    _scores: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def batches(self, workload: str) -> list[list[Row]]:
        """The rows of a workload's requests."""
        if workload not in self._batches:
            kind = WORKLOADS[workload]
            self._batches[workload] = random_batches(kind.rows, BODIES[kind.rows], shared=kind.shared)
        return self._batches[workload]

    def scores(self, workload: str, place: int) -> list[float]:
        """What the answer to one of its requests must hold."""
        if (workload, place) not in self._scores:
            self._scores[workload, place] = self.job(self.batches(workload)[place])
        return self._scores[workload, place]

    def file(self, entry: Entry) -> Path:
        """The requests of an entry."""
        contestant = entry.contestant
        schema = contestant.forms[entry.workload][entry.form]
        path = self.folder / f"{contestant.path.strip('/').replace('/', '-')}.{schema}.{entry.workload}"
        if not path.exists():
            requests = [SCHEMAS[schema].request(contestant.path, rows) for rows in self.batches(entry.workload)]
            write_requests(path, requests)
        return path


@dataclass
class Race:
    """Everything a measurement shares.

    Attributes:
        scratch: A folder for logs and bodies.
        bodies: The requests.
        retries: How often a noisy cell is measured again.
        say: Shows progress.
        spare: Seconds that are left for measuring again.
        records: What was measured.
        failed: Servers that could not take part, and why.
    """

    scratch: Path
    bodies: Bodies
    retries: int
    say: Callable[[str], None]
    spare: float = math.inf
    records: list[Record] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def block(self, name: str, contestants: Iterable[Contestant]) -> Iterator[Block]:
        """Start servers, check their answers, freeze them; stop them at the end."""
        found = [one for one in contestants if one.name not in self.failed]
        block = Block(self, name)
        try:
            for contestant in found:
                block.add(contestant)
            yield block
        finally:
            block.stop()


@dataclass
class Block:
    """Servers that are up together."""

    race: Race
    name: str
    _running: dict[str, tuple[Contestant, Running, int]] = field(default_factory=dict)
    _warm: set[str] = field(default_factory=set)

    def add(self, contestant: Contestant) -> None:
        """Start one server; one that cannot take part is written down."""
        race = self.race
        for attempt in range(_ATTEMPTS):
            try:
                self._start(contestant, free_ports(PORTS_EACH))
            except (StartError, AnswerError, OSError) as error:
                self.drop(contestant)
                if attempt + 1 < _ATTEMPTS:  # a port that was free may be another's by now
                    continue
                race.failed[contestant.name] = str(error)
                race.say(f"{contestant.name}: cannot take part: {error}")
            return

    def _start(self, contestant: Contestant, port: int) -> None:
        """Start one server.

        Raises:
            StartError: It ended, or did not answer in time.
            AnswerError: It answers other scores than the model's.
        """
        scratch = self.race.scratch
        command, environment = contestant.started_with(port)
        began = time.monotonic()
        running = Running(
            command,
            common_environment(scratch) | environment,
            scratch / f"{contestant.name}.log",
            freezable=not contestant.isolated,
        )
        self._running[contestant.name] = (contestant, running, port)
        entries = list(self.entries(contestant))
        first = read_requests(self.race.bodies.file(entries[0]))[0]
        while True:
            if running.exit_status is not None:
                raise StartError(f"it ended with {running.exit_status}: {running.log.read_text()[-300:]}")
            try:
                exchange(port, first)
                break
            except AnswerError as error:
                if time.monotonic() - began > _START_SECONDS:
                    raise StartError(f"no answer in {_START_SECONDS} s, last: {error}") from error
            time.sleep(0.05)
        seconds = time.monotonic() - began
        time.sleep(contestant.settle)
        for entry in entries:
            self._check(entry, port)
        self.race.say(f"{contestant.name}: up in {seconds:.1f} s, {len(running.pids())} process(es)")
        running.freeze()

    def _check(self, entry: Entry, port: int) -> None:
        """Ask for the first and the last of an entry's requests.

        Raises:
            AnswerError: An answer does not hold the model's scores.
        """
        requests = read_requests(self.race.bodies.file(entry))
        for place in (0, len(requests) - 1):
            media_type, body = exchange(port, requests[place])
            if not entry.contestant.scores:
                continue
            wanted, got = self.race.bodies.scores(entry.workload, place), scores_of(media_type, body)
            worst = max((abs(a - b) for a, b in zip(wanted, got, strict=False)), default=0.0)
            if len(wanted) != len(got) or not worst <= TOLERANCE:  # a NaN is not either
                raise AnswerError(
                    f"{entry.label}, {entry.workload}, request {place}: expected the model's {len(wanted)} scores "
                    f"within {TOLERANCE}, got {len(got)}, off by {worst}"
                )

    def drop(self, contestant: Contestant) -> None:
        """Stop one server."""
        found = self._running.pop(contestant.name, None)
        if found is not None:
            found[1].stop()

    def stop(self) -> None:
        """Stop all."""
        for contestant, _, _ in list(self._running.values()):
            self.drop(contestant)

    @staticmethod
    def entries(contestant: Contestant) -> Iterator[Entry]:
        """All that a contestant can be asked."""
        for workload, forms in contestant.forms.items():
            for form in forms:
                yield Entry(contestant, workload, form)

    def takers(self, workload: str) -> list[Entry]:
        """Entries of the servers that are up."""
        return [
            entry
            for contestant, _, _ in self._running.values()
            for entry in self.entries(contestant)
            if entry.workload == workload
        ]

    def answer_bytes(self, server: str, workload: str, form: str) -> int:
        """Length of a server's answer."""
        contestant, running, port = self._running[server]
        running.thaw()
        try:
            request = read_requests(self.race.bodies.file(Entry(contestant, workload, form)))[0]
            return len(exchange(port, request)[1])
        finally:
            running.freeze()

    @contextmanager
    def under_load(self, entry: Entry, seconds: float) -> Iterator[int]:
        """Load a server for a while; yields its process's id."""
        contestant, running, port = self._running[entry.contestant.name]
        kind = WORKLOADS[entry.workload]
        url = f"http://127.0.0.1:{port}{contestant.path}"
        load = Closed(url, self.race.bodies.file(entry), kind.rows, kind.connections, seconds)
        running.thaw()
        setup = pinned(LOAD_CORE)
        generator = subprocess.Popen(load.command(), stdout=subprocess.DEVNULL, preexec_fn=setup)  # noqa: PLW1509
        try:
            yield running.pids()[0]
        finally:
            generator.wait()
            running.freeze()

    def visit(self, entry: Entry, turn: int, seconds: float, rate: float | None = None, **facts: object) -> None:
        """Measure one entry; a cell that cannot be used is kept with the reason, and no figure is made of it.

        Args:
            entry: What to measure.
            turn: The round.
            seconds: How long.
            rate: Requests a second of an open loop; None for a closed one.
            facts: For the record.
        """
        race = self.race
        mode = "closed" if rate is None else "open"
        record = {"block": self.name, "round": turn, "workload": entry.workload, "entry": entry.label, "mode": mode}
        record |= {"rate": rate} | facts
        running = self._running[entry.contestant.name][1]
        running.thaw()
        try:
            record |= self._measure(entry, seconds, rate)
        except (LoadError, AnswerError, OSError) as error:
            record |= {"error": str(error), "errors": 0}
        finally:
            running.freeze()
        race.records.append(record)
        reason = unusable(record)
        if reason is not None:
            race.say(f"  {entry.workload:13} {entry.label:28} {mode:6} NOT USED: {reason}")
            return
        race.say(
            f"  {entry.workload:13} {entry.label:28} {mode:6} {record['requests_per_second']:9.1f} req/s"
            f"  p50 {record['p50_ms']:7.3f}  p99 {record['p99_ms']:7.3f} ms  cpu {record['cpu_us']:8.1f} us"
            f"  noise {record['noise']:.2f}"
        )

    def leave_out(self, entry: Entry, turn: int, reason: str, **facts: object) -> None:
        """Write down that an open-loop cell was not measured."""
        where = {"block": self.name, "round": turn, "workload": entry.workload, "entry": entry.label, "mode": "open"}
        self.race.records.append(where | facts | {"error": reason, "errors": 0})

    def _measure(self, entry: Entry, seconds: float, rate: float | None) -> Measured:
        """Load a server that is up, and ask it once more: load must not have changed what it answers.

        Raises:
            LoadError: The generator failed.
            AnswerError: There were no answers, or others than the model's.
        """
        race = self.race
        contestant, running, port = self._running[entry.contestant.name]
        kind = WORKLOADS[entry.workload]
        file, url = race.bodies.file(entry), f"http://127.0.0.1:{port}{contestant.path}"
        time.sleep(_BREATH_SECONDS)
        if contestant.name not in self._warm:
            measure(running, Closed(url, file, kind.rows, kind.connections, 1))
            self._warm.add(contestant.name)
        load: Closed | Open = Closed(url, file, kind.rows, kind.connections, seconds)
        if rate is not None:
            fastest = typical(race.records, (entry.workload, entry.label), "requests_per_second")
            load = Open(url, file, kind.rows, rate, seconds, SERVICE_TIMES / fastest if fastest else math.inf)

        took: list[float] = []

        def attempt() -> Measured:
            began = time.monotonic()
            counted = stage_sums(port) if contestant.kind == "service" else None
            found = measure(running, load)
            if counted is not None:
                found["stages_us"] = stages_between(counted, stage_sums(port))
            took.append(time.monotonic() - began)
            return found

        found = least_disturbed(attempt, race.retries if race.spare > 0 else 0)
        race.spare -= sum(took[1:])
        if not found["errors"]:
            self._check(entry, port)
        return found


def rotated(entries: Sequence[Entry], turn: int) -> list[Entry]:
    """The same entries, starting with another each round."""
    shift = (3 * turn) % max(1, len(entries))
    return [*entries[shift:], *entries[:shift]]
