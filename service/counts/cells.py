"""Where counts live: doubles in one flat mapping, a block for each worker.

One observation by the Prometheus client costs several microseconds (labels are looked up, a lock is taken); here it
is two additions. Several workers map one file, and each adds to a block of its own, so that no addition needs a lock;
whoever is asked for the counts adds the blocks up. A run of cells has a name, and the same place in every block:

    [ directory: bytes used | entries: bytes of the name, cells, first cell, name ]  [ block 0 ] ... [ block k ]

An entry is written before the number of bytes that makes it visible, under a lock of the file that the kernel takes
back from a process that dies. A reader of another worker's block may see a request of which not all is counted yet.
The first cells of a block hold what its process is doing; the last two are a shadow's and the supervisor's. A
worker's place has two blocks: that of the process that serves, and that of the one that is to replace it. No numpy
here: the supervisor stays small.

Counts of a model lie under a slot, of which there are few: they are emptied once no process serves the model any more
and another one needs the room, so that memory stays what it is however many models come and go. Each slot has a page
that says what its model's counts are, so that a worker can show those of a model that only others serve.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
import tempfile
from typing import TYPE_CHECKING, Final

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ACTIVE",
    "BEAT",
    "CONNECTIONS",
    "PID",
    "READY",
    "REFUSED",
    "RESTARTS",
    "SHADOW",
    "SHARE",
    "SLOTS",
    "SPENT_SECONDS",
    "STARTED",
    "TRIAL_REFUSED",
    "Cells",
    "blocks_of",
    "shadow_block",
    "shared_file",
    "slot_prefix",
]

# Cells of the process's own state at the start of each block.
PID: Final = 0
READY: Final = 1  # it scores requests now
STARTED: Final = 2  # a process of this place has been ready once
CONNECTIONS: Final = 3  # it holds now
ACTIVE: Final = 4  # the slots whose models it serves, a bit each
RESTARTS: Final = 3  # supervisor: workers replaced
SPENT_SECONDS: Final = 4  # supervisor: CPU time of workers that have ended
REFUSED: Final = 5  # supervisor: what is deployed was refused, and something else is served
SHARE: Final = 6  # supervisor: of the routing keys that the canary scores now
TRIAL_REFUSED: Final = 7  # supervisor: what is on trial was refused or taken out
SHADOW: Final = 8  # supervisor: where workers count what a shadow loses, while there is one; else 0
BEAT: Final = 9  # when its loop last came round, a shadow's for a request (`monotonic`, seconds)
_STATE: Final = 16

SLOTS: Final = 8
_BLOCKS_A_PLACE: Final = 2
_OTHER_BLOCKS: Final = 2  # a shadow's, and the supervisor's
_DOUBLE: Final = 8
_DIRECTORY_BYTES: Final = 1 << 20
_PAGE_BYTES: Final = 1 << 20
_PAGES_BYTES: Final = SLOTS * _PAGE_BYTES
_USED: Final = struct.Struct("=Q")
_ENTRY: Final = struct.Struct("=QQQ")
# Pages that nobody wrote to take no memory, so room costs addresses only.
_CAPACITY: Final = 1 << 20


def shared_file(workers: int, capacity: int = _CAPACITY) -> int:
    """Make the file that workers and their supervisor map, in memory where the system can.

    Returns:
        Its descriptor, which children may inherit.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("reaction-cells")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _size(_BLOCKS_A_PLACE * workers + _OTHER_BLOCKS, capacity))
    return descriptor


def _size(blocks: int, capacity: int) -> int:
    return _DIRECTORY_BYTES + _PAGES_BYTES + blocks * capacity * _DOUBLE


def blocks_of(place: int, workers: int) -> tuple[int, int]:
    """The blocks that processes of a worker's place use in turns."""
    return place, place + workers


def shadow_block(workers: int) -> int:
    """The block that a shadow counts in."""
    return _BLOCKS_A_PLACE * workers


def slot_prefix(slot: int) -> str:
    """How the names of a slot's cells begin."""
    return f"slot{slot}/"


