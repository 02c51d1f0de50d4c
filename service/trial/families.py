"""What is counted of a trial, as metric families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.counts.cells import SHARE, TRIAL_REFUSED
from service.trial.canary import ARMS, arm_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.core import Metric

    from service.counts.cells import Cells

    Make = Callable[[str, Sequence[tuple[Sequence[str], float]]], Metric]

__all__ = ["trial_families"]

_CANARY: Final = arm_cell("", ARMS[0])


def trial_families(cells: Cells, counter: Make, gauge: Make) -> Iterator[Metric]:
    """Metric families of canary and shadow."""
    supervisor = cells.supervisor
    refused, share = (0.0, 0.0) if supervisor is None else (supervisor[TRIAL_REFUSED], supervisor[SHARE])
    yield gauge("reaction_trial_refused", [((), refused)])
    yield gauge("reaction_canary_share", [((), share)])
    labels = [name.removeprefix(_CANARY) for name, _, _ in cells.names(_CANARY)]
    yield counter(
        "reaction_canary_requests_total",
        [((label, arm), cells.totals(cells.take(arm_cell(label, arm), 1))[0]) for label in labels for arm in ARMS],
    )
