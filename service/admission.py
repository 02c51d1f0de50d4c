"""Admission: which long requests are taken, in what order, and which are refused while that is still cheap.

Long bodies are scored by worker threads, so they queue. Work is counted in candidates, for those are what takes time;
how many a body holds is guessed from its length, and corrected by every one that was scored. What cannot be scored by
its deadline is refused by its head, before its body has come, or once it has come, before it is decoded, or when its
turn comes, before it is computed. Who hangs up leaves the queue. Short bodies are scored as they come and queue nowhere
but in the sockets: to refuse one costs what it costs to score it.

Runs on the event loop, except for what the threads do: they take the next request themselves.
"""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

from service.errors import ClientGoneError, HeaderError, NotReadyError, OverloadedError, QueueFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    from service.metrics import ServiceMetrics
    from service.pipeline import Stages, Work

    Watch = Callable[[Callable[[], None] | None], None]

__all__ = ["Gate", "Terms", "is_low", "read_deadline"]

_DEADLINE: Final = b"x-request-deadline-ms"
_PRIORITY: Final = b"x-request-priority"
LONGEST_MS: Final = 600_000
_MOST_DIGITS: Final = 10
# The less urgent may fill this share of the queue: what is urgent then still finds room.
_LOW_SHARE: Final = 0.5
# How fast estimates follow what was measured, and how many times as much as expected one request counts at most.
_PACE: Final = 0.1
_MOST_JUMP: Final = 10.0
# Estimates learn from what is scored. Where all is refused for what they say, they would stay for ever: after so long
# one request is tried whatever they say, if nothing else is in the way.
_DOUBT_SECONDS: Final = 0.5
_FIRST_GUESS_BYTES: Final = 64.0  # a candidate
_INFLATES: Final = 5.0
# What a request must have left when its turn comes, in its own expected times: the answer has to be written and sent.
_MARGIN: Final = 1.5


class Head(Protocol):
    """What a request's headers say."""

    length: int
    compressed: bool
    deadline_seconds: float | None
    low: bool


class Terms:
    """On what terms a request is to be scored.

    Args:
        head: What its headers say.
        arrived: When its head was there (`perf_counter`, seconds).
        seconds: How long it may take if it does not say.

    Attributes:
        compressed: Its body is.
        deadline: By when it has to be answered (`perf_counter`, seconds).
        stated: It says so itself.
        low: It may be left out first.
        tried: It is scored whatever was expected, to learn whether that is still so.
    """

    __slots__ = ("compressed", "deadline", "low", "stated", "tried")

    def __init__(self, head: Head, arrived: float, seconds: float) -> None:
        own = head.deadline_seconds
        self.stated = own is not None
        self.deadline = arrived + (seconds if own is None else own)
        self.low = head.low
        self.compressed = head.compressed
        self.tried = False


def read_deadline(named: Mapping[bytes, bytes]) -> float | None:
    """Within how many seconds a request wants its answer; None if it does not say.

    Raises:
        HeaderError: It says something else.
    """
    text = named.get(_DEADLINE)
    if text is None:
        return None
    if not text.isdigit() or len(text) > _MOST_DIGITS or not 1 <= int(text) <= LONGEST_MS:
        raise HeaderError("X-Request-Deadline-Ms", f"a whole number from 1 to {LONGEST_MS}", text)
    return int(text) / 1000


def is_low(named: Mapping[bytes, bytes]) -> bool:
    """Whether a request may be left out first.

    Raises:
        HeaderError: Its priority is none that there is.
    """
    priority = named.get(_PRIORITY, b"normal").lower()
    if priority not in {b"normal", b"low"}:
        raise HeaderError("X-Request-Priority", "normal or low", priority)
    return priority == b"low"


