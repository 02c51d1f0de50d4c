"""Puts a process's own memory on huge pages, once the model is loaded (Linux).

Look-ups in vocabularies and tables jump about in tens of megabytes, more than the processor's page translations reach
with pages of 4 KiB; with pages of 2 MiB all of it is in reach. Python's allocator maps its memory in pieces too small
for the kernel to do this by itself. Only memory of the process alone is touched: files mapped by several workers stay
as they are.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["collapse"]

_MAPS: Final = Path("/proc/self/maps")
_SIZE: Final = 2 << 20
# From <linux/mman.h>. Collapsing at once needs Linux 6.1; before, the kernel is told and may do it in its own time.
_MADV_HUGEPAGE: Final = 14
_MADV_COLLAPSE: Final = 25


def collapse() -> int:
    """Ask for huge pages under all of the process's own writable memory.

    Returns:
        Bytes now on huge pages as far as the kernel says; 0 where it cannot, which does no harm.
    """
    if sys.platform != "linux" or not _MAPS.exists():
        return 0
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    done = 0
    for start, end in _own(_MAPS.read_text(encoding="ascii", errors="replace")):
        first, last = -(-start // _SIZE) * _SIZE, end // _SIZE * _SIZE
        if first < last:
            madvise(first, last - first, _MADV_HUGEPAGE)
            done += (last - first) * (madvise(first, last - first, _MADV_COLLAPSE) == 0)
    return done


def _own(maps: str) -> Iterator[tuple[int, int]]:
    """Ranges of addresses that are writable, private and of no file: `proc_pid_maps(5)`."""
    for line in maps.splitlines():
        span, rights, _offset, _device, inode, *name = line.split(maxsplit=5)
        if rights.startswith("rw") and rights.endswith("p") and inode == "0" and name in ([], ["[heap]"]):
            start, _, end = span.partition("-")
            yield int(start, 16), int(end, 16)
