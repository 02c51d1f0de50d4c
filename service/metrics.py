"""What the service counts, and how `/metrics` shows it.

Counts live in `Cells`; a collector turns them into metric families at a scrape. The registry is the service's own,
never the global one. Everything is counted and read on the event loop's thread: no lock, and a scrape sees whole
requests only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.cells import Cells, Histogram
from service.feature_health import FeatureHealth, score_bounds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from service.features.encoder import FeatureEncoder
    from service.pipeline import Work

__all__ = ["CATALOGUE", "OUTCOMES", "STAGES", "MetricRow", "ModelMetrics", "ServiceMetrics", "metrics_markdown"]

STAGES: Final = ("queue", "decode", "encode", "infer", "respond", "total")
OUTCOMES: Final = ("ok", "refused", "failed", "gone")
# 10 us to 10.5 s, two buckets an octave, three digits: a quantile read from them is at most 20% off.
SECONDS_BOUNDS: Final = tuple(float(f"{1e-5 * 2 ** (k / 2):.3g}") for k in range(41))
CANDIDATES_BOUNDS: Final = tuple(float(2**k) for k in range(15))


class MetricRow(NamedTuple):
    """One documented metric."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


# What a scrape holds beside the client's own process_*; a test compares the two.
CATALOGUE: Final[dict[str, MetricRow]] = {
    name: MetricRow(name, kind, tuple(labels.split()), text)
    for name, kind, labels, text in (
        ("reaction_ready", "gauge", "", "1 when requests are scored, else 0."),
        ("reaction_requests_total", "counter", "route status", "Requests answered; 499 hung up before their answer."),
        (
            "reaction_stage_seconds",
            "histogram",
            "model stage outcome",
            "Time scoring requests spend in each stage; total counts from the last byte of the body.",
        ),
        ("reaction_candidates_total", "counter", "model", "Candidates scored."),
        ("reaction_request_candidates", "histogram", "model", "Candidates a scored request."),
        ("reaction_score", "histogram", "model", "Scores given: predicted click probabilities."),
        ("reaction_field_values_total", "counter", "model field", "Values read by a field, missing ones included."),
        ("reaction_field_missing_total", "counter", "model field", "Values that were missing."),
        (
            "reaction_field_out_of_vocabulary_total",
            "counter",
            "model field",
            "Values that held something training had not seen often enough.",
        ),
        ("reaction_field_reference_missing_ratio", "gauge", "model field", "Share of missing values in training."),
        (
            "reaction_field_reference_out_of_vocabulary_ratio",
            "gauge",
            "model field",
            "Share of out-of-vocabulary values in training.",
        ),
        ("reaction_reference_base_rate", "gauge", "model", "Share of clicks in training."),
        ("reaction_model_info", "gauge", "model created features", "1 for the model that is served."),
        ("reaction_model_load_seconds", "gauge", "model", "Time to read, verify and self-test the bundle."),
    )
}


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
        self.stages = {outcome: {stage: Histogram(cells, SECONDS_BOUNDS) for stage in STAGES} for outcome in OUTCOMES}
        self.candidates = Histogram(cells, CANDIDATES_BOUNDS)
        self.scores = Histogram(cells, score_bounds(reference))
        self.health = FeatureHealth(encoder, reference, self.scores)

    def record(self, outcome: str, work: Work | None, received: float, ended: float) -> None:
        """Count one request.

        Args:
            outcome: One of `OUTCOMES`.
            work: What became of it; None where the body was refused unread.
            received: When its last byte was there (`perf_counter`, seconds); 0.0 if never.
            ended: When its answer was handed over.
        """
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
        if outcome == "ok":
            self.candidates.observe(len(work.scores))
            self.health.add(work.context_ids, work.candidate_ids, work.scores)


