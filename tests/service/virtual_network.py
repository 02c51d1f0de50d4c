"""A network with a clock of its own and one server, first come, first served, whose service times are known.

Nothing takes time but the server: what the engine measures on it can be worked out by hand.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MS = 1_000_000
READ, WRITE = 1, 4


def answer(status: int = 200, body: bytes = b"{}") -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


class VirtualWire:
    def __init__(self, network: VirtualNetwork, number: int) -> None:
        self._network, self._number = network, number
        self.inbox: list[bytes] = []

    def fileno(self) -> int:
        return self._number

    def send(self, data: bytes | memoryview, /) -> int:
        self._network.arrive(self)
        return len(data)

    def recv(self, _size: int, /) -> bytes:
        self._network.ready.pop(self._number, None)
        return self.inbox.pop(0)

    def close(self) -> None:
        pass


class VirtualNetwork:
    """One server.

    Args:
        service: Service time of the n-th request, ns.
        stalls: (start, end) of spells in which the server does nothing, ns on the clock.
        reply: What the server sends to the n-th request; b"" hangs up.
        poll_cost: What a poll takes, ns: a generator that is slow itself.
        pause: (start, length) of a spell in which the generator itself is held up, ns.
    """

    spins = False

    def __init__(
        self,
        service: Callable[[int], int],
        stalls: Sequence[tuple[int, int]] = (),
        reply: Callable[[int], bytes] = lambda _: answer(),
        poll_cost: int = 0,
        pause: tuple[int, int] = (1 << 62, 0),
    ) -> None:
        self.clock = 0
        self._service, self._stalls, self._reply, self._poll_cost = service, stalls, reply, poll_cost
        self._pause = pause
        self._free = 0
        self._served = 0
        self._dialled = 0
        self._events: list[tuple[int, int, VirtualWire, bytes]] = []
        self.ready: dict[int, int] = {}

    def now(self) -> int:
        return self.clock

    def cpu(self) -> int:
        return 0

    def dial(self) -> VirtualWire:
        self._dialled += 1
        wire = VirtualWire(self, self._dialled)
        self.ready[wire.fileno()] = WRITE
        return wire

    def watch(self, wire: VirtualWire, events: int) -> None:  # type: ignore[override]
        assert events == READ
        self.ready.pop(wire.fileno(), None)

    def forget(self, wire: VirtualWire) -> None:
        self.ready.pop(wire.fileno(), None)

    def arrive(self, wire: VirtualWire) -> None:
        start = max(self.clock, self._free)
        end = start + self._service(self._served)
        for begin, finish in self._stalls:
            if start < finish and end > begin:
                end += finish - max(begin, start)
                start = max(start, begin)
        self._free = end
        heapq.heappush(self._events, (end, self._served, wire, self._reply(self._served)))
        self._served += 1

    def poll(self, nanoseconds: int) -> list[tuple[int, int]]:
        self.clock += self._poll_cost
        end = self.clock + max(nanoseconds, 0)
        if not self.ready:
            self.clock = min(end, max(self.clock, self._events[0][0])) if self._events else end
        if self.clock >= self._pause[0]:
            self.clock += self._pause[1]
            self._pause = (1 << 62, 0)
        while self._events and self._events[0][0] <= self.clock:
            _, _, wire, data = heapq.heappop(self._events)
            wire.inbox.append(data)
            self.ready[wire.fileno()] = READ
        return list(self.ready.items())
