"""What this process may use of the machine it runs on: CPUs and memory.

The host's core count says nothing about a container. The kernel schedules a process on the CPUs of its affinity mask
(`taskset`, cpusets), and a control group may further cap the CPU time it gets and the memory it holds. Caps apply on
every level up to the root, so the lowest of a whole path counts. Files, as the kernel documents them
(`Documentation/admin-guide/cgroup-v2.rst`, `cgroup-v1/memory.rst`, `scheduler/sched-bwc.rst`):

=======  =======================================================  =======================================
version  CPU time                                                 memory
=======  =======================================================  =======================================
2        `cpu.max`: quota and period in us, or `max`              `memory.max`: bytes, or `max`
1        `cpu.cfs_quota_us` (-1: none) over `cpu.cfs_period_us`   `memory.limit_in_bytes` (2^63 - x: none)
=======  =======================================================  =======================================
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Limit", "Machine"]

_ROOT: Final = Path("/")
# Version 1 writes "no limit" as the largest multiple of the page size; nothing near it is a limit.
_NO_LIMIT_BYTES: Final = 1 << 60
_KIBIBYTE: Final = 1024


class Limit(NamedTuple):
    """An upper bound and the file that states it: CPUs (a fraction of them too), or bytes."""

    value: float
    source: str


class _Mount(NamedTuple):
    """Where a hierarchy is mounted, and which of its directories is seen there."""

    point: str
    root: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What a process may use.

    Attributes:
        affinity: CPUs it may be scheduled on, at least 1.
        quota: CPU time it may use, in CPUs; None where nothing caps it.
        memory: Bytes it may hold; None where that cannot be told.
    """

    affinity: int
    quota: Limit | None = None
    memory: Limit | None = None

    @property
    def cpus(self) -> float:
        """CPUs' worth of time: the affinity, or the quota where that is less."""
        return float(self.affinity) if self.quota is None else min(float(self.affinity), self.quota.value)

    @classmethod
    def read(cls, root: Path = _ROOT, affinity: int | None = None) -> Machine:
        """Read what this process may use.

        A file that is absent or not as documented is no limit: the service must start on kernels and in sandboxes that
        hide some of them.

        Args:
            root: Where `proc` and the mount points are looked for; not `/` in tests.
            affinity: CPUs to schedule on; asked of the kernel if None.
        """
        quotas, limits = [], []
        for folder in _folders(root, "cpu"):
            quotas += [Limit(v, _shown(root, path)) for path, v in _quotas(folder)]
        for folder in _folders(root, "memory"):
            limits += [Limit(v, _shown(root, path)) for path, v in _memory_limits(folder)]
        limits += _physical(root)
        lowest = min(limits, default=None)
        return cls(affinity or _affinity(), min(quotas, default=None), lowest)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # systems without masks


def _shown(root: Path, path: Path) -> str:
    return f"/{path.relative_to(root)}"


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Directories of this process's groups that may limit a controller, from its own up to the mounted root."""
    mounts = _mounts(root)
    for line in _text(root / "proc/self/cgroup").splitlines():
        _number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        # Version 2 has one hierarchy, without a list of controllers.
        mount = mounts.get("" if not controllers else controller)
        if mount is None or (controllers and controller not in controllers.split(",")):
            continue
        top = root / mount.point.lstrip("/")
        try:
            inside = PurePosixPath(group).relative_to(mount.root)
        except ValueError:
            inside = PurePosixPath()  # outside what is mounted here (a namespace): only the mounted root can be seen
        if ".." in inside.parts:
            inside = PurePosixPath()
        for part in (inside, *inside.parents):
            yield top / part
            if not part.parts:
                break


def _mounts(root: Path) -> dict[str, _Mount]:
    """Mounted hierarchies by controller; version 2 under the empty name."""
    found: dict[str, _Mount] = {}
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(), right.split()
        if len(fields) < 5 or len(kinds) < 3:  # noqa: PLR2004 - as proc(5) numbers them
            continue
        mount = _Mount(point=_unescaped(fields[4]), root=_unescaped(fields[3]))
        if kinds[0] == "cgroup2":
            found.setdefault("", mount)
        elif kinds[0] == "cgroup":
            for option in kinds[2].split(","):
                found.setdefault(option, mount)
    return found


def _unescaped(text: str) -> str:
    """Undo the octal escapes of spaces, tabs, newlines and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _quotas(folder: Path) -> Iterator[tuple[Path, float]]:
    """CPU time that a group may use, in CPUs."""
    path = folder / "cpu.max"
    words = _text(path).split()
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):  # noqa: PLR2004
        yield path, int(words[0]) / int(words[1])
    path = folder / "cpu.cfs_quota_us"
    quota, period = _text(path).strip(), _text(folder / "cpu.cfs_period_us").strip()
    if quota.isdigit() and period.isdigit() and int(period):
        yield path, int(quota) / int(period)


def _memory_limits(folder: Path) -> Iterator[tuple[Path, float]]:
    """Bytes that a group may hold."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        text = _text(folder / name).strip()
        if text.isdigit() and int(text) < _NO_LIMIT_BYTES:
            yield folder / name, int(text)


def _physical(root: Path) -> list[Limit]:
    """The memory of the machine itself."""
    path = root / "proc/meminfo"
    found = re.search(r"^MemTotal:\s*(\d+) kB", _text(path), re.MULTILINE)
    return [Limit(int(found[1]) * _KIBIBYTE, _shown(root, path))] if found else []


def _text(path: Path) -> str:
    """Content of a small file, empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
