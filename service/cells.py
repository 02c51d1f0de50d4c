"""Where counts live: doubles in one flat mapping, a block for each worker.

One observation by the Prometheus client costs several microseconds (labels are looked up, a lock is taken); here it
is two additions. Several workers map one file, and each adds to a block of its own, so that no addition needs a lock;
whoever is asked for the counts adds the blocks up. A run of cells has a name, and the same place in every block:

    [ directory: bytes used | entries: bytes of the name, cells, first cell, name ]  [ block 0 ] ... [ block k ]

An entry is written before the number of bytes that makes it visible, under a lock of the file that the kernel takes
back from a process that dies. A reader of another worker's block may see a request of which not all is counted yet.
The first cells of a block hold what its process is doing; the last block is the supervisor's. No numpy here: the
supervisor stays small.
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

__all__ = ["CONNECTIONS", "PID", "READY", "RESTARTS", "SPENT_SECONDS", "STARTED", "Cells", "shared_file"]

# Cells of the process's own state at the start of each block.
PID: Final = 0
READY: Final = 1  # it scores requests now
STARTED: Final = 2  # a process of this place has been ready once
CONNECTIONS: Final = 3  # it holds now
RESTARTS: Final = 3  # supervisor: workers replaced
SPENT_SECONDS: Final = 4  # supervisor: CPU time of workers that have ended
_STATE: Final = 8

_DOUBLE: Final = 8
_DIRECTORY_BYTES: Final = 1 << 20
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
    os.ftruncate(descriptor, _size(workers + 1, capacity))
    return descriptor


def _size(blocks: int, capacity: int) -> int:
    return _DIRECTORY_BYTES + blocks * capacity * _DOUBLE


class Cells:
    """Runs of doubles; counts are exact up to 2^53.

    Args:
        workers: Processes that serve.
        block: The block of this process: its number from 0, or `workers` for the supervisor.
        descriptor: The file of `shared_file`; None for counts of this process alone.
        capacity: Cells of a block.
    """

    def __init__(
        self, workers: int = 1, block: int = 0, *, descriptor: int | None = None, capacity: int = _CAPACITY
    ) -> None:
        blocks = workers if descriptor is None else workers + 1
        whole = memoryview(mmap.mmap(-1 if descriptor is None else descriptor, _size(blocks, capacity)))
        self._descriptor = descriptor
        self._directory = whole[:_DIRECTORY_BYTES]
        cells = whole[_DIRECTORY_BYTES:].cast("d")
        self._blocks: list[memoryview[float]] = [
            cells[number * capacity : (number + 1) * capacity] for number in range(blocks)
        ]
        self._capacity = capacity
        self._known: dict[str, int] = {}
        self._read = 0  # bytes of the directory that `_known` holds
        self._free = _STATE
        self.workers = workers
        self._block = block
        self.values = self._blocks[block]
        self.own = self.values[:_STATE]
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
        """One cell of their own state, of each worker."""
        return [block[cell] for block in self._blocks[: self.workers]]

    def least_of_others(self, cell: int, *, among: int) -> float | None:
        """The lowest value of a cell of other workers' states, of those whose cell `among` is not 0."""
        others = (block for number, block in enumerate(self._blocks[: self.workers]) if number != self._block)
        return min((block[cell] for block in others if block[among]), default=None)

    def shared(self, first: int, count: int) -> memoryview[float]:
        """A run of which all workers have the same cells; to be changed while no other does, see `alone`."""
        return self._blocks[-1][first : first + count]

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
