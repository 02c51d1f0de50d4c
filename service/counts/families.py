"""The counts of the service as metric families of the Prometheus client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.counts.catalogue import CATALOGUE
from service.feedback.families import feedback_families
from service.trial.families import trial_families

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.counts.histogram import Histogram
    from service.counts.model_counts import ModelCounts
    from service.metrics import ServiceMetrics

__all__ = ["ServiceCollector"]


class ServiceCollector(Collector):
    """Turns counts into metric families.

    Args:
        metrics: The counts, those of all workers.
    """

    def __init__(self, metrics: ServiceMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Metric families, as a scrape shows them."""
        metrics = self._metrics
        workers = metrics.workers()
        yield _gauge("reaction_ready", [((), float(workers["ready"] > 0))])
        yield _gauge("reaction_workers", [((state,), number) for state, number in workers.items()])
        yield _counter("reaction_worker_restarts_total", [((), metrics.restarts())])
        yield _counter(
            "reaction_requests_total",
            [((route, str(status)), count) for (route, status), count in metrics.requests().items()],
        )
        yield _counter("reaction_connections_cut_total", [((why,), count) for why, count in metrics.cut().items()])
        yield _counter(
            "reaction_recorded_requests_total", [((what,), count) for what, count in metrics.recorded().items()]
        )
        yield _counter("reaction_traced_requests_total", [((what,), count) for what, count in metrics.traced().items()])
        yield _counter("reaction_reloads_total", list(metrics.reloads().items()))
        yield _gauge("reaction_deployed_refused", [((), metrics.deployed_refused())])
        models = metrics.all_models()
        active = metrics.active_slots()
        served = [m for m in models if m.slot in active]
        yield _counter("reaction_requests_shed_total", [((why,), count) for why, count in metrics.shed().items()])
        yield _histogram(
            "reaction_stage_seconds",
            [
                ((model.model, stage, outcome), histogram)
                for model in models
                for outcome, stages in model.stages.items()
                for stage, histogram in stages.items()
                # A refused request never reached most stages: show what there is, and always the good outcome.
                if outcome == "ok" or histogram.cumulative()[-1]
            ],
        )
        yield _histogram("reaction_request_candidates", [((m.model,), m.candidates) for m in models])
        yield _histogram("reaction_score", [((m.model,), m.scores) for m in models])
        yield _counter("reaction_candidates_total", [((m.model,), m.candidates.sum) for m in models])
        yield from _fields(models)
        known = [m for m in models if m.base_rate is not None]
        yield _gauge("reaction_reference_base_rate", [((m.model,), float(m.base_rate or 0.0)) for m in known])
        yield _counter("reaction_score_repeats_total", [((m.model,), m.repeats.total) for m in models])
        yield from _training(models)
        yield _gauge("reaction_model_info", [((m.model, *m.info), 1.0) for m in served])
        yield _gauge("reaction_model_load_seconds", [((m.model,), m.load_seconds) for m in models])
        yield from feedback_families(metrics.feedback, _counter, _gauge)
        yield from trial_families(metrics.cells, _counter, _gauge, _histogram)


def _fields(models: Sequence[ModelCounts]) -> Iterator[Metric]:
    fields = [((model.model, name), counts) for model in models for name, counts in model.fields.items()]
    for member in ("values", "missing", "out_of_vocabulary"):
        yield _counter(
            f"reaction_field_{member}_total", [(labels, getattr(counts, member)) for labels, counts in fields]
        )
    for member in ("missing", "out_of_vocabulary"):
        yield _gauge(
            f"reaction_field_reference_{member}_ratio",
            [(labels, counts.reference[member]) for labels, counts in fields if member in counts.reference],
        )


def _training(models: Sequence[ModelCounts]) -> Iterator[Metric]:
    """How scores and values of fields were spread in training, and how values are now."""
    yield _gauge(
        "reaction_reference_score_ratio",
        [
            ((m.model, bound), share)
            for m in models
            for bound, share in zip(map(floatToGoString, m.scores.bounds), m.about.score_shares, strict=False)
        ],
    )
    counts = [((m.model, field), counts) for m in models for field, counts in m.bins.items()]
    yield _counter(
        "reaction_field_bin_values_total",
        [((*of, name), n) for of, found in counts for name, n in zip(found.bins.names, found.counts, strict=True)],
    )
    yield _gauge(
        "reaction_field_reference_bin_ratio",
        [((*of, name), n) for of, found in counts for name, n in zip(found.bins.names, found.bins.shares, strict=True)],
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
