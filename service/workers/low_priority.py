"""Work that others need not notice: on a thread that the kernel runs when nobody else wants the CPU.

On Linux a priority is a thread's, not a process's, and may only be lowered. So what is heavy is done on a thread of its
own, and the thread that will serve keeps its priority.

Where the kernel shares CPUs out by session first (`sched_autogroup`, on hosts without control groups), a priority
counts within its session only: against a worker in another session, the lowest one still gets half of a CPU. So a
worker has a session of its own, whose priority is lowered too, and that can be taken back.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["lower_this_session", "lower_this_thread", "restore_this_session", "run_low"]

_LOWEST: Final = 19
_SESSION: Final = Path("/proc/self/autogroup")
T = TypeVar("T")


def lower_this_thread() -> None:
    """Give this thread the lowest priority; it cannot be taken back. Nothing where priorities are a process's."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)


def lower_this_session() -> None:
    """Give all in this process's session the lowest priority against other sessions, where the kernel knows such.

    For a process that leads a session of its own: what else is in it is lowered too.
    """
    with contextlib.suppress(OSError):
        _SESSION.write_text(str(_LOWEST), encoding="ascii")


def restore_this_session() -> None:
    """Take `lower_this_session` back. The kernel takes one change in 100 ms."""
    with contextlib.suppress(OSError):
        _SESSION.write_text("0", encoding="ascii")


def run_low(what: Callable[[], T]) -> T:
    """Do something on a thread of the lowest priority, and wait for its end; what it raises is raised here."""
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        lower_this_thread()
        try:
            returned.append(what())
        except BaseException as error:  # noqa: BLE001 - handed on
            raised.append(error)

    thread = threading.Thread(target=run, name="low")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return returned[0]
