"""Writes the log on a thread of its own, so that nobody who logs waits for whoever reads.

A pipe that is full holds up its writer until somebody reads: a collector that stands still would stop an event loop in
the middle of an answer, probes and the end of the process included. Here lines wait in bounded memory, and what finds
no room is lost; once there is room again, a line says how many were.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LogWriter"]

_MOST_CHARACTERS: Final = 4 << 20
# The first line goes out at once; those that follow go together, for each waking of a thread costs its loop some.
_PAUSE_SECONDS: Final = 0.05
_END_SECONDS: Final = 1.0
# What a pipe takes in one piece (`PIPE_BUF` of Linux): several processes write to it.
_PIECE_BYTES: Final = 4096


class Stream(Protocol):
    """What is written to."""

    def fileno(self) -> int:
        """Its descriptor; an OSError where it has none."""

    def write(self, text: str, /) -> object:
        """Take text."""


class LogWriter:
    """What a log handler takes for its stream. Any thread may write.

    Args:
        stream: Where lines go: by its descriptor, where it has one.
        tell_lost: The line that says how many were lost.
        most: Most characters that wait.
    """

    def __init__(self, stream: Stream, tell_lost: Callable[[int], str], *, most: int = _MOST_CHARACTERS) -> None:
        self._stream = stream
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):  # of a test, in memory
            self._descriptor = stream.fileno()
        self._tell_lost = tell_lost
        self._most = most
        self._lock = threading.Lock()  # of what follows
        self._lines: list[str] = []
        self._waiting = 0  # characters, those being written included
        self._lost = 0
        self._work = threading.Event()
        self._ending = threading.Event()
        # A daemon: what stands still holds up no end.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, line: str) -> None:
        """Take a line, or several, with their ends."""
        with self._lock:
            if self._waiting + len(line) > self._most:
                self._lost += line.count("\n")
            else:
                self._lines.append(line)
                self._waiting += len(line)
        self._work.set()  # for a lost line too: it is told though no other follows

    def flush(self) -> None:
        """Nothing: whoever logs does not wait."""

    def close(self, seconds: float = _END_SECONDS) -> None:
        """Write what is there, unless that takes long; no line is written after that."""
        self._ending.set()
        self._work.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            ending = self._ending.is_set()
            with self._lock:
                lines, self._lines = self._lines, []
                lost, self._lost = self._lost, 0
            if lost:
                lines.append(self._tell_lost(lost))
            for text in _pieces(lines):
                self._put(text)
            with self._lock:
                self._waiting = sum(map(len, self._lines))
            if ending:
                return
            self._ending.wait(_PAUSE_SECONDS)

    def _put(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or there is no room
            if self._descriptor is None:
                self._stream.write(text)
                return
            left = text.encode("utf-8", "backslashreplace")
            while left:
                left = left[os.write(self._descriptor, left) :]


def _pieces(lines: list[str]) -> Iterator[str]:
    """Whole lines, as many at a time as are never mixed with those of another process."""
    piece: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode("utf-8", "backslashreplace"))
        if piece and size + length > _PIECE_BYTES:
            yield "".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += length
    if piece:
        yield "".join(piece)
