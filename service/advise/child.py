"""`python -m service.advise.child PARENT`: serve, and end when the process that started this one does, however it ends.

A process of its own, as nothing else is safe: code between fork and exec must not touch what another thread may hold.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

__all__ = ["die_with"]

# prctl(2): a signal for this process when its parent ends; it stays over exec.
_PR_SET_PDEATHSIG: Final = 1


def die_with(parent: int) -> None:
    """Have SIGTERM sent to this process when its parent ends; where the system cannot, do nothing.

    Args:
        parent: Process number of whoever started this one.

    Raises:
        SystemExit: It ended already.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(1)


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, "-m", "service"])  # noqa: S606 - no shell is wanted
