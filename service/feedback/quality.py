"""How good predictions were, from counts that add up."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.feedback.counts import Tally

__all__ = ["Quality", "quality"]


class Quality(NamedTuple):
    """How good predictions were.

    Attributes:
        log_loss: Mean log loss of an impression, in nats; None without impressions.
        auc: Chance that a clicked one had a higher score than one that was not, those in one bucket counted half; None
            without either.
        calibration_ratio: Predicted clicks a click; None without clicks.
    """

    log_loss: float | None
    auc: float | None
    calibration_ratio: float | None


def quality(impression: Tally, withdrawn: Tally, click: Tally) -> Quality:
    """Log loss, AUC and calibration of impressions that were not withdrawn, those that were clicked as positives."""
    positives = click.counts
    shown = [seen - taken for seen, taken in zip(impression.counts, withdrawn.counts, strict=True)]
    negatives = [seen - clicked for seen, clicked in zip(shown, positives, strict=True)]
    rows, clicks = sum(shown), sum(positives)
    loss = impression.negative_loss - withdrawn.negative_loss - click.negative_loss + click.positive_loss
    predicted = sum(impression.scores) - sum(withdrawn.scores)
    return Quality(
        loss / rows if rows > 0 else None, _auc(positives, negatives), predicted / clicks if clicks > 0 else None
    )


def _auc(positives: Sequence[float], negatives: Sequence[float]) -> float | None:
    """Area under the ROC curve from counts of ascending buckets (the Mann-Whitney statistic, ties half)."""
    below = pairs = 0.0
    for positive, negative in zip(positives, negatives, strict=True):
        pairs += positive * (below + negative / 2)
        below += negative
    clicks = sum(positives)
    return pairs / (clicks * below) if clicks > 0 and below > 0 else None
