"""What is counted of a trial, as metric families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.counts.cells import SHADOW, SHARE, TRIAL_REFUSED
from service.trial.canary import ARMS, arm_cell
from service.trial.names import ends_of, labels_of
from service.trial.shadow_counts import ShadowCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.core import Metric

    from service.counts.cells import Cells
    from service.counts.histogram import Histogram

    MakeHistogram = Callable[[str, Sequence[tuple[Sequence[str], Histogram]]], Metric]
    Make = Callable[[str, Sequence[tuple[Sequence[str], float]]], Metric]

__all__ = ["trial_families"]

_CANARY: Final = arm_cell("", ARMS[0])


def trial_families(cells: Cells, counter: Make, gauge: Make, histogram: MakeHistogram) -> Iterator[Metric]:
    """Metric families of canary and shadow."""
    yield from _canary_families(cells, counter, gauge)
    yield from _shadow_families(cells, counter, gauge, histogram)


def _canary_families(cells: Cells, counter: Make, gauge: Make) -> Iterator[Metric]:
    supervisor = cells.supervisor
    refused, share = (0.0, 0.0) if supervisor is None else (supervisor[TRIAL_REFUSED], supervisor[SHARE])
    yield gauge("reaction_trial_refused", [((), refused)])
    yield gauge("reaction_canary_share", [((), share)])
    labels = [name.removeprefix(_CANARY) for name, _, _ in cells.names(_CANARY)]
    yield counter(
        "reaction_canary_requests_total",
        [((label, arm), cells.totals(cells.take(arm_cell(label, arm), 1))[0]) for label in labels for arm in ARMS],
    )


def _shadow_families(cells: Cells, counter: Make, gauge: Make, histogram: MakeHistogram) -> Iterator[Metric]:
    supervisor = cells.supervisor
    shadows = [(label, ShadowCounts(cells, label)) for label in labels_of(cells)]
    yield gauge("reaction_shadow_ready", [((), float(supervisor is not None and supervisor[SHADOW] > 0))])
    yield counter(
        "reaction_shadow_requests_total",
        [((label, outcome), count) for label, counts in shadows for outcome, count in counts.requests().items()],
    )
    yield counter("reaction_shadow_ends_total", [(labels, count) for labels, count in ends_of(cells).items()])
    yield histogram("reaction_shadow_seconds", [((label,), counts.seconds) for label, counts in shadows])
    yield histogram("reaction_shadow_difference", [((label,), counts.difference) for label, counts in shadows])
    sums = [(label, counts.sums()) for label, counts in shadows]
    for name in ("candidates", "differing", "top_changed"):
        yield counter(f"reaction_shadow_{name}_total", [((label,), found[name]) for label, found in sums])
    yield counter(
        "reaction_shadow_score_total",
        [
            ((label, of), found[name])
            for label, found in sums
            for of, name in (("shadow", "score"), ("primary", "primary_score"))
        ],
    )
