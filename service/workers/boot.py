"""How a serving process begins: run as a file by its supervisor, with the interpreter's `-S` and `-P`.

One that gets ready while others serve leaves the CPUs to them, from its first milliseconds on. On Linux scheduling is a
thread's, not a process's, and who has stepped back may not step forward again: so whatever takes long is done on
threads that end, imports included, and the thread that will serve waits meanwhile.

Stepping back is `SCHED_IDLE` (sched(7)): whoever wakes has the CPU at once. A thread of the lowest priority of the
usual kind (`nice 19`) has next to nothing of a CPU's time too, but where it runs, it runs to the end of its slice,
which is milliseconds. Where the kernel shares CPUs out by session first (`sched_autogroup`, on hosts without control
groups), it counts within a session only: so workers stay in their supervisor's.

What is imported here is imported at the usual priority: next to nothing, and nothing of this package. Even the look for
installed packages (`site`) comes after that.
"""

from __future__ import annotations

import os
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeVar

    from service.settings import Settings
    from service.workers.order import Order

    T = TypeVar("T")

__all__ = ["boot_command", "lower_this_thread", "run_low"]

_LOW: Final = "low"
_LOWEST: Final = 19


def lower_this_thread() -> None:
    """Let this thread, and those that it starts, have what others leave; it cannot be taken back.

    Nothing where priorities are a process's.
    """
    if sys.platform != "linux":
        return
    thread = threading.get_native_id()
    try:
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    except OSError:  # a sandbox may forbid it
        try:
            os.setpriority(os.PRIO_PROCESS, thread, _LOWEST)
        except OSError:
            return


def run_low(what: Callable[[], T]) -> T:
    """Do something on a thread that others need not notice, and wait for its end; what it raises is raised here."""
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


def boot_command(*, low: bool) -> list[str]:
    """The command line of a worker, which finds modules where this process does.

    Args:
        low: Others serve: it gets ready with what they leave.
    """
    first = "" if sys.flags.safe_path else sys.path[0]
    # What this interpreter was told not to look at, a worker's does not either.
    told = [flag for flag, given in (("-E", sys.flags.ignore_environment), ("-s", sys.flags.no_user_site)) if given]
    file = os.path.abspath(__file__)  # noqa: PTH100 - no further import
    return [sys.executable, "-S", "-P", *told, file, first, *([_LOW] if low else [])]


def main() -> int:
    """Serve as ordered; returns the exit status."""
    # numpy would start threads at its import that nobody needs here, and that would stay behind all others.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    def get_ready() -> tuple[Order, Settings]:
        import site  # noqa: PLC0415 - see above

        if sys.argv[1]:
            sys.path.insert(0, sys.argv[1])
        site.main()  # finds installed packages, as the interpreter does where it is not told not to
        from service.workers.worker import prepare  # noqa: PLC0415 - see above

        return prepare()

    order, settings = run_low(get_ready) if _LOW in sys.argv[2:] else get_ready()
    from service.workers.worker import run  # noqa: PLC0415 - see above

    return run(order, settings)


if __name__ == "__main__":
    raise SystemExit(main())
