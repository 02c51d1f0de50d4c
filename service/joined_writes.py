"""uvicorn's protocol, whose answers leave in one write.

uvicorn writes the head of an answer when it is told of it, and the body when that follows: two system calls, and with
Nagle's algorithm off two packets, for an answer that is known as a whole. Here an application may say that the next
write waits for the one after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

    from starlette.types import Scope

__all__ = ["JoiningProtocol", "join_next_writes"]

_EXTENSION: Final = "reaction.joined_writes"


class _Writes(Protocol):
    joining: bool


class _JoinedWrites:
    """A transport that can hold one write back until the next, or until it is closed.

    Attributes:
        joining: The next write waits.
    """

    __slots__ = ("_held", "_transport", "_write", "joining")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._write = transport.write
        self._held = b""
        self.joining = False

    def write(self, data: bytes) -> None:
        """Write, or hold back."""
        if self.joining:
            self.joining = False
            self._held += data
        elif self._held:
            held, self._held = self._held, b""
            self._write(held + data)
        else:
            self._write(data)

    def close(self) -> None:
        """Write what is held, then close."""
        if self._held:
            self.write(b"")
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class JoiningProtocol(HttpToolsProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        super().connection_made(cast("asyncio.Transport", _JoinedWrites(transport)))

    def on_message_begin(self) -> None:
        """Begin a request; the application finds the connection's writes among its extensions."""
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: cast("dict[object, object]", self.transport)}


def join_next_writes(scope: Scope) -> None:
    """Hold the next write back until the one after it, if the server can.

    Only for whoever sends the head and the whole body of an answer one right after the other.
    """
    extensions = scope.get("extensions")
    if extensions is not None and _EXTENSION in extensions:
        cast("_Writes", extensions[_EXTENSION]).joining = True