class _Entry:
    """A request that waits, or is being scored.

    Attributes:
        candidates: As guessed.
        done: Set when it has its answer, or will have none.
    """

    __slots__ = ("candidates", "done", "stages", "terms", "work")

    def __init__(self, stages: Stages[Any], work: Work, terms: Terms, candidates: float) -> None:
        self.stages = stages
        self.work = work
        self.terms = terms
        self.candidates = candidates
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Gate:
    """Queue and door of one process's worker threads.

    Args:
        executor: The threads.
        threads: How many.
        most_candidates: Most candidates that wait.
        seconds: How long a request may take if it does not say.
        metrics: Where what was refused is counted.
    """

    def __init__(
        self, executor: Executor, threads: int, most_candidates: int, seconds: float, metrics: ServiceMetrics
    ) -> None:
        self._executor = executor
        self._threads = threads
        self._most = most_candidates
        self._default_seconds = seconds
        self._metrics = metrics
        self._lock = threading.Lock()  # of all that follows
        self._queues: dict[bool, dict[_Entry, None]] = {False: {}, True: {}}  # by whether they may be left out
        self._waiting = {False: 0.0, True: 0.0}  # candidates
        self._running = 0
        self._running_candidates = 0.0
        self._bytes_each = _FIRST_GUESS_BYTES  # a candidate
        self._seconds_each = 0.0  # a candidate in one thread; not known yet
        self._doubted_since: float | None = None  # all is refused for these two since then

    def look(self, head: Head, *, long: bool) -> Terms:
        """A request's terms; refuses it by its head if its body is long and there is no hope for it.

        Raises:
            OverloadedError: It cannot be scored in time.
            QueueFullError: Too many candidates wait.
        """
        now = perf_counter()
        terms = Terms(head, now, self._default_seconds)
        if long and head.length:
            self._check(terms, self._guess(head.length, terms), now)
        return terms

    def refuse_late(self, work: Work) -> None:
        """Refuse a request that is scored at once, where its deadline has passed before that.

        Raises:
            OverloadedError: It has.
        """
        if work.due and perf_counter() > work.due:
            self._metrics.count_shed("expired")
            raise OverloadedError("its deadline came before its body, or before its turn", 0.0)

    async def run(
        self, stages: Stages[Any], work: Work, terms: Terms, watch: Watch, *, rows: int | None = None
    ) -> None:
        """Fill in the answer of a request in a worker thread; see `Stages.run`.

        Args:
            stages: What runs it.
            work: The request, its body not decoded yet.
            terms: On what terms.
            watch: Has itself told what to do when the client hangs up; None for nothing.
            rows: Its candidates, where they are known.

        Raises:
            OverloadedError: It cannot be scored in time.
            QueueFullError: Too many candidates wait.
            ClientGoneError: Its client hung up before its turn.
        """
        candidates = self._guess(len(work.body), terms) if rows is None else float(rows)
        self._check(terms, candidates, perf_counter())
        loop = asyncio.get_running_loop()
        entry = _Entry(stages, work, terms, candidates)
        with self._lock:
            self._queues[terms.low][entry] = None
            self._waiting[terms.low] += candidates
            idle = self._running < self._threads
            if idle:
                self._running += 1
        if idle:
            try:
                self._executor.submit(self._serve, loop)
            except RuntimeError:  # the service is stopping
                self._leave(entry)
                raise NotReadyError("Not ready: the service is stopping.") from None
        timer = loop.call_later(max(0.0, terms.deadline - perf_counter()), self._expire, entry)
        watch(partial(self._cancel, entry))
        try:
            await entry.done
        finally:
            watch(None)
            timer.cancel()
            self._leave(entry)

    def _guess(self, length: int, terms: Terms) -> float:
        return max(1.0, length * (_INFLATES if terms.compressed else 1.0) / self._bytes_each)

    def _check(self, terms: Terms, candidates: float, now: float) -> None:
        """Refuse what has no room, or no hope."""
        waiting = self._waiting[False] + (self._waiting[True] if terms.low else 0.0)
        ahead = waiting + self._running_candidates
        most = self._most * (_LOW_SHARE if terms.low else 1.0)
        seconds = ahead * self._seconds_each / self._threads
        if waiting and sum(self._waiting.values()) + candidates > most:
            self._metrics.count_shed("queue_full")
            raise QueueFullError(int(most), seconds)
        # Alone, it may take what it takes, unless it says by when it is of use.
        if (ahead or terms.stated) and now + seconds + candidates * self._seconds_each > terms.deadline:
            if not ahead and self._is_to_be_tried(terms, now):
                return
            self._metrics.count_shed("hopeless")
            raise OverloadedError("it could not be scored by its deadline", seconds)

    def _is_to_be_tried(self, terms: Terms, now: float) -> bool:
        """Whether to score what there is no hope for, because nothing has been scored for a while."""
        if terms.tried:
            return True
        if self._doubted_since is None:
            self._doubted_since = now
        elif now - self._doubted_since > _DOUBT_SECONDS:
            self._doubted_since = now  # should nothing come of this one
            terms.tried = True
        return terms.tried

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Score one after the other until none waits (in a worker thread): none waits for the event loop's turn."""
        entry, learnt = self._next(loop), None
        while entry is not None:
            began = perf_counter()
            error: Exception | None = None
            try:
                entry.stages.run(entry.work)
            except Exception as caught:  # noqa: BLE001 - whatever it is belongs to the request
                error = caught
            else:
                learnt = (perf_counter() - began, len(entry.work.scores), len(entry.work.body))
            loop.call_soon_threadsafe(_tell, entry, error)
            entry, learnt = self._next(loop, entry, learnt), None

    def _next(
        self,
        loop: asyncio.AbstractEventLoop,
        last: _Entry | None = None,
        learnt: tuple[float, int, int] | None = None,
    ) -> _Entry | None:
        """What is to be scored next, None for nothing; learns from the last one's seconds, candidates and bytes."""
        with self._lock:
            if last is not None:
                self._running_candidates -= last.candidates
                if learnt is not None:
                    self._learn(*learnt, tried=last.terms.tried)
            while queue := self._queues[False] or self._queues[True]:
                entry = next(iter(queue))
                self._remove(entry)
                left = entry.terms.deadline - perf_counter()
                others = self._running > 1 or self._queues[False] or self._queues[True]
                expected = 0.0 if entry.terms.tried else entry.candidates * self._seconds_each * _MARGIN
                if left > expected or not (entry.terms.stated or others):
                    self._running_candidates += entry.candidates
                    return entry
                loop.call_soon_threadsafe(self._give_up, entry)
            self._running -= 1
            return None

    def _learn(self, seconds: float, candidates: int, size: int, *, tried: bool) -> None:
        """Follow what a request took; one that was tried against all expectation says how it is."""
        each, bytes_each, pace = seconds / candidates, size / candidates, _PACE
        if tried or not self._seconds_each:
            self._seconds_each = each
        else:
            self._seconds_each += (min(each, self._seconds_each * _MOST_JUMP) - self._seconds_each) * pace
        if tried:
            pace = 1.0
        self._bytes_each += (min(bytes_each, self._bytes_each * _MOST_JUMP) - self._bytes_each) * pace
        self._doubted_since = None

    def _expire(self, entry: _Entry) -> None:
        """The deadline of a request is over; one that is being scored already is answered all the same."""
        if self._leave(entry):
            self._give_up(entry)

    def _cancel(self, entry: _Entry) -> None:
        """Nobody waits for a request any more; one that is being scored goes on, as no thread can be stopped."""
        if self._leave(entry):
            self._metrics.count_shed("gone")
            _tell(entry, ClientGoneError("The client hung up while its request waited."))

    def _give_up(self, entry: _Entry) -> None:
        self._metrics.count_shed("expired")
        waiting = sum(self._waiting.values()) + self._running_candidates
        _tell(entry, OverloadedError("its deadline came before its turn", waiting * self._seconds_each / self._threads))

    def _leave(self, entry: _Entry) -> bool:
        """Take a request out of the queue; false where it was in it no more."""
        with self._lock:
            if entry not in self._queues[entry.terms.low]:
                return False
            self._remove(entry)
            return True

    def _remove(self, entry: _Entry) -> None:
        low = entry.terms.low
        queue = self._queues[low]
        del queue[entry]
        self._waiting[low] = self._waiting[low] - entry.candidates if queue else 0.0  # no rounding stays


def _tell(entry: _Entry, error: Exception | None) -> None:
    """Wake who waits for a request."""
    if entry.done.done():  # nobody does
        return
    if error is None:
        entry.done.set_result(None)
    else:
        entry.done.set_exception(error)
