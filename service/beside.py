"""Work beside the event loop that may be lost: a bounded queue, and a thread that empties it a few times a second.

The event loop only appends. A batch is handled with the interpreter's lock held between system calls, so it is kept
small; one item at a time would wait for that lock, up to its switch interval of 5 ms, once an item.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Beside"]

ItemT = TypeVar("ItemT")

_LOOK_SECONDS: Final = 0.2
_BATCH_ITEMS: Final = 64
_BATCH_BYTES: Final = 256 << 10
_END_SECONDS: Final = 2.0


class Beside(Generic[ItemT]):
    """The queue and its thread. `offer` and `close` are the event loop's.

    Args:
        name: The thread's.
        handle: Called on the thread with some items; must not raise.
        most_bytes: Most bytes that wait, by what `offer` is told.
        end: Called on the thread once all is done.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[list[ItemT]], None],
        *,
        most_bytes: int,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self._handle = handle
        self._most_bytes = most_bytes
        self._end = end
        self._queue: deque[tuple[ItemT, int]] = deque()
        self._put = 0  # bytes, by the event loop
        self._taken = 0  # bytes, by the thread
        self._ending = threading.Event()
        # A daemon: what never answers holds up no end. Started by the first item, on the event loop: a thread that is
        # started while a worker gets ready would stay behind all others for good (see `service.workers.boot`).
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._started = False

    def offer(self, item: ItemT, size: int) -> bool:
        """Take an item of so many bytes, nothing of which may change any more; False where it has no room."""
        if self._put - self._taken + size > self._most_bytes and self._queue:
            return False
        self._put += size
        self._queue.append((item, size))
        if not self._started:
            self._started = True
            self.thread.start()
        return True

    def close(self) -> None:
        """Do what is queued, unless that takes long."""
        if self._ending.is_set():
            return
        self._ending.set()
        if self._started:
            self.thread.join(_END_SECONDS)
        else:
            self._end()

    def _run(self) -> None:
        while not self._ending.wait(_LOOK_SECONDS):
            self._empty()
        self._empty()
        self._end()

    def _empty(self) -> None:
        while self._queue:
            items: list[ItemT] = []
            taken = 0
            while self._queue and len(items) < _BATCH_ITEMS and taken < _BATCH_BYTES:
                item, size = self._queue.popleft()
                items.append(item)
                taken += size
            self._handle(items)
            self._taken += taken
