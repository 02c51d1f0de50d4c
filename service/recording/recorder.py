"""Records a share of the scored requests, off the response path.

What has no room in the queue, because the disk is slow or stands still, and what the disk does not take, is counted and
gone. No request waits for it, and none fails.
"""

from __future__ import annotations

import random
from hashlib import sha256
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from service.beside import Beside
from service.logging import get_logger
from service.recording.files import RecordFiles
from service.recording.records import JSON, MSGPACK, Recorded

if TYPE_CHECKING:
    from service.counts.cells import Cells
    from service.scorer import Scorer
    from service.settings import Settings

    # When, seconds since its last byte, what scored it, where it is to be sent again, the request.
    _Taken = tuple[float, float, Scorer, str, Any]

__all__ = ["OUTCOMES", "Recorder", "cell_of"]

OUTCOMES: Final = ("written", "lagging", "failed")
_FILES: Final = 16
_QUEUED_BYTES: Final = 16 << 20
_BYTES_A_SCORE: Final = 24  # as text, and as the array that waits
_BYTES_BESIDE: Final = 512
_BINARY: Final = "application/octet-stream"

_log: Final = get_logger("service.recording")


def cell_of(cells: Cells, outcome: str) -> int:
    """Where requests are counted that were to be recorded."""
    return cells.take(f"recorded {outcome}", 1)


class Recorder:
    """Records requests of one process. `draw`, `offer` and `close` are the event loop's.

    Args:
        settings: The service's settings.
        cells: Counts shared with other workers.
    """

    def __init__(self, settings: Settings, cells: Cells) -> None:
        assert settings.record_directory is not None  # noqa: S101 - see `open`
        self._ratio = settings.record_ratio
        # Workers of one directory must leave each other a file, and those that replace them too.
        most_files = max(_FILES, cells.workers + 2)
        self._files = RecordFiles(
            settings.record_directory, most_bytes=settings.record_bytes // most_files, most_files=most_files
        )
        # Each cell is one thread's: `lagging` the event loop's, the others the writer's.
        self._values = cells.values
        self._cells = {outcome: cell_of(cells, outcome) for outcome in OUTCOMES}
        self._failing = False
        self._digests: dict[bytes, str] = {}
        self._beside: Beside[_Taken] = Beside("record", self._write, most_bytes=_QUEUED_BYTES, end=self._files.close)

    @classmethod
    def open(cls, settings: Settings, cells: Cells) -> Recorder | None:
        """The recorder that the settings ask for; None where nothing is recorded."""
        return cls(settings, cells) if settings.record_ratio and settings.record_directory is not None else None

    def draw(self) -> bool:
        """Whether a request is to be recorded."""
        return random.random() < self._ratio  # noqa: S311 - no secret hangs on it

    def offer(self, scorer: Scorer, path: str, work: Any, received: float) -> None:
        """Take a request that was scored and answered; nothing of it may change any more.

        Args:
            scorer: What scored it.
            path: Where it is to be sent again.
            work: The request (a `Work`).
            received: When its last byte was there (`perf_counter`, seconds).
        """
        size = len(work.body) + _BYTES_A_SCORE * len(work.scores) + _BYTES_BESIDE
        taken = (time(), perf_counter() - received, scorer, path, work)
        if not self._beside.offer(taken, size):
            self._values[self._cells["lagging"]] += 1.0

    def close(self) -> None:
        """Write what is queued, unless that takes long."""
        self._beside.close()

    # The writer's.

    def _write(self, batch: list[_Taken]) -> None:
        lines = [msgspec.json.encode(self._recorded(*taken)) for taken in batch]
        try:
            self._files.append(b"\n".join((*lines, b"")))
        except OSError as error:
            self._values[self._cells["failed"]] += len(lines)
            if not self._failing:  # once: a full disk must not fill the log too
                self._failing = True
                _log.warning("recording_failed", error=str(error))
        else:
            self._values[self._cells["written"]] += len(lines)
            if self._failing:
                self._failing = False
                _log.info("recording_goes_on")

    def _recorded(self, when: float, seconds: float, scorer: Scorer, path: str, work: Any) -> Recorded:
        bundle = scorer.bundle
        digest = self._digests.get(bundle.manifest_bytes)
        if digest is None:
            digest = self._digests[bundle.manifest_bytes] = sha256(bundle.manifest_bytes).hexdigest()
        header_length = getattr(work, "header_length", None)
        text, data = _text_or_data(work.body)
        return Recorded(
            time=when,
            request_id=work.request_id,
            path=path,
            content_type=MSGPACK if work.packed else JSON if header_length is None else _BINARY,
            model=bundle.manifest.model_id,
            manifest_sha256=digest,
            precision=scorer.precision,
            scores=work.scores.tolist(),
            seconds=round(seconds, 6),
            text=text,
            data=data,
            header_length=header_length,
            compressed=work.compressed,
        )


def _text_or_data(body: bytes) -> tuple[str | None, bytes | None]:
    """A body as text where it is that, so that people and their tools can read it; else as it is."""
    try:
        return body.decode(), None
    except UnicodeDecodeError:
        return None, body
