"""What the service counts.

Counts live in `Cells`; a collector turns them into metric families at a scrape. The registry is the service's own,
never the global one. A process counts and reads on its event loop's thread, without a lock: a scrape sees whole
requests of the worker that answers it, and of the others what they have counted so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from service.catalogue import CATALOGUE, MetricRow, metrics_markdown
from service.cells import READY, RESTARTS, STARTED, Cells
from service.feature_health import FeatureHealth, score_bounds
from service.histogram import Histogram
from service.metric_families import ServiceCollector
from service.process_metrics import process_collector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from service.features.encoder import FeatureEncoder
    from service.feedback.desk import Desk
    from service.pipeline import Work

__all__ = ["CATALOGUE", "OUTCOMES", "STAGES", "MetricRow", "ModelMetrics", "ServiceMetrics", "metrics_markdown"]

# Why a connection is cut.
CUTS: Final = ("malformed", "head_late", "body_late", "head_too_large", "answer_late")
STAGES: Final = ("queue", "decode", "encode", "infer", "respond", "total")
OUTCOMES: Final = ("ok", "refused", "failed", "gone")
# 10 us to 10.5 s, two buckets an octave, three digits: a quantile read from them is at most 20% off.
SECONDS_BOUNDS: Final = tuple(float(f"{1e-5 * 2 ** (k / 2):.3g}") for k in range(41))
_REQUESTS: Final = "requests "
# A queue is counted when it holds this many requests or rows: a pause of a few hundred microseconds at most.
_REQUESTS_QUEUED: Final = 256
_ROWS_QUEUED: Final = 4096
CANDIDATES_BOUNDS: Final = tuple(float(2**k) for k in range(15))


class ModelMetrics:
    """Counts of one model.

    Args:
        cells: Where the numbers live.
        model: The model's id.
        encoder: The model's serving encoder.
        reference: The bundle's `reference.json`.
        info: Values of the labels of `reaction_model_info` after the model's id.
        load_seconds: How long it took to get the model ready.
    """

    def __init__(
        self,
        cells: Cells,
        model: str,
        encoder: FeatureEncoder,
        reference: Mapping[str, Any],
        *,
        info: tuple[str, ...],
        load_seconds: float,
    ) -> None:
        self.model = model
        self.info = info
        self.load_seconds = load_seconds
        self.base_rate: float | None = reference.get("base_rate")
        name = f"model/{model}"
        self.stages = {
            outcome: {stage: Histogram(cells, f"{name}/{outcome}/{stage}", SECONDS_BOUNDS) for stage in STAGES}
            for outcome in OUTCOMES
        }
        self.candidates = Histogram(cells, f"{name}/candidates", CANDIDATES_BOUNDS)
        self.scores = Histogram(cells, f"{name}/scores", score_bounds(reference))
        self.health = FeatureHealth(cells, f"{name}/field", encoder, reference, self.scores)
        # Times of a request (as of `Work`), its ids and scores, which must not change any more.
        self._queue: list[tuple[tuple[float, ...], NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]] = []
        self._rows = 0

    def record(self, outcome: str, work: Work | None, received: float, ended: float) -> None:
        """Count one request.

        Args:
            outcome: One of `OUTCOMES`.
            work: What became of it; None where the body was refused unread.
            received: When its last byte was there (`perf_counter`, seconds); 0.0 if never.
            ended: When its answer was handed over.
        """
        if work is not None:
            received -= work.lag
            ended -= work.lag
        if outcome == "ok" and work is not None:
            # Counted in batches: one by one, histograms and fields take longer than a one-row request.
            scores = work.scores
            times = (received, work.started, work.decoded, work.encoded, work.inferred, ended)
            self._queue.append((times, work.context_ids, work.candidate_ids, scores))
            self._rows += len(scores)
            if len(self._queue) >= _REQUESTS_QUEUED or self._rows >= _ROWS_QUEUED:
                self.flush()
            return
        stages = self.stages[outcome]
        if received:
            stages["total"].observe(ended - received)
        if work is None or not work.started:
            return
        stages["queue"].observe(work.started - received)
        if work.decoded:
            stages["decode"].observe(work.decoded - work.started)
        if work.encoded:
            stages["encode"].observe(work.encoded - work.decoded)
        if work.inferred:
            stages["infer"].observe(work.inferred - work.encoded)
            stages["respond"].observe(ended - work.inferred)

    def flush(self) -> None:
        """Count what is queued."""
        if not self._queue:
            return
        times, contexts, candidates, scores = zip(*self._queue, strict=True)
        self._queue.clear()
        self._rows = 0
        marks = np.array(times).T  # (6, requests)
        stages = self.stages["ok"]
        for stage, seconds in zip(STAGES, np.diff(marks, axis=0), strict=False):
            stages[stage].observe_array(seconds)
        stages["total"].observe_array(marks[5] - marks[0])
        self.candidates.observe_array(np.fromiter(map(len, scores), np.float64, len(scores)))
        self.health.count(contexts, candidates, scores)


class ServiceMetrics:
    """All counts of this process and of those it shares cells with, and the registry that shows them.

    Args:
        cells: Where the numbers live; None where this process serves alone.
    """

    def __init__(self, cells: Cells | None = None) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.cells = Cells() if cells is None else cells
        self.models: list[ModelMetrics] = []
        self.feedback: Desk | None = None
        self._state = self.cells.own
        self._values = self.cells.values
        self._requests: dict[tuple[str, int], int] = {}
        self._cuts = {reason: self.cells.take(f"cut {reason}", 1) for reason in CUTS}
        self.registry.register(ServiceCollector(self))
        self.registry.register(process_collector(self.cells))

    @property
    def ready(self) -> bool:
        """Whether this process scores requests."""
        return bool(self._state[READY])

    @ready.setter
    def ready(self, ready: bool) -> None:
        self._state[READY] = float(ready)
        if ready:
            self._state[STARTED] = 1.0

    def all_started(self) -> bool:
        """Whether every worker has been ready once."""
        return all(self.cells.states(STARTED))

    def workers(self) -> dict[str, int]:
        """Workers by state: those that score requests now, and those that should."""
        return {"planned": self.cells.workers, "ready": sum(map(bool, self.cells.states(READY)))}

    def restarts(self) -> float:
        """Workers that ended unasked and were replaced."""
        supervisor = self.cells.supervisor
        return 0.0 if supervisor is None else float(supervisor[RESTARTS])

    def add_model(
        self,
        model: str,
        encoder: FeatureEncoder,
        reference: Mapping[str, Any],
        *,
        info: tuple[str, ...],
        load_seconds: float,
    ) -> ModelMetrics:
        """Start counting for a model; see `ModelMetrics`."""
        added = ModelMetrics(self.cells, model, encoder, reference, info=info, load_seconds=load_seconds)
        self.models.append(added)
        return added

    def count_request(self, route: str, status: int) -> None:
        """Count one request.

        Args:
            route: Path of the route, or `other`; never the path a client made up.
            status: Status of the answer; 499 where the client hung up before it had one.
        """
        try:
            self._values[self._requests[route, status]] += 1.0
        except KeyError:  # the first of its kind
            cell = self._requests[route, status] = self.cells.take(f"{_REQUESTS}{status} {route}", 1)
            self._values[cell] += 1.0

    def requests(self) -> Mapping[tuple[str, int], float]:
        """Requests of all workers so far, by route and status."""
        counts = {}
        for name, cell, _ in self.cells.names(_REQUESTS):
            status, _, route = name.removeprefix(_REQUESTS).partition(" ")
            counts[route, int(status)] = self.cells.totals(cell)[0]
        return counts

    def count_cut(self, reason: str) -> None:
        """Count a connection that was ended for what came over it, or did not."""
        self._values[self._cuts[reason]] += 1.0

    def cut(self) -> Mapping[str, float]:
        """Connections of all workers that were ended so, by reason."""
        return {reason: self.cells.totals(cell)[0] for reason, cell in self._cuts.items()}

    def flush(self) -> None:
        """Count what is queued."""
        for model in self.models:
            model.flush()
        if self.feedback is not None:
            self.feedback.close()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Everything in the text format a scraper accepts.

        Returns:
            The text and its content type.
        """
        self.flush()
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
