"""What a signal does to a process that is still starting, with nothing in flight: it ends it."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ended_by_signals"]


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within, SIGTERM and SIGINT end the process with status 0, and afterwards until something else handles them.

    A handler raises wherever the main thread is. Native code that calls back may make another error of that, as the
    builder of pydantic's validators does, and a finaliser drops it; so what was told is kept, and looked at in the end.

    Raises:
        SystemExit: A signal came.
    """
    told = False

    def leave(_number: int, _frame: Any) -> None:
        nonlocal told
        told = True
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    try:
        yield
    except BaseException as error:
        if told:
            raise SystemExit(0) from error
        raise
    if told:
        raise SystemExit(0)