class Cells:
    """Runs of doubles; counts are exact up to 2^53.

    Args:
        workers: Processes that serve.
        block: The block of this process, one of its place's (`blocks_of`); None for the supervisor's.
        descriptor: The file of `shared_file`; None for counts of this process alone.
        capacity: Cells of a block.
    """

    def __init__(
        self, workers: int = 1, block: int | None = 0, *, descriptor: int | None = None, capacity: int = _CAPACITY
    ) -> None:
        blocks = workers if descriptor is None else _BLOCKS_A_PLACE * workers + _OTHER_BLOCKS
        whole = memoryview(mmap.mmap(-1 if descriptor is None else descriptor, _size(blocks, capacity)))
        self._descriptor = descriptor
        self._directory = whole[:_DIRECTORY_BYTES]
        self._pages = whole[_DIRECTORY_BYTES : _DIRECTORY_BYTES + _PAGES_BYTES]
        cells = whole[_DIRECTORY_BYTES + _PAGES_BYTES :].cast("d")
        self._blocks: list[memoryview[float]] = [
            cells[number * capacity : (number + 1) * capacity] for number in range(blocks)
        ]
        self._capacity = capacity
        self._known: dict[str, int] = {}
        self._read = 0  # bytes of the directory that `_known` holds
        self._free = _STATE
        self.workers = workers
        self._block = blocks - 1 if block is None else block
        self.values = self._blocks[self._block]
        self.own = self.values[:_STATE]
        if block is not None:
            self.forget(block)
        self.own[PID] = os.getpid()

    def take(self, name: str, count: int) -> int:
        """Reserve cells that follow each other, or find those that a worker reserved under this name.

        Returns:
            Position of the first, in every block.

        Raises:
            MemoryError: There is no room for more.
        """
        key = f"{name} {count}"
        first = self._known.get(key)
        if first is not None:
            return first
        with self.alone():
            self._refresh()
            first = self._known.get(key)
            return self._enter(key, count) if first is None else first

    def names(self, start: str) -> list[tuple[str, int, int]]:
        """Runs of all workers whose name begins so: name, position of the first cell, cells."""
        self._refresh()
        found = []
        for key, first in self._known.items():
            name, _, count = key.rpartition(" ")
            if name.startswith(start):
                found.append((name, first, int(count)))
        return found

    def totals(self, first: int, count: int = 1) -> list[float]:
        """Each cell of a run, added up over all workers."""
        runs = (block[first : first + count] for block in self._blocks)
        return [sum(column) for column in zip(*runs, strict=True)]

    def states(self, cell: int) -> list[float]:
        """One cell of their own state, of each place: the greater where two processes are in it."""
        blocks = self._processes
        return [max(block[cell] for block in blocks[place :: self.workers]) for place in range(self.workers)]

    def each(self, cell: int) -> list[float]:
        """One cell of their own state, of every block of a worker."""
        return [block[cell] for block in self._processes]

    def least_of_others(self, cell: int, *, among: int) -> float | None:
        """The lowest value of a cell of other workers' states, of those whose cell `among` is not 0."""
        others = (block for number, block in enumerate(self._processes) if number != self._block)
        return min((block[cell] for block in others if block[among]), default=None)

    def shared(self, first: int, count: int) -> memoryview[float]:
        """A run of which all workers have the same cells; to be changed while no other does, see `alone`."""
        return self._blocks[-1][first : first + count]

    def ended(self) -> list[memoryview[float]]:
        """Blocks of workers that have ended, which nobody counts in; a worker that starts is given one of them."""
        return [block for block in self._processes if not block[PID]]

    def clear(self, first: int, count: int) -> None:
        """Set a run to nothing, in every block. Nobody may be counting there."""
        for block in self._blocks:
            block[first : first + count].cast("B")[:] = bytes(_DOUBLE * count)

    @property
    def _processes(self) -> list[memoryview[float]]:
        """Blocks of workers."""
        return self._blocks if self._descriptor is None else self._blocks[:-_OTHER_BLOCKS]

    def forget(self, block: int) -> None:
        """Take back what a block says its process is doing; that one of its place has started stays true."""
        state = self.state_of(block)
        for cell in (PID, READY, CONNECTIONS, ACTIVE, BEAT):
            state[cell] = 0.0

    # ---- pages: what the counts of a slot's model are

    def page(self, slot: int) -> bytes:
        """What was written on a slot's page; empty where nothing was."""
        start = slot * _PAGE_BYTES
        (used,) = _USED.unpack_from(self._pages, start)
        return bytes(self._pages[start + _USED.size : start + _USED.size + used])

    def write_page(self, slot: int, content: bytes) -> bool:
        """Write a slot's page; false where it does not fit. Processes of one model write the same."""
        start = slot * _PAGE_BYTES
        if _USED.size + len(content) > _PAGE_BYTES:
            return False
        with self.alone():
            if self.page(slot) != content:
                # Its length comes last, so that nobody reads half of it.
                _USED.pack_into(self._pages, start, 0)
                self._pages[start + _USED.size : start + _USED.size + len(content)] = content
                _USED.pack_into(self._pages, start, len(content))
        return True

    def empty_slot(self, slot: int) -> None:
        """Forget a model's page and counts; no process may be serving it."""
        _USED.pack_into(self._pages, slot * _PAGE_BYTES, 0)
        for _, first, count in self.names(slot_prefix(slot)):
            self.clear(first, count)

    def state_of(self, block: int) -> memoryview[float]:
        """The state of a process, to be changed by it, or by the supervisor once it has ended."""
        return self._blocks[block][:_STATE]

    @property
    def supervisor(self) -> memoryview[float] | None:
        """The supervisor's state; None where there is no supervisor."""
        return None if self._descriptor is None else self._blocks[-1][:_STATE]

    def _enter(self, key: str, count: int) -> int:
        name = key.encode()
        first, end = self._free, self._read + _ENTRY.size + len(name)
        if first + count > self._capacity or _USED.size + end > _DIRECTORY_BYTES:
            raise MemoryError(f"cells: expected at most {self._capacity} a worker, got more with {key!r}")
        start = _USED.size + self._read
        _ENTRY.pack_into(self._directory, start, len(name), count, first)
        self._directory[start + _ENTRY.size : start + _ENTRY.size + len(name)] = name
        _USED.pack_into(self._directory, 0, end)
        self._refresh()
        return first

    def _refresh(self) -> None:
        """Read what was entered since the last time."""
        (used,) = _USED.unpack_from(self._directory, 0)
        while self._read < used:
            start = _USED.size + self._read
            length, count, first = _ENTRY.unpack_from(self._directory, start)
            name = bytes(self._directory[start + _ENTRY.size : start + _ENTRY.size + length]).decode()
            self._known[name] = first
            self._free = first + count
            self._read += _ENTRY.size + length

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from entering names, and from changing what is shared, meanwhile."""
        if self._descriptor is None or sys.platform == "win32":
            yield
            return
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
