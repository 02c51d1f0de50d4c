"""How long a connection may be idle, without a timer for each request."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["RestingProtocol"]


class RestingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, whose timer looks again instead of being set and cancelled with every request.

    Args:
        given: What uvicorn gives its protocols.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._idle_since: float | None = None  # None while something is on its way

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and the timer with it."""
        super().connection_lost(exc)
        super()._unset_keepalive_if_required()

    def _rest(self) -> None:
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again(self.timeout_keep_alive)

    def _look_again(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """Whatever begins says so."""

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it was idle for long; else look again when it will have been."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:  # whatever ends looks again
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_again(left)
        else:
            super().timeout_keep_alive_handler()
