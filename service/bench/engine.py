"""The open loop: every request is sent when it is due, whatever became of those before it.

One thread, no framework. An arrival that is due takes an idle connection; where there is none it waits in line for the
first that comes free, and meanwhile another is opened, up to a limit. That wait is part of the latency, which always
counts from the time the arrival was *due*: a server that stops cannot hide the requests it kept from being sent
("coordinated omission", Gil Tene, *How NOT to Measure Latency*, 2015).
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from service.bench.http import AnswerReader
from service.bench.network import READ, WRITE, Network, Wire
from service.bench.records import ABANDONED, FOREVER, MALFORMED, RESET, TIMEOUT, Limits, Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["PAUSE_NS", "Engine"]

PAUSE_NS: Final = 2_000_000  # of the generator itself, from which on it is written down
_SPIN_NS: Final = 300_000  # spun before an arrival: more than a sleep overruns its end by
_LONGEST_WAIT_NS: Final = 50_000_000  # of a poll
_LOOK_NS: Final = 10_000_000  # between looks at the oldest request
_QUICK_NS: Final = 5_000  # a wait this short found something ready: that is work
_READ_BYTES: Final = 1 << 18


class _Connection:
    __slots__ = ("number", "reader", "request", "rest", "there", "wire")

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.number = wire.fileno()
        self.reader = AnswerReader()
        self.request = -1  # the arrival it serves
        self.rest: memoryview | None = None  # of a request that did not fit at once
        self.there = False


class Engine:
    """One run.

    Args:
        network: The machine.
        requests: Whole requests; arrival i sends the one at `i % len(requests)`.
        due: (N,) when each arrival is due, ns from the start.
        limits: How far to go.
        measured_from: The first arrival of the measured part: what the generator itself uses is counted from there.
    """

    def __init__(
        self,
        network: Network,
        requests: Sequence[bytes],
        due: NDArray[np.int64],
        limits: Limits,
        measured_from: int = 0,
    ) -> None:
        self._network = network
        self._now = network.now
        self._requests = requests
        self._due: list[int] = [*due.tolist(), FOREVER]
        self._count = len(due)
        self._limits = limits
        self._measured_from = measured_from
        self._taken, self._sent, self._ended = (array("q", [-1]) * self._count for _ in range(3))
        self._outcome = array("q", [ABANDONED]) * self._count
        self._next = 0
        self._next_due = FOREVER  # on the clock, once it has started
        self._start = 0
        self._connections: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[int] = deque()
        self._under_way: dict[int, _Connection] = {}  # arrival -> its connection, in the order of sending
        self._dialling = 0
        self._opened = 0
        self._received = 0
        self._idle_ns = 0
        self._since = 0  # the end of the last work, or of the last wait
        self._pauses: list[tuple[int, int]] = []
        self._marks: tuple[int, int, int] = (0, 0, 0)

    def run(self) -> Records:
        """Send everything, wait for what is on its way, and tell."""
        limits, now = self._limits, self._now
        self._warm_up()
        self._start = now()
        self._due = [due + self._start for due in self._due[:-1]] + [FOREVER]
        self._next_due = self._due[0]
        self._since = self._start
        self._mark()
        overloaded = False
        ended: tuple[int, int, int] | None = None
        look = 0
        while self._next < self._count or self._under_way or self._waiting:
            moment = now()
            if moment >= self._next_due:
                self._send_due()
                self._since = now()
            if ended is None and self._next >= self._count:
                ended = self._usage()
            if moment >= look:
                look = moment + _LOOK_NS
                age = moment - self._oldest_due()
                if age > limits.give_up_ns:
                    overloaded = True
                    break
                if age > limits.timeout_ns:
                    self._time_out(moment)
            self._poll(self._patience(moment))
        finish = ended or self._usage()
        self._waiting.clear()
        for connection in list(self._connections.values()):
            self._drop(connection)
        return self._records(finish, overloaded=overloaded)

    def _warm_up(self) -> None:
        end = self._now() + self._limits.timeout_ns
        for _ in range(min(self._limits.warm, self._limits.connections)):
            self._dial()
        while self._dialling and self._now() < end:
            self._poll(_LONGEST_WAIT_NS)

    def _patience(self, moment: int) -> int:
        """How long a poll may wait."""
        until = self._next_due - moment
        if not self._network.spins:
            return min(until, _LONGEST_WAIT_NS)
        if self._under_way or until <= _SPIN_NS:
            return 0
        return min(until - _SPIN_NS, _LONGEST_WAIT_NS)

    def _poll(self, patience: int) -> None:
        """Poll, handle what is ready; sends that come due in between go first."""
        now = self._now
        before = now()
        events = self._network.poll(patience)
        moment = now()
        took = moment - before
        overrun = took - max(patience, 0)
        if overrun > PAUSE_NS:
            self._pauses.append((moment - overrun, overrun))
        if not events:
            self._idle_ns += moment - self._since
            self._since = moment
            return
        if patience > 0 and took > _QUICK_NS:
            self._idle_ns += moment - self._since
        for number, event in events:
            connection = self._connections.get(number)
            if connection is not None:
                self._handle(connection, event)
            before, moment = moment, now()
            if moment - before > PAUSE_NS:
                self._pauses.append((before, moment - before))
            if moment >= self._next_due:
                self._send_due()
        self._since = now()

    def _handle(self, connection: _Connection, event: int) -> None:
        if connection.there and (connection.rest is None or event & READ):
            self._read(connection)
        elif event & ~(READ | WRITE):  # hung up or in error
            self._fail(connection, RESET)
        elif not connection.there:
            connection.there = True
            self._dialling -= 1
            self._network.watch(connection.wire, READ)
            self._free(connection)
        else:
            self._write(connection, connection.rest)

    def _send_due(self) -> None:
        now, due, idle = self._now, self._due, self._idle
        moment = now()
        while self._next_due <= moment:
            place = self._next
            if place == self._measured_from:
                self._mark()
            self._taken[place] = moment
            self._next = place + 1
            self._next_due = due[place + 1]
            if idle:
                self._start_on(idle.popleft(), place)
            else:
                self._waiting.append(place)
                if self._dialling < len(self._waiting) and len(self._connections) < self._limits.connections:
                    self._dial()
            moment = now()

    def _start_on(self, connection: _Connection, place: int) -> None:
        connection.request = place
        self._under_way[place] = connection
        request = self._requests[place % len(self._requests)]
        self._sent[place] = self._now()
        try:
            sent = connection.wire.send(request)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._fail(connection, RESET)
            return
        if sent < len(request):
            connection.rest = memoryview(request)[sent:]
            self._network.watch(connection.wire, READ | WRITE)

    def _write(self, connection: _Connection, rest: memoryview | None) -> None:
        if rest is None:
            return
        try:
            sent = connection.wire.send(rest)
        except BlockingIOError:
            return
        except OSError:
            self._fail(connection, RESET)
            return
        connection.rest = rest[sent:] if sent < len(rest) else None
        if connection.rest is None:
            self._network.watch(connection.wire, READ)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.wire.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        moment = self._now()
        self._received += len(data)
        if connection.request < 0:  # an idle connection was closed, or spoke unasked
            self._fail(connection, RESET)
            return
        try:
            answer = connection.reader.feed(data, ended=not data)
        except ValueError:
            self._fail(connection, MALFORMED)
            return
        if answer is None:
            if not data:
                self._fail(connection, RESET)
            return
        self._end(connection, answer.status, moment)
        # An answer before the whole request was sent is a refusal: what follows on this connection is undefined.
        if answer.last or connection.rest is not None:
            self._drop(connection)
        else:
            self._free(connection)

    def _end(self, connection: _Connection, outcome: int, moment: int) -> None:
        place = connection.request
        connection.request = -1
        self._ended[place] = moment
        self._outcome[place] = outcome
        del self._under_way[place]

    def _free(self, connection: _Connection) -> None:
        if self._waiting:
            self._start_on(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _fail(self, connection: _Connection, outcome: int) -> None:
        if connection.request >= 0:
            self._end(connection, outcome, self._now())
        elif not connection.there and self._waiting:  # the connection it waited for could not be opened
            place = self._waiting.popleft()
            self._ended[place] = self._now()
            self._outcome[place] = outcome
        self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        self._connections.pop(connection.number, None)
        if not connection.there:
            self._dialling -= 1
        elif connection.request < 0 and connection in self._idle:
            self._idle.remove(connection)
        self._network.forget(connection.wire)
        if self._waiting and self._dialling < len(self._waiting):
            self._dial()

    def _dial(self) -> None:
        connection = _Connection(self._network.dial())
        self._connections[connection.number] = connection
        self._dialling += 1
        self._opened += 1

    def _oldest_due(self) -> int:
        """When the oldest arrival that has no answer was due."""
        sent = next(iter(self._under_way), None)
        if sent is not None:
            return self._due[sent]
        return self._due[self._waiting[0]] if self._waiting else FOREVER

    def _time_out(self, moment: int) -> None:
        latest = moment - self._limits.timeout_ns
        while self._waiting and self._due[self._waiting[0]] < latest:
            place = self._waiting.popleft()
            self._ended[place] = moment
            self._outcome[place] = TIMEOUT
        while (place := next(iter(self._under_way), -1)) >= 0 and self._due[place] < latest:
            self._fail(self._under_way[place], TIMEOUT)

    def _usage(self) -> tuple[int, int, int]:
        return self._now(), self._idle_ns, self._network.cpu()

    def _mark(self) -> None:
        self._marks = self._usage()

    def _records(self, finish: tuple[int, int, int], *, overloaded: bool) -> Records:
        def times(values: array[int]) -> NDArray[np.int64]:
            found = np.frombuffer(values, dtype=np.int64)
            return np.where(found < 0, -1, found - self._start)

        span, idle, cpu = (last - first for last, first in zip(finish, self._marks, strict=True))
        pauses = np.array(self._pauses, dtype=np.int64).reshape(-1, 2)
        pauses[:, 0] -= self._start
        return Records(
            began_ns=self._start,
            due=np.array(self._due[:-1], dtype=np.int64) - self._start,
            taken=times(self._taken),
            sent=times(self._sent),
            ended=times(self._ended),
            outcome=np.frombuffer(self._outcome, dtype=np.int64),
            pauses=pauses,
            busy_ns=span - idle,
            cpu_ns=cpu,
            span_ns=span,
            connections=self._opened,
            received_bytes=self._received,
            overloaded=overloaded,
        )
