"""Coalescing: requests that are queued already share one call of the model. Off unless it was measured to help.

Nothing ever waits for company. On the event loop, requests whose bodies came in during one turn are queued behind
each other whatever is done with them; they are read one by one, and scored together at the end of that turn. In front
of the worker threads, requests queue while a thread computes; the thread that is free next takes as many as fit. A
request that is alone takes the plain path.

A shared call has a context row for each candidate, so the context's part of the model is computed once a candidate and
no longer once a request: this pays where requests are small and a call's fixed cost is most of it, and nowhere else.
Hence the bound on candidates, and hence `python -m service advise`.

Requests stay apart: each is read and written on its own, and if the shared call fails each is scored on its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from service.pipeline import Pipeline, Work

__all__ = ["Coalescer", "infer_together"]

Entry = tuple["Work", "asyncio.Future[None]"]


class Coalescer:
    """Scores requests of one event loop, several in one call where they are queued anyway.

    Args:
        pipeline: The model.
        most_candidates: Most candidates in one call; a request that has as many or more is scored by itself.
        in_flight: How many requests the server holds, those included whose turn has not come yet. None if it cannot
            say: then every request waits for the end of its turn.
        threads: Worker threads for long bodies.
    """

    def __init__(
        self, pipeline: Pipeline, *, most_candidates: int, in_flight: Callable[[], int] | None, threads: Executor
    ) -> None:
        self._pipeline = pipeline
        self._most = most_candidates
        self._in_flight = in_flight
        self._threads = threads
        self._turn: list[Entry] = []  # read, and waiting for the end of this turn
        self._rows = 0
        self._queue: deque[Entry] = deque()  # not read yet, and waiting for a thread
        self._lock = threading.Lock()

    async def run(self, work: Work) -> None:
        """Fill in the answer of a request on the event loop; see `Pipeline.run`."""
        if self._in_flight is not None and self._in_flight() <= 1:
            self._pipeline.run(work)
            return
        self._pipeline.read(work)
        rows = len(work.candidate_ids)
        loop = asyncio.get_running_loop()
        if self._rows + rows > self._most:
            self._score(self._turn)  # they go ahead, and are answered before the call that this request is part of
        if not self._turn:
            # Runs after everything that is due in this turn already, and before whatever comes in later.
            loop.call_soon(self._score, self._turn)
        done = loop.create_future()
        self._turn.append((work, done))
        self._rows += rows
        await done
        self._pipeline.write(work)

    def _score(self, turn: list[Entry]) -> None:
        """Score those who wait for the end of a turn."""
        if not turn or turn is not self._turn:  # nobody, or they went ahead
            return
        self._turn, self._rows = [], 0
        _tell(list(zip(turn, infer_together(self._pipeline, [work for work, _ in turn]), strict=True)))

    async def run_in_thread(self, work: Work) -> None:
        """Fill in the answer of a request in a worker thread; see `Pipeline.run`."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._queue.append((work, done))
        # One job a request. A job that finds its request taken along by an earlier one has nothing to do.
        self._threads.submit(self._serve_queue, loop)
        await done

    def _serve_queue(self, loop: asyncio.AbstractEventLoop) -> None:
        """Score the request that has waited longest, and those behind it that fit with it (in a worker thread)."""
        batch: list[Entry] = []
        rows = bytes_read = 0
        while (entry := self._next(rows, bytes_read)) is not None:
            work = entry[0]
            try:
                self._pipeline.read(work)
            except Exception as error:  # noqa: BLE001 - whatever it is belongs to this request alone
                loop.call_soon_threadsafe(_tell, [(entry, error)])
                if not batch:  # the others have jobs of their own
                    return
                continue
            count = len(work.candidate_ids)
            if batch and rows + count > self._most:  # more of them than its length promised
                self._finish(batch, loop)
                batch, rows, bytes_read = [], self._most, 0  # and nothing goes with this one
            batch.append(entry)
            rows += count
            bytes_read += len(work.body)
        if batch:
            self._finish(batch, loop)

    def _next(self, rows: int, bytes_read: int) -> Entry | None:
        """Take the request that has waited longest, if it is likely to fit behind what was read."""
        with self._lock:
            if not self._queue:
                return None
            if rows:
                # Reading it only to find that it does not fit would make the others wait: guess by its length.
                candidates = len(self._queue[0][0].body) * rows // bytes_read if bytes_read else 1
                if rows + candidates > self._most:
                    return None
            return self._queue.popleft()

    def _finish(self, batch: list[Entry], loop: asyncio.AbstractEventLoop) -> None:
        errors = infer_together(self._pipeline, [work for work, _ in batch])
        for place, (work, _) in enumerate(batch):
            if errors[place] is None:
                try:
                    self._pipeline.write(work)
                except Exception as error:  # noqa: BLE001 - as above
                    errors[place] = error
        loop.call_soon_threadsafe(_tell, list(zip(batch, errors, strict=True)))


def infer_together(pipeline: Pipeline, works: Sequence[Work]) -> list[Exception | None]:
    """Score requests that have been read, in one call if there are several.

    What a request waited for the others is added to the time before it was read, so that its stages say what they say
    without company: `queue` is waiting, `infer` the call.

    Args:
        pipeline: The model.
        works: Requests with ids; they get scores.

    Returns:
        For each what went wrong with it, None for nothing.
    """
    began = perf_counter()
    for work in works:
        work.lag = began - work.encoded
    if len(works) > 1:
        with contextlib.suppress(Exception):  # whosever fault it is, it shows below
            scores = pipeline.infer(_contexts(works), np.concatenate([work.candidate_ids for work in works]))
            inferred = perf_counter()
            first = 0
            for work in works:
                last = first + len(work.candidate_ids)
                work.scores = scores[first:last]
                work.inferred = inferred - work.lag
                first = last
            return [None] * len(works)
    errors: list[Exception | None] = []
    for work in works:
        try:
            _infer_alone(pipeline, work)
        except Exception as error:  # noqa: BLE001 - the others shall not suffer from it
            errors.append(error)
        else:
            errors.append(None)
    return errors


def _infer_alone(pipeline: Pipeline, work: Work) -> None:
    work.scores = pipeline.infer(work.context_ids, work.candidate_ids)
    work.inferred = perf_counter() - work.lag


def _contexts(works: Sequence[Work]) -> NDArray[np.int32]:
    """Context ids with one row for each candidate of all requests, (sum of N, Cc)."""
    contexts = np.concatenate([work.context_ids for work in works])
    repeats: list[int] = []
    for work in works:
        rows, candidates = len(work.context_ids), len(work.candidate_ids)
        repeats += [candidates] if rows == 1 else [1] * rows
    return contexts if len(contexts) == sum(repeats) else np.repeat(contexts, repeats, axis=0)


def _tell(outcomes: Sequence[tuple[Entry, Exception | None]]) -> None:
    """Wake those who wait for these requests, in order (on the event loop)."""
    for (_, done), error in outcomes:
        if done.done():  # nobody waits any more
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
