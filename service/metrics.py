"""What the service counts.

Counts live in `Cells`; a collector turns them into metric families at a scrape. The registry is the service's own,
never the global one. A process counts and reads on its event loop's thread, without a lock: a scrape sees whole
requests of the worker that answers it, and of the others what they have counted so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from service.counts.catalogue import CATALOGUE, MetricRow, metrics_markdown
from service.counts.cells import ACTIVE, READY, REFUSED, RESTARTS, SLOTS, STARTED, Cells
from service.counts.families import ServiceCollector
from service.counts.model_counts import OUTCOMES, STAGES, About, ModelCounts, ModelMetrics, about_model
from service.counts.process_metrics import process_collector
from service.recording.recorder import OUTCOMES as RECORDED
from service.recording.recorder import cell_of
from service.tracing.tracer import OUTCOMES as TRACED
from service.tracing.tracer import span_cell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.features.encoder import FeatureEncoder
    from service.feedback.desk import Desk

__all__ = ["CATALOGUE", "OUTCOMES", "STAGES", "MetricRow", "ModelMetrics", "ServiceMetrics", "metrics_markdown"]

# Why a connection is cut.
CUTS: Final = ("malformed", "head_late", "body_late", "head_too_large", "answer_late", "idle", "full")
# Why a long request is not scored.
SHED: Final = ("hopeless", "queue_full", "expired", "gone")
_REQUESTS: Final = "requests "
_RELOADS: Final = "reloads "


class ServiceMetrics:
    """All counts of this process and of those it shares cells with, and the registry that shows them.

    Args:
        cells: Where the numbers live; None where this process serves alone.
    """

    def __init__(self, cells: Cells | None = None) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.cells = Cells() if cells is None else cells
        self.models: list[ModelMetrics] = []  # that this process serves
        self._shown: dict[int, tuple[bytes, ModelCounts]] = {}  # by slot, with the page that it was made of
        self.feedback: Desk | None = None
        self._state = self.cells.own
        self._values = self.cells.values
        self._requests: dict[tuple[str, int], int] = {}
        self._shed = {reason: self.cells.take(f"shed {reason}", 1) for reason in SHED}
        self._cuts = {reason: self.cells.take(f"cut {reason}", 1) for reason in CUTS}
        self._recorded = {outcome: cell_of(self.cells, outcome) for outcome in RECORDED}
        self._traced = {outcome: span_cell(self.cells, outcome) for outcome in TRACED}
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
        slot: int = 0,
    ) -> ModelMetrics:
        """Start counting for a model, in a slot; other arguments as of `about_model`."""
        about = about_model(model, encoder, reference, info=info, load_seconds=load_seconds)
        added = ModelMetrics(self.cells, slot, about, encoder)
        self.models.append(added)
        self._state[ACTIVE] = float(int(self._state[ACTIVE]) | 1 << slot)
        self.cells.write_page(slot, msgspec.json.encode(about))
        return added

    def all_models(self) -> list[ModelCounts]:
        """Every model that has counts, also those that only other processes serve or served."""
        own = {model.slot: model for model in self.models}
        found: list[ModelCounts] = []
        for slot in range(SLOTS):
            if slot in own:
                found.append(own[slot])
                continue
            page = self.cells.page(slot)
            if not page:
                continue
            known = self._shown.get(slot)
            if known is None or known[0] != page:
                known = self._shown[slot] = page, ModelCounts(self.cells, slot, msgspec.json.decode(page, type=About))
            found.append(known[1])
        return found

    def active_slots(self) -> set[int]:
        """Slots of the models that some process serves now."""
        bits = 0
        for ready, active in zip(self.cells.each(READY), self.cells.each(ACTIVE), strict=True):
            bits |= int(active) if ready else 0
        return {slot for slot in range(SLOTS) if bits >> slot & 1}

    def deployed_refused(self) -> float:
        """1.0 while what is deployed was refused and something else is served."""
        supervisor = self.cells.supervisor
        return 0.0 if supervisor is None else float(supervisor[REFUSED])

    def reloads(self) -> Mapping[tuple[str, str], float]:
        """Changes of the served version so far, by outcome and reason."""
        counts = {("loaded", ""): 0.0}
        for name, cell, _ in self.cells.names(_RELOADS):
            outcome, _, reason = name.removeprefix(_RELOADS).partition(" ")
            counts[outcome, reason] = self.cells.totals(cell)[0]
        return counts

    def count_request(self, route: str, status: int) -> None:
        """Count one request.

        Args:
            route: Path of the route, or `other`; never the path a client made up.
            status: Status of the answer; 499 where the client hung up before it had one.
        """
        try:
            self._values[self._requests[route, status]] += 1.0
        except KeyError:  # the first of its kind
            self._values[self.request_cell(route, status)] += 1.0

    def request_cell(self, route: str, status: int) -> int:
        """Where such requests are counted."""
        cell = self._requests[route, status] = self.cells.take(f"{_REQUESTS}{status} {route}", 1)
        return cell

    def requests(self) -> Mapping[tuple[str, int], float]:
        """Requests of all workers so far, by route and status."""
        counts = {}
        for name, cell, _ in self.cells.names(_REQUESTS):
            status, _, route = name.removeprefix(_REQUESTS).partition(" ")
            if total := self.cells.totals(cell)[0]:
                counts[route, int(status)] = total
        return counts

    def count_shed(self, reason: str) -> None:
        """Count a long request that was not scored for want of time or room, or because nobody waits for it."""
        self._values[self._shed[reason]] += 1.0

    def shed(self) -> Mapping[str, float]:
        """Such requests of all workers, by reason."""
        return {reason: self.cells.totals(cell)[0] for reason, cell in self._shed.items()}

    def count_cut(self, reason: str) -> None:
        """Count a connection that was ended for what came over it, or did not."""
        self._values[self._cuts[reason]] += 1.0

    def cut(self) -> Mapping[str, float]:
        """Connections of all workers that were ended so, by reason."""
        return {reason: self.cells.totals(cell)[0] for reason, cell in self._cuts.items()}

    def recorded(self) -> Mapping[str, float]:
        """Requests of all workers that were drawn to be recorded, by what became of that."""
        return {outcome: self.cells.totals(cell)[0] for outcome, cell in self._recorded.items()}

    def traced(self) -> Mapping[str, float]:
        """Requests of all workers that were to be traced, by what became of that."""
        return {outcome: self.cells.totals(cell)[0] for outcome, cell in self._traced.items()}

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
