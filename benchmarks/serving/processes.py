"""Processes on cores of their own: start, stop, freeze, and what each has cost (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

SERVER_CORE: Final = 0
LOAD_CORE: Final = 1
TICK_SECONDS: Final = 1 / os.sysconf("SC_CLK_TCK")
_PR_SET_CHILD_SUBREAPER: Final = 36
_STOP_SECONDS: Final = 20


@dataclass(frozen=True, slots=True)
class Ticks:
    """Processor time of processes, in clock ticks.

    Attributes:
        user: In their own code.
        system: In the kernel on their behalf: sockets, mostly.
    """

    user: int = 0
    system: int = 0

    def __sub__(self, other: Ticks) -> Ticks:
        return Ticks(self.user - other.user, self.system - other.system)

    @property
    def total(self) -> int:
        """Both."""
        return self.user + self.system


def _stat(pid: int) -> tuple[int, Ticks]:
    """A process's parent and time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), Ticks(int(fields[11]), int(fields[12]))


def tree(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                children.setdefault(_stat(int(entry.name))[0], []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def ticks(pids: Iterable[int]) -> Ticks:
    """Time of processes so far."""
    user = system = 0
    for pid in pids:
        with suppress(OSError):
            spent = _stat(pid)[1]
            user, system = user + spent.user, system + spent.system
    return Ticks(user, system)


def core_ticks(core: int) -> int:
    """Ticks a core has spent on processes of anyone."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system = (int(value) for value in line.split()[1:4])
            return user + nice + system
    raise OSError(f"/proc/stat: expected a line for core {core}, got none")


def pinned(core: int) -> Callable[[], None]:
    """What a child does before its program: a session of its own, one core, and its orphans stay below it."""
    prctl = ctypes.CDLL(None).prctl

    def setup() -> None:
        os.setsid()
        os.sched_setaffinity(0, {core})
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    return setup


def free_ports(count: int) -> int:
    """The first of `count` consecutive free ports of the loopback address, below those that connections take."""
    first = 21_000 + 64 * (os.getpid() % 128)  # another measurement beside this one looks elsewhere
    for base in range(first, 32_000, 64):
        held: list[socket.socket] = []
        try:
            for port in range(base, base + count):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        else:
            return base
        finally:
            for one in held:
                one.close()
    raise OSError(f"expected {count} consecutive free ports, found none")


class Running:
    """A server process pinned to the server's core.

    Args:
        command: Its program and arguments.
        environment: Its environment.
        log: Where its output goes.
        freezable: Whether it stands being stopped with SIGSTOP while another is measured.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, *, freezable: bool = True
    ) -> None:
        self.log = log
        self._freezable = freezable
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                preexec_fn=pinned(SERVER_CORE),  # noqa: PLW1509 - single-threaded here, and calls nothing that locks
            )

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def pids(self) -> list[int]:
        """It and its children."""
        return tree(self._process.pid)

    def freeze(self) -> None:
        """Take it off the core."""
        if self._freezable:
            _signal(self.pids(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self._freezable:
            _signal(reversed(self.pids()), signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for what is left of its own tree."""
        self.thaw()
        known = self.pids()
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            known += self.pids()
            self._process.kill()
            self._process.wait()
        for pid in set(known) - {self._process.pid}:
            # The number may be another's by now; only what has become our child was its.
            with suppress(OSError):
                if _stat(pid)[0] in (1, os.getpid()):
                    os.kill(pid, signal.SIGKILL)


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
