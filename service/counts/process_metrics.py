"""The client library's `process_*` for several processes: the workers and their supervisor.

CPU time, address space and open files are sums; CPU time also holds what ended workers spent, so that it never falls.
Start time is the earliest, the limit of open files the lowest. Resident memory counts each process's own pages, and
pages of files once (those of the process that has most of them): workers map the same files, and a sum of resident
sizes would show the model as often as there are workers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import ProcessCollector
from prometheus_client.registry import Collector

from service.counts.cells import PID, SPENT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.core import Metric

    from service.counts.cells import Cells

__all__ = ["process_collector"]

_PROC: Final = Path("/proc")
_KIBIBYTE: Final = 1024
_RESIDENT: Final = "process_resident_memory_bytes"
_CPU: Final = "process_cpu_seconds"
# How one value comes of many.
_JOINED: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "process_virtual_memory_bytes": sum,
    _RESIDENT: sum,
    "process_start_time_seconds": min,
    _CPU: sum,
    "process_open_fds": sum,
    "process_max_fds": min,
}


def process_collector(cells: Cells) -> Collector:
    """The collector for this process alone, or for all that share its cells."""
    if cells.supervisor is None:
        return ProcessCollector(registry=None)
    return _Processes(cells)


class _Processes(Collector):
    """Joins the metrics of several processes."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._pid = 0
        self._one = ProcessCollector(pid=lambda: self._pid, registry=None)

    def collect(self) -> Iterable[Metric]:
        """Metric families, under the client library's names."""
        supervisor = self._cells.supervisor
        pids = [int(pid) for pid in self._cells.each(PID) if pid]
        pids += [int(supervisor[PID])] if supervisor else []
        found: dict[str, list[Metric]] = {}
        for pid in pids:
            self._pid = pid
            for metric in self._one.collect():
                found.setdefault(metric.name, []).append(metric)
        for name, metrics in found.items():
            values = [metric.samples[0].value for metric in metrics]
            value = _JOINED[name](values)
            if name == _CPU and supervisor:
                value += supervisor[SPENT_SECONDS]
            elif name == _RESIDENT:
                value = _resident(pids) or value
            first = metrics[0]
            first.samples = [first.samples[0]._replace(value=value)]
            yield first


def _resident(pids: Sequence[int]) -> float:
    """Bytes of all processes' own pages, and of the most file pages one has; 0 where the kernel does not tell."""
    own, files = 0, 0
    for pid in pids:
        try:
            status = (_PROC / str(pid) / "status").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue  # it ended meanwhile
        sizes = {name: int(size) for name, size in re.findall(r"^Rss(\w+):\s*(\d+) kB", status, re.MULTILINE)}
        own += sizes.get("Anon", 0) + sizes.get("Shmem", 0)
        files = max(files, sizes.get("File", 0))
    return float((own + files) * _KIBIBYTE)
