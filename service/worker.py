"""`python -m service.worker`: one of several serving processes, started by the supervisor and by nobody else.

It reads its order from standard input, one line of JSON. The supervisor keeps its end open as long as it lives, so
that end of file means its death, however sudden: the worker then ends in good order too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from importlib import import_module
from pathlib import Path
from typing import Final

import msgspec

from service.assignment import Assignment
from service.cells import Cells
from service.logging import configure_logging
from service.low_priority import run_low
from service.order import Order, Told
from service.settings import load_settings

__all__ = ["main"]

_STANDARD_INPUT: Final = 0


def main() -> int:
    """Serve as ordered; returns the exit status."""
    order = msgspec.json.decode(_read_line(), type=Order)
    threading.Thread(target=_end_with_supervisor, name="supervisor", daemon=True).start()
    settings = load_settings(**order.given).model_copy(update={"bundle": Path(order.bundle)})
    configure_logging(settings.log_level, worker=order.number)
    if order.low:
        run_low(lambda: import_module("service.server"))  # half of a start's work; others serve meanwhile
    from service.server import serve  # noqa: PLC0415 - see above

    os.set_inheritable(order.reports, False)

    def tell(told: Told) -> None:
        with contextlib.suppress(OSError):  # the supervisor has gone, and so will this process
            os.write(order.reports, msgspec.json.encode(told) + b"\n")

    return serve(
        settings,
        order.plan,
        socket.socket(fileno=order.listener),
        Assignment(
            cells=Cells(order.plan.workers, order.block, descriptor=order.cells),
            late=order.late,
            low=order.low,
            manifest_sha256=order.manifest_sha256,
            slot=order.slot,
            label=order.label,
            tell=tell,
        ),
    )


def _read_line() -> bytes:
    """The order. Not by way of `sys.stdin`, whose lock a reading thread would still hold when the interpreter ends."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(_STANDARD_INPUT, 1 << 16)
        if not part:
            raise SystemExit("service.worker is started by `python -m service --workers N`, and by nobody else")
        line += part
    return line


def _end_with_supervisor() -> None:
    while os.read(_STANDARD_INPUT, 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
