"""Delivery feedback as metric families. Without a desk each is there, and empty."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.utils import floatToGoString

from service.feedback.counts import BOUNDS, EVENTS
from service.feedback.quality import quality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.core import Metric

    from service.feedback.desk import Desk

    Samples = Sequence[tuple[Sequence[str], float]]

__all__ = ["feedback_families"]

_BUCKETS = (*map(floatToGoString, BOUNDS), "+Inf")


def feedback_families(
    desk: Desk | None, counter: Callable[[str, Samples], Metric], gauge: Callable[[str, Samples], Metric]
) -> Iterator[Metric]:
    """Metric families of a desk.

    Args:
        desk: The desk, if there is one.
        counter: Makes a counter of the catalogue from its samples.
        gauge: The same for a gauge.
    """
    versions = [] if desk is None else desk.versions()
    outcomes = {} if desk is None else desk.outcomes()
    unchecked = [] if desk is None else [((), desk.unchecked())]
    tallies = {counts.model: counts.tallies() for counts in versions}
    rows = [
        ((model, event), tally)
        for model, of_model in tallies.items()
        for event, tally in zip(EVENTS, of_model, strict=True)
    ]
    yield counter("reaction_feedback_tokens_total", [((counts.model,), counts.issued()) for counts in versions])
    yield counter("reaction_feedback_events_total", [((outcome,), count) for outcome, count in outcomes.items()])
    yield counter("reaction_feedback_unchecked_total", unchecked)
    for name, cells in (
        ("scored", [(labels, tally.counts) for labels, tally in rows]),
        ("scored_lower", [(labels, _lower(tally.counts)) for labels, tally in rows]),
        ("predicted_clicks", [(labels, tally.scores) for labels, tally in rows]),
    ):
        yield counter(
            f"reaction_feedback_{name}_total",
            [
                ((*labels, bucket), value)
                for labels, values in cells
                for bucket, value in zip(_BUCKETS, values, strict=True)
            ],
        )
    yield counter(
        "reaction_feedback_log_loss_total",
        [
            sample
            for labels, tally in rows
            for sample in (
                ((*labels, "no_click"), tally.negative_loss),
                ((*labels, "click"), tally.positive_loss),
            )
        ],
    )
    found = {model: quality(*of_model) for model, of_model in tallies.items()}
    for member in ("log_loss", "auc", "calibration_ratio"):
        values = ((model, getattr(one, member)) for model, one in found.items())
        yield gauge(f"reaction_feedback_{member}", [((model,), value) for model, value in values if value is not None])


def _lower(counts: Sequence[float]) -> list[float]:
    """Of each bucket, how many are in those below it."""
    return list(accumulate(counts[:-1], initial=0.0))
