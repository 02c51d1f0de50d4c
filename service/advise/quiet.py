"""Is the machine ours? What else runs on it makes times of a clock say little, however often they are taken."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

__all__ = ["QUIET_SHARE", "share_of_cpus"]

# Below it, a machine is busy with something else.
QUIET_SHARE: Final = 0.9
_SECONDS: Final = 0.2
_MOST_THREADS: Final = 64
_BLOCK: Final = bytes(1 << 18)


def share_of_cpus(cpus: float, seconds: float = _SECONDS) -> float:
    """Keep every CPU busy for a moment, and see how much of them this process got: 1.0 is all.

    Args:
        cpus: CPUs that there should be.
        seconds: How long.
    """
    count = max(1, min(int(cpus), _MOST_THREADS))
    end = time.perf_counter() + seconds

    def work(_number: int) -> None:
        while time.perf_counter() < end:
            hashlib.sha256(_BLOCK)  # without Python's lock

    with ThreadPoolExecutor(count) as threads:
        spent, began = time.process_time(), time.perf_counter()
        list(threads.map(work, range(count)))
        return (time.process_time() - spent) / (count * (time.perf_counter() - began))
