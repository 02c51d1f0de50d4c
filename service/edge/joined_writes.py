"""A transport by which an answer leaves in one write.

uvicorn writes the head of an answer when it is told of it, and the body when that follows: two system calls, and with
Nagle's algorithm off two packets, for an answer that is known as a whole. Here an application may say that the next
write waits for the one after it. The same way leads back: the protocol says here why the rest of a body will not come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, cast

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from starlette.types import Scope

__all__ = ["JOINED_WRITES", "JoinedWrites", "fault_of", "join_next_writes", "watch"]

JOINED_WRITES: Final = "reaction.joined_writes"


class _Writes(Protocol):
    joining: bool
    fault: Exception | None
    lost: Callable[[], None] | None

    def is_closing(self) -> bool: ...


class JoinedWrites:
    """A transport that can hold one write back until the next, or until it is closed.

    Args:
        transport: The connection's.
        unsent: Called when it is closed and the client has not taken everything yet.

    Attributes:
        joining: The next write waits.
        fault: Why the body that is being received will never be there as a whole.
        lost: Told when the connection ends; None for nobody.
    """

    __slots__ = ("_held", "_transport", "_unsent", "_write", "fault", "joining", "lost")

    def __init__(self, transport: asyncio.Transport, unsent: Callable[[], None] | None = None) -> None:
        self._transport = transport
        self._write = transport.write
        self._unsent = unsent
        self._held = b""
        self.joining = False
        self.fault: Exception | None = None
        self.lost: Callable[[], None] | None = None

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
        if self._unsent is not None and self._transport.get_write_buffer_size():
            self._unsent()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def join_next_writes(scope: Scope) -> bool:
    """Hold the next write back until the one after it, if the server can.

    Only for whoever sends the head and the whole body of an answer one right after the other.

    Returns:
        Whether anyone is there to write to, as far as the server says.
    """
    extensions = scope.get("extensions")
    if extensions is None or JOINED_WRITES not in extensions:
        return True
    writes = cast("_Writes", extensions[JOINED_WRITES])
    if writes.is_closing():
        return False
    writes.joining = True
    return True


def watch(scope: Scope, tell: Callable[[], None] | None) -> None:
    """Have oneself told when the client hangs up, if the server can; None ends that."""
    extensions = scope.get("extensions")
    if extensions is not None and JOINED_WRITES in extensions:
        cast("_Writes", extensions[JOINED_WRITES]).lost = tell


def fault_of(scope: Scope) -> Exception | None:
    """Why the rest of a request's body will never come, as far as the server says."""
    extensions = scope.get("extensions")
    if extensions is None or JOINED_WRITES not in extensions:
        return None
    return cast("_Writes", extensions[JOINED_WRITES]).fault
