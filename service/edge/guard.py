"""What one connection may ask of the server before its request is there: bytes of a head, headers, and time.

A web application runs too late for these: it is called when a head has been read, however long that took. Deadlines are
kept by one look a second at the connections that are in the middle of something, never by a timer for each request; a
request that comes in one piece is in none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio

    from service.metrics import ServiceMetrics
    from service.settings import Settings

    class Watched(Protocol):
        """A connection that is in the middle of something."""

        def look(self, now: float) -> None:
            """End it if that takes too long."""


__all__ = ["Guard", "Limits"]

_LOOK_SECONDS: Final = 1.0
# Of the shortest deadline: how much later than it a connection may be ended.
_LOOK_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed.

    Attributes:
        head_bytes: Longest head, from its first byte to the empty line.
        headers: Most headers in it.
        head_seconds: From a head's first byte to its end.
        body_seconds: From there to the last byte of the body.
        answer_seconds: For as long may a client take nothing of an answer that waits for it.
    """

    head_bytes: int
    headers: int
    head_seconds: float
    body_seconds: float
    answer_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those of the settings."""
        return cls(
            head_bytes=settings.max_head_bytes,
            headers=settings.max_headers,
            head_seconds=settings.head_seconds,
            body_seconds=settings.body_seconds,
            answer_seconds=settings.answer_seconds,
        )


class Guard:
    """Looks after the connections of one event loop.

    Args:
        limits: What is allowed.
        metrics: Where what was ended is counted.
    """

    def __init__(self, limits: Limits, metrics: ServiceMetrics) -> None:
        self.limits = limits
        self._metrics = metrics
        self._watched: dict[Watched, None] = {}  # the longest first
        self._every = min(
            _LOOK_SECONDS, _LOOK_SHARE * min(limits.head_seconds, limits.body_seconds, limits.answer_seconds)
        )
        self._due: float | None = None

    def watch(self, connection: Watched, loop: asyncio.AbstractEventLoop) -> None:
        """Look at a connection from now on."""
        self._watched[connection] = None
        if self._due is None:
            self._wait(loop)

    def release(self, connection: Watched) -> None:
        """Look at it no more."""
        self._watched.pop(connection, None)

    def count(self, reason: str, status: int | None) -> None:
        """Count a connection that was ended.

        Args:
            reason: Why, as a label.
            status: Of the answer that said so; None where there was none, or who gave it has counted it.
        """
        self._metrics.count_cut(reason)
        if status is not None:
            self._metrics.count_request("other", status)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + self._every
        loop.call_at(self._due, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        # Where the process stood still, what clients sent meanwhile has not been read yet: that was not their doing.
        if self._due is not None and now - self._due < self._every:
            for connection in list(self._watched):
                connection.look(now)
        self._due = None
        if self._watched:
            self._wait(loop)
