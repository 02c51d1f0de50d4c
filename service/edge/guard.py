"""What one connection may ask of the server before its request is there: bytes of a head, headers, and time.

A web application runs too late for these: it is called when a head has been read, however long that took. Deadlines are
kept by one look a second at the connections that are in the middle of something, never by a timer for each request; a
request that comes in one piece is in none of it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Protocol

from service.edge.held_bodies import HeldBodies

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from service.metrics import ServiceMetrics
    from service.settings import Settings

    class Watched(Protocol):
        """A connection that is in the middle of something."""

        def look(self, now: float) -> None:
            """End it if that takes too long."""

    class Idle(Protocol):
        """A connection that may be idle."""

        def idle_since(self) -> float | None:
            """Since when, by the event loop's clock; None while it is not."""

        def make_room(self) -> None:
            """End at once: it is idle, and its descriptor is needed."""


__all__ = ["Guard", "Limits", "most_connections"]

_LOOK_SECONDS: Final = 1.0
# Of the shortest deadline: how much later than it a connection may be ended.
_LOOK_SHARE: Final = 0.25
# Descriptors for all that is no connection, and for connections that come during one turn of the event loop.
_OTHER_DESCRIPTORS: Final = 64
_FEWEST_CONNECTIONS: Final = 16


def most_connections(asked: int | None) -> int:
    """How many connections this process may hold open, so that there always is a descriptor for another one.

    Args:
        asked: Most of them by the settings; None for as many as there can be.
    """
    most = sys.maxsize if asked is None else asked
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not there on Windows

        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors != resource.RLIM_INFINITY:
            most = min(most, max(_FEWEST_CONNECTIONS, descriptors - _OTHER_DESCRIPTORS))
    return most


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed.

    Attributes:
        head_bytes: Longest head, from its first byte to the empty line.
        headers: Most headers in it.
        head_seconds: From a head's first byte to its end.
        body_seconds: From there to the last byte of the body.
        answer_seconds: For as long may a client take nothing of an answer that waits for it.
        connections: Most open ones.
        bodies_bytes: Most of all bodies that are on their way or wait.
    """

    head_bytes: int
    headers: int
    head_seconds: float
    body_seconds: float
    answer_seconds: float
    connections: int = sys.maxsize
    bodies_bytes: int = sys.maxsize

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those of the settings."""
        return cls(
            head_bytes=settings.max_head_bytes,
            headers=settings.max_headers,
            head_seconds=settings.head_seconds,
            body_seconds=settings.body_seconds,
            answer_seconds=settings.answer_seconds,
            connections=most_connections(settings.max_connections),
            bodies_bytes=max(settings.bodies_bytes, settings.max_body_bytes),
        )


class Guard:
    """Looks after the connections of one event loop.

    Args:
        limits: What is allowed.
        metrics: Where what was ended is counted.

    Attributes:
        limits: As given.
        bodies: What all connections hold of them.
    """

    def __init__(self, limits: Limits, metrics: ServiceMetrics) -> None:
        self.limits = limits
        self.bodies = HeldBodies(limits.bodies_bytes)
        self._metrics = metrics
        self._watched: dict[Watched, None] = {}  # the longest first
        self._every = min(
            _LOOK_SECONDS, _LOOK_SHARE * min(limits.head_seconds, limits.body_seconds, limits.answer_seconds)
        )
        self._due: float | None = None
        self._longest_idle: list[tuple[float, Idle]] = []  # as they were at some moment, the longest last

    def make_room(self, connections: Iterable[Idle]) -> bool:
        """End the connection that is idle for longest; false where none is.

        All are looked at once for many ends: whichever has been idle since it was looked at has been so for longer
        than any that was busy meanwhile.

        Args:
            connections: All that are open.
        """
        while True:
            while self._longest_idle:
                since, connection = self._longest_idle.pop()
                if connection.idle_since() == since:
                    self.count("idle", None)
                    connection.make_room()
                    return True
            looked = ((one.idle_since(), one) for one in connections)
            idle = [(since, one) for since, one in looked if since is not None]
            if not idle:
                return False
            self._longest_idle = sorted(idle, key=itemgetter(0), reverse=True)

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
