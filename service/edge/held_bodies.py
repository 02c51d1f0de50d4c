"""Bodies that a process holds, all together: each is bounded by itself, and a thousand clients may send one each.

Who sends most of a body and then waits would have memory for as long as a body may take. Where there is no room, room
is made by whoever has been sending for longest, which is hardly ever one whose body comes as fast as it can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from service.errors import OverloadedError

if TYPE_CHECKING:

    class Sender(Protocol):
        """A connection on which a body may come in."""

        def is_sending(self) -> bool:
            """Whether a part of a body is there, and not all of it."""

        def crowd_out(self, error: OverloadedError) -> None:
            """Refuse the request whose body comes in, and forget what is there of it."""


__all__ = ["Held", "HeldBodies"]

_RETRY_SECONDS: Final = 1.0


class HeldBodies:
    """What all connections of an event loop hold.

    Args:
        most: Most bytes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self.holders: dict[Held, None] = {}  # who began first comes first

    def make_room(self, asking: Held) -> None:
        """End bodies that are on their way until there is room.

        Raises:
            OverloadedError: There is none: what is held is there as a whole, and waits to be scored.
        """
        for held in list(self.holders):
            if self.bytes <= self.most:
                return
            if held is not asking and held.sender.is_sending():
                held.sender.crowd_out(crowded())
                held.give()
        if self.bytes > self.most:
            raise crowded()


class Held:
    """What one connection holds.

    Args:
        all_of_them: Where that is added up.
        sender: The connection.
    """

    __slots__ = ("_all", "bytes", "sender")

    def __init__(self, all_of_them: HeldBodies, sender: Sender) -> None:
        self._all = all_of_them
        self.sender = sender
        self.bytes = 0

    def take(self, size: int) -> None:
        """Hold more bytes.

        Raises:
            OverloadedError: There is no room.
        """
        if not self.bytes:
            self._all.holders[self] = None
        self.bytes += size
        self._all.bytes += size
        if self._all.bytes > self._all.most:
            self._all.make_room(self)

    def give(self) -> None:
        """Hold nothing any more."""
        if self.bytes:
            self._all.bytes -= self.bytes
            self.bytes = 0
            del self._all.holders[self]


def crowded() -> OverloadedError:
    """The error for a body that there is no room for, beside others."""
    return OverloadedError("bodies that are on their way and wait take all the room there is", _RETRY_SECONDS)
