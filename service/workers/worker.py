"""What a worker does: it reads its order from standard input, one line of JSON, and serves.

The supervisor keeps its end of that open as long as it lives, so that end of file means its death, however sudden: the
worker then ends in good order too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from service.counts.cells import Cells
from service.logging import configure_logging
from service.server import serve
from service.settings import load_settings
from service.workers.assignment import Assignment
from service.workers.order import Order, Told

if TYPE_CHECKING:
    from service.settings import Settings

__all__ = ["prepare", "run"]

_STANDARD_INPUT: Final = 0


def prepare() -> tuple[Order, Settings]:
    """Read the order. Starts no thread: those of a thread that has stepped back would stay there."""
    order = msgspec.json.decode(_read_line(), type=Order)
    return order, load_settings(**order.given).model_copy(update={"bundle": Path(order.part.bundle)})


def run(order: Order, settings: Settings) -> int:
    """Serve as ordered; returns the exit status."""
    threading.Thread(target=_end_with_supervisor, name="supervisor", daemon=True).start()
    configure_logging(settings.log_level, worker=order.number)
    for descriptor in (order.reports, order.shadow, *order.passage):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)

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
            part=order.part,
            canary=order.canary,
            shadow=order.shadow,
            passage=order.passage,
            tell=tell,
        ),
    )


def _read_line() -> bytes:
    """The order. Not by way of `sys.stdin`, whose lock a reading thread would still hold when the interpreter ends."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(_STANDARD_INPUT, 1 << 16)
        if not part:
            raise SystemExit("a worker is started by `python -m service --workers N`, and by nobody else")
        line += part
    return line


def _end_with_supervisor() -> None:
    while os.read(_STANDARD_INPUT, 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