class ServiceMetrics:
    """All counts of one process, and the registry that shows them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.ready = False
        self.models: list[ModelMetrics] = []
        self._cells = Cells()
        self._requests: dict[tuple[str, int], int] = {}
        self.registry.register(_ServiceCollector(self))
        ProcessCollector(registry=self.registry)

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
        added = ModelMetrics(self._cells, model, encoder, reference, info=info, load_seconds=load_seconds)
        self.models.append(added)
        return added

    def count_request(self, route: str, status: int) -> None:
        """Count one request.

        Args:
            route: Path of the route, or `other`; never the path a client made up.
            status: Status of the answer; 499 where nobody waited for it.
        """
        key = (route, status)
        self._requests[key] = self._requests.get(key, 0) + 1

    def requests(self) -> Mapping[tuple[str, int], int]:
        """Requests so far by route and status."""
        return self._requests

    def render(self, accept: str) -> tuple[bytes, str]:
        """Everything in the text format a scraper accepts.

        Returns:
            The text and its content type.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _ServiceCollector(Collector):
    """Turns counts into metric families."""

    def __init__(self, metrics: ServiceMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        yield _gauge("reaction_ready", [((), float(metrics.ready))])
        yield _counter(
            "reaction_requests_total",
            [((route, str(status)), count) for (route, status), count in metrics.requests().items()],
        )
        for model in metrics.models:
            model.health.flush()
        yield _histogram(
            "reaction_stage_seconds",
            [
                ((model.model, stage, outcome), histogram)
                for model in metrics.models
                for outcome, stages in model.stages.items()
                for stage, histogram in stages.items()
                # A refused request never reached most stages: show what there is, and always the good outcome.
                if outcome == "ok" or histogram.cumulative()[-1]
            ],
        )
        yield _histogram("reaction_request_candidates", [((m.model,), m.candidates) for m in metrics.models])
        yield _histogram("reaction_score", [((m.model,), m.scores) for m in metrics.models])
        yield _counter("reaction_candidates_total", [((m.model,), m.candidates.sum) for m in metrics.models])
        yield from self._fields()
        known = [m for m in metrics.models if m.base_rate is not None]
        yield _gauge("reaction_reference_base_rate", [((m.model,), float(m.base_rate or 0.0)) for m in known])
        yield _gauge("reaction_model_info", [((m.model, *m.info), 1.0) for m in metrics.models])
        yield _gauge("reaction_model_load_seconds", [((m.model,), m.load_seconds) for m in metrics.models])

    def _fields(self) -> Iterator[Metric]:
        fields = [
            ((model.model, name), counts)
            for model in self._metrics.models
            for name, counts in model.health.fields.items()
        ]
        for member in ("values", "missing", "out_of_vocabulary"):
            yield _counter(
                f"reaction_field_{member}_total", [(labels, getattr(counts, member)) for labels, counts in fields]
            )
        for member in ("missing", "out_of_vocabulary"):
            yield _gauge(
                f"reaction_field_reference_{member}_ratio",
                [(labels, counts.reference[member]) for labels, counts in fields if member in counts.reference],
            )


def _counter(name: str, samples: Sequence[tuple[Sequence[str], float]]) -> CounterMetricFamily:
    row = CATALOGUE[name]
    family = CounterMetricFamily(name.removesuffix("_total"), row.help, labels=row.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _gauge(name: str, samples: Sequence[tuple[Sequence[str], float]]) -> GaugeMetricFamily:
    row = CATALOGUE[name]
    family = GaugeMetricFamily(name, row.help, labels=row.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histogram(name: str, samples: Sequence[tuple[Sequence[str], Histogram]]) -> HistogramMetricFamily:
    row = CATALOGUE[name]
    family = HistogramMetricFamily(name, row.help, labels=row.labels)
    for labels, histogram in samples:
        bounds = (*map(floatToGoString, histogram.bounds), "+Inf")
        family.add_metric(labels, list(zip(bounds, histogram.cumulative(), strict=True)), histogram.sum)
    return family


def metrics_markdown() -> str:
    """The catalogue as Markdown."""
    lines = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{r.name}` | {r.type} | {', '.join(r.labels)} | {r.help} |" for r in CATALOGUE.values()]
    return "\n".join(lines)
