"""Which workers stand still: their event loops have not come round for too long, whatever holds them up.

A worker beats by each of its loop's seconds; here only is looked whether that goes on. Looks are counted, not seconds:
if the whole service was suspended, the workers beat again before as many looks have passed.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from service.counts.cells import BEAT
from service.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.counts.cells import Cells
    from service.workers.place import WorkerProcess

__all__ = ["Watchdog"]

_LOOKS: Final = 4  # without a beat

_log: Final = get_logger("service.workers.supervisor")


class Watchdog:
    """Looks at beats.

    Args:
        cells: The supervisor's view of all counts.
        seconds: How long a worker may stand still; 0 for as long as it likes.

    Attributes:
        due: When to look again (`monotonic`, seconds); None if never.
    """

    def __init__(self, cells: Cells, seconds: float) -> None:
        self._cells = cells
        self._every = seconds / _LOOKS
        self._seen: dict[int, tuple[float, int]] = {}
        self.due = monotonic() + self._every if seconds else None

    def look(self, workers: Iterable[WorkerProcess]) -> None:
        """Have those killed that stand still, if it is time to look."""
        now = monotonic()
        if self.due is None or now < self.due:
            return
        self.due = now + self._every
        seen = {}
        for worker in workers:
            number, beat = worker.process.pid, self._cells.state_of(worker.block)[BEAT]
            before, looks = self._seen.get(number, (-1.0, 0))
            # One that gets ready has not begun to beat.
            looks = looks + 1 if beat == before and beat else 0
            seen[number] = beat, looks
            if looks >= _LOOKS and worker.kill_by is None:
                _log.error("worker_hung", process=number, seconds=round(_LOOKS * self._every, 3))
                worker.kill_by = now
        self._seen = seen
