"""What workers hand to a shadow: answered requests and their scores, over a queue in the kernel that is bounded.

Off the response path: answers of a turn of the event loop are on their way before any of them is handed over. Nothing
waits: what the queue has no room for is dropped and counted, and for a moment nothing more is tried, so that a shadow
that hangs costs an addition a request.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from service.counts.cells import SHADOW
from service.trial.names import DROPPED, TOO_LONG

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.counts.cells import Cells
    from service.pipeline import Work

__all__ = ["INFER_FORM", "LONGEST", "SCORE_FORM", "Asked", "Feed", "read_message"]

LONGEST: Final = 1 << 22
"""Bytes of a message, at most; the kernel may allow less."""

SCORE_FORM, INFER_FORM = range(2)  # the form of a request
_HEAD: Final = struct.Struct("=BBiI")
_NONE: Final = -1
_MOST_QUEUED: Final = 256
_PAUSE_SECONDS: Final = 0.01


class Asked(NamedTuple):
    """A request as it comes to the shadow.

    Attributes:
        form: `SCORE_FORM` or `INFER_FORM`.
        packed: Its body is MessagePack.
        header_length: Bytes of the body's JSON part, of the second form; None where that is the whole body.
        scores: What was answered, (N,).
        body: Not compressed.
    """

    form: int
    packed: bool
    header_length: int | None
    scores: NDArray[np.float32]
    body: bytes


class Feed:
    """Hands a worker's requests over. On its event loop.

    Args:
        cells: Counts shared with the supervisor, which says whether there is a shadow.
        descriptor: Where to write.
    """

    def __init__(self, cells: Cells, descriptor: int) -> None:
        self._supervisor = cells.supervisor
        self._values = cells.values
        self._socket = socket.socket(fileno=descriptor)
        self._queue: list[tuple[int, Any]] = []
        self._full_until = 0.0

    def offer(self, form: int, work: Work) -> None:
        """Hand over a request that was answered, if there is a shadow."""
        if self._supervisor is None or not self._supervisor[SHADOW]:
            return
        if len(self._queue) >= _MOST_QUEUED:
            self._lose(DROPPED)
            return
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._send)
        self._queue.append((form, work))

    def _send(self) -> None:
        queue, self._queue = self._queue, []
        now = monotonic()
        for form, work in queue:
            if now < self._full_until:
                self._lose(DROPPED)
                continue
            length = getattr(work, "header_length", None)
            head = _HEAD.pack(form, work.packed, _NONE if length is None else length, len(work.scores))
            try:
                self._socket.sendmsg((head, work.scores.data, work.body))
            except BlockingIOError:
                self._full_until = now + _PAUSE_SECONDS
                self._lose(DROPPED)
            except OSError:
                self._lose(TOO_LONG)

    def _lose(self, why: int) -> None:
        first = 0 if self._supervisor is None else int(self._supervisor[SHADOW])
        if first:
            self._values[first + why] += 1.0


def read_message(content: memoryview) -> Asked:
    """What `Feed` wrote, copied out."""
    form, packed, length, candidates = _HEAD.unpack_from(content)
    end = _HEAD.size + 4 * candidates
    scores = np.frombuffer(content[_HEAD.size : end], np.float32).copy()
    return Asked(form, bool(packed), None if length == _NONE else length, scores, bytes(content[end:]))
