"""What is counted of a shadow, under its name: how its requests ended, how long they took, how far its scores are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.counts.histogram import Histogram
from service.counts.model_counts import SECONDS_BOUNDS
from service.trial.names import LOST, lost_cells

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from service.counts.cells import Cells

__all__ = ["OUTCOMES", "SUMS", "ShadowCounts"]

OUTCOMES: Final = ("ok", "refused", "failed")
"""Of a request that came to the shadow."""

SUMS: Final = ("candidates", "differing", "top_changed", "score", "primary_score")
_DIFFERENCES: Final = (0.0, *(float(f"{10.0**k * step:.0e}") for k in range(-6, 0) for step in (1, 2, 5)), 1.0)


class ShadowCounts:
    """Counts of one shadow.

    Args:
        cells: Where the numbers live.
        label: Its name in metrics.
    """

    def __init__(self, cells: Cells, label: str) -> None:
        self._cells = cells
        self._values = cells.values
        self._outcomes = cells.take(f"shadow outcomes {label}", len(OUTCOMES))
        self._sums = cells.take(f"shadow sums {label}", len(SUMS))
        self._lost = lost_cells(cells, label)
        self.seconds = Histogram(cells, f"shadow seconds {label}", SECONDS_BOUNDS)
        self.difference = Histogram(cells, f"shadow difference {label}", _DIFFERENCES)

    def end(self, outcome: str, seconds: float) -> None:
        """Count a request that came, and how long it took."""
        self._values[self._outcomes + OUTCOMES.index(outcome)] += 1.0
        self.seconds.observe(seconds)

    def compare(self, scores: NDArray[np.float32], primary: NDArray[np.float32], tolerance: float) -> None:
        """Count scores (N,) beside those that were answered (N,)."""
        apart = abs(scores - primary)
        self.difference.observe_array(apart)
        found = (
            len(scores),
            (apart > tolerance).sum(),
            scores.argmax() != primary.argmax(),
            scores.sum(dtype="f8"),
            primary.sum(dtype="f8"),
        )
        for place, value in enumerate(found, self._sums):
            self._values[place] += float(value)

    def requests(self) -> dict[str, float]:
        """Requests of all workers, by what became of them here."""
        came = self._cells.totals(self._outcomes, len(OUTCOMES))
        lost = self._cells.totals(self._lost, len(LOST))
        return dict(zip((*OUTCOMES, *LOST), (*came, *lost), strict=True))

    def sums(self) -> dict[str, float]:
        """By the names of `SUMS`."""
        return dict(zip(SUMS, self._cells.totals(self._sums, len(SUMS)), strict=True))
