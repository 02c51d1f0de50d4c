"""What a shadow does: one request after the other, each compared with what was answered."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from service.counts.cells import BEAT, Cells
from service.errors import problem_of
from service.logging import configure_logging, get_logger
from service.openinference.pipeline import InferPipeline, InferWork
from service.pipeline import Pipeline, Work
from service.settings import load_settings
from service.trial.feed import LONGEST, SCORE_FORM, Asked, read_message
from service.trial.shadow_counts import ShadowCounts
from service.versions.loading import load_model
from service.workers.order import Told

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from service.scorer import Scorer
    from service.trial.shadow import ShadowOrder

__all__ = ["run"]

_STANDARD_INPUT: Final = 0
_LOOK_MS: Final = 500
_SERVER_FAULT: Final = 500
# A version that refuses everything need not say so every time.
_FAULTS_LOGGED: Final = 10

_log: Final = get_logger("service.trial")


def run(order: ShadowOrder) -> int:
    """Score as ordered until the supervisor goes; returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the supervisor ends it, once nothing is answered any more
        signal.signal(number, signal.SIG_IGN)
    settings = load_settings(**order.given)
    configure_logging(settings.log_level)

    def tell(told: Told) -> None:
        with contextlib.suppress(OSError):
            os.write(order.reports, msgspec.json.encode(told) + b"\n")

    try:
        scorer = load_model(
            Path(order.bundle),
            threads=order.threads,
            precision=settings.precision,
            manifest_sha256=order.manifest_sha256,
            keys_file=settings.bundle_keys_file,
        ).scorer
    except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor has to know
        tell(Told("failed", type(error).__name__, str(error)))
        return 1
    cells = Cells(order.workers, order.block, descriptor=order.cells)
    shadow = _Shadow(scorer, settings.max_candidates, ShadowCounts(cells, order.label), order.tolerance)
    _serve(shadow, socket.socket(fileno=order.requests), cells, lambda: tell(Told("ready")))
    return 0


def _serve(shadow: _Shadow, requests: socket.socket, cells: Cells, begin: Any) -> None:
    """Score what comes until standard input ends, which the supervisor holds open as long as it lives."""
    with contextlib.suppress(
        OSError, AttributeError
    ):  # less than the lowest priority: only now, or it never gets ready
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    state, room = cells.own, memoryview(bytearray(LONGEST))
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    poll.register(_STANDARD_INPUT, select.POLLIN)
    state[BEAT] = monotonic()
    begin()
    while True:
        state[BEAT] = monotonic()
        found = dict(poll.poll(_LOOK_MS))
        if _STANDARD_INPUT in found:
            return
        if found:
            with contextlib.suppress(BlockingIOError):
                size = requests.recv_into(room, 0, socket.MSG_DONTWAIT)
                shadow.take(read_message(room[:size]))


class _Shadow:
    """Scores and compares.

    Args:
        scorer: The version on trial.
        most: Most candidates in one request.
        counts: Where it is counted.
        tolerance: See `ShadowOrder`.
    """

    def __init__(self, scorer: Scorer, most: int, counts: ShadowCounts, tolerance: float) -> None:
        self._pipeline = Pipeline(scorer, max_candidates=most)
        self._inference = InferPipeline(scorer, max_candidates=most)
        self._counts = counts
        self._tolerance = tolerance
        self._faults = 0

    def take(self, asked: Asked) -> None:
        """Score a request, and count how it ended."""
        began = perf_counter()
        try:
            scores = self._score(asked)
        except Exception as error:  # noqa: BLE001 - it is the version that is on trial
            outcome = "failed" if problem_of(error).status >= _SERVER_FAULT else "refused"
            self._counts.end(outcome, perf_counter() - began)
            if self._faults < _FAULTS_LOGGED:
                self._faults += 1
                _log.warning("shadow_failed", outcome=outcome, error=f"{type(error).__name__}: {error}")
            return
        self._counts.end("ok", perf_counter() - began)
        self._counts.compare(scores, asked.scores, self._tolerance)

    def _score(self, asked: Asked) -> NDArray[np.float32]:
        if asked.form == SCORE_FORM:
            work = Work(asked.body, request_id="", packed=asked.packed, answer_packed=asked.packed)
            self._pipeline.run(work)
        else:
            work = InferWork(asked.body, request_id="", header_length=asked.header_length)
            self._inference.run(work)
        if len(work.scores) != len(asked.scores):
            raise ValueError(f"scores: expected {len(asked.scores)}, got {len(work.scores)}")
        return work.scores
