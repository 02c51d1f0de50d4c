"""Sends requests as spans to a collector of OpenTelemetry, off the response path.

Who calls decides: a request whose `traceparent` says that it is recorded is sent, one that says it is not is left out,
and of those that say nothing a share is drawn. What has no room, and what the collector does not take, is counted and
gone.
"""

from __future__ import annotations

import http.client
import os
import random
import socket
from time import time_ns
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from service.beside import Beside
from service.logging import get_logger
from service.tracing.context import read_traceparent
from service.tracing.spans import Traced, encode_export, new_id, spans_of

if TYPE_CHECKING:
    from service.counts.cells import Cells
    from service.pipeline import Work
    from service.settings import Settings

__all__ = ["OUTCOMES", "Tracer", "span_cell"]

OUTCOMES: Final = ("exported", "lagging", "failed")
_QUEUED_BYTES: Final = 4 << 20
_BYTES_A_REQUEST: Final = 1024
_EXPORT_SECONDS: Final = 5.0
_PATH: Final = "/v1/traces"
_TAKEN: Final = 200

_log: Final = get_logger("service.tracing")


def span_cell(cells: Cells, outcome: str) -> int:
    """Where requests are counted that were to be traced."""
    return cells.take(f"traced {outcome}", 1)


class Tracer:
    """Traces requests of one process. `trace` and `close` are the event loop's.

    Args:
        settings: The service's settings.
        cells: Counts shared with other workers.
        version: Of the service.
    """

    def __init__(self, settings: Settings, cells: Cells, version: str) -> None:
        parts = urlsplit(settings.trace_url or "")
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._collector = connect(parts.hostname or "", parts.port, timeout=_EXPORT_SECONDS)
        self._path = parts.path if parts.path not in ("", "/") else _PATH
        self._ratio = settings.trace_ratio
        self._resource: dict[str, str | int] = {
            "service.name": "reaction",
            "service.version": version,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            "process.pid": os.getpid(),
        }
        # Each cell is one thread's: `lagging` the event loop's, the others the sender's.
        self._values = cells.values
        self._cells = {outcome: span_cell(cells, outcome) for outcome in OUTCOMES}
        self._failing = False
        self._beside: Beside[Traced] = Beside("trace", self._send, most_bytes=_QUEUED_BYTES, end=self._collector.close)

    @classmethod
    def open(cls, settings: Settings, cells: Cells, version: str) -> Tracer | None:
        """The tracer that the settings ask for; None where nothing is traced."""
        return None if settings.trace_url is None else cls(settings, cells, version)

    def trace(self, work: Work, route: str, model: str, status: int, ended: float) -> str:
        """Take a request that is over, if it is to be traced.

        Args:
            work: The request.
            route: What it is counted as.
            model: Name of what scored it, or was to.
            status: Of its answer.
            ended: When that was handed over (`perf_counter`, seconds).

        Returns:
            Its trace; empty where it is not traced.
        """
        parent = read_traceparent(work.traceparent) if work.traceparent else None
        if not (parent.sampled if parent is not None else random.random() < self._ratio):  # noqa: S311 - no secret
            return ""
        marks = (work.received, work.started, work.decoded, work.encoded, work.inferred)
        facts: dict[str, str | int] = {"reaction.request_id": work.request_id, "reaction.model": model}
        if work.inferred:
            facts["reaction.candidates"] = len(work.scores)
        traced = Traced(
            trace_id=new_id(16) if parent is None else parent.trace_id,
            parent_id="" if parent is None else parent.span_id,
            span_id=new_id(8),
            route=route,
            status=status,
            wall_ns=time_ns(),
            # Marks are made as if what others took between stages had passed before it was read.
            marks=(marks[0] and marks[0] - work.lag, *marks[1:], ended - work.lag),
            facts=facts,
        )
        if not self._beside.offer(traced, _BYTES_A_REQUEST):
            self._values[self._cells["lagging"]] += 1.0
        return traced.trace_id

    def close(self) -> None:
        """Send what is queued, unless that takes long."""
        self._beside.close()

    def _send(self, batch: list[Traced]) -> None:
        """On the thread."""
        body = encode_export((span for traced in batch for span in spans_of(traced)), self._resource)
        why = self._post(body) and self._post(
            body
        )  # a kept connection may have ended meanwhile: once more, on a new one
        self._values[self._cells["failed" if why else "exported"]] += len(batch)
        if bool(why) != self._failing:  # once each: a collector that is away must not fill the log
            self._failing = bool(why)
            if why:
                _log.warning("tracing_failed", error=why)
            else:
                _log.info("tracing_goes_on")

    def _post(self, body: bytes) -> str:
        """Send a batch; why it was not taken, or nothing."""
        try:
            self._collector.request("POST", self._path, body, {"content-type": "application/json"})
            answer = self._collector.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._collector.close()
            return repr(error)
        return "" if answer.status == _TAKEN else f"status {answer.status}"
