"""What is counted of one model, and what its counts are called: enough to show them, whoever counted.

A process counts what it scores (`ModelMetrics`). What it shows holds other processes' counts too, also of a model that
only these serve, before or after a change of versions (`ModelCounts`).
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from service.counts.cells import slot_prefix
from service.counts.feature_health import FeatureHealth, FieldCounts, ScoreRepeats, field_ratios, score_bounds
from service.counts.histogram import Histogram
from service.counts.stability import BinCounts, FieldBins, field_bins, score_shares

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from service.counts.cells import Cells
    from service.features.encoder import FeatureEncoder
    from service.pipeline import Work

__all__ = ["OUTCOMES", "STAGES", "About", "ModelCounts", "ModelMetrics", "about_model"]

STAGES: Final = ("queue", "decode", "encode", "infer", "respond", "total")
OUTCOMES: Final = ("ok", "refused", "failed", "gone")
# 10 us to 10.5 s, two buckets an octave, three digits: a quantile read from them is at most 20% off.
SECONDS_BOUNDS: Final = tuple(float(f"{1e-5 * 2 ** (k / 2):.3g}") for k in range(41))
# A queue is counted when it holds this many requests or rows: a pause of a few hundred microseconds at most.
_REQUESTS_QUEUED: Final = 512
_ROWS_QUEUED: Final = 4096
_MARKS: Final = 6  # times of a request
CANDIDATES_BOUNDS: Final = tuple(float(2**k) for k in range(15))


class About(msgspec.Struct, frozen=True):
    """What a model's counts are; the page of its slot.

    Attributes:
        model: Value of the label `model`.
        info: Values of the labels of `reaction_model_info` after the model's.
        load_seconds: How long it took to get the model ready.
        base_rate: Share of clicks in training; None where the bundle does not say.
        score_bounds: Upper bounds of the histogram of scores.
        fields: Of each field that is read: its ratios in training.
        bins: Of each field of which training's values are known: how they were spread.
        score_shares: Share of training's scores at or under each bound; empty where it is not known.
    """

    model: str
    info: tuple[str, ...]
    load_seconds: float
    base_rate: float | None
    score_bounds: tuple[float, ...]
    fields: dict[str, dict[str, float]]
    bins: dict[str, FieldBins] = {}
    score_shares: tuple[float, ...] = ()


def about_model(
    model: str,
    encoder: FeatureEncoder,
    reference: Mapping[str, Any],
    *,
    info: tuple[str, ...],
    load_seconds: float,
) -> About:
    """What a model's counts are.

    Args:
        model: Value of the label `model`.
        encoder: The model's serving encoder.
        reference: The bundle's `reference.json`.
        info: See `About`.
        load_seconds: See `About`.
    """
    base_rate: float | None = reference.get("base_rate")
    bounds = score_bounds(reference)
    return About(
        model,
        info,
        load_seconds,
        base_rate,
        bounds,
        field_ratios(encoder, reference),
        field_bins(encoder, reference),
        score_shares(reference, bounds),
    )


class ModelCounts:
    """Counts of one model, those of all processes.

    Args:
        cells: Where the numbers live.
        slot: Where among them this model's are.
        about: What they are.
    """

    def __init__(self, cells: Cells, slot: int, about: About) -> None:
        self.slot = slot
        self.about = about
        self.model = about.model
        self.info = about.info
        self.load_seconds = about.load_seconds
        self.base_rate = about.base_rate
        name = f"{slot_prefix(slot)}"
        self.stages = {
            outcome: {stage: Histogram(cells, f"{name}{outcome}/{stage}", SECONDS_BOUNDS) for stage in STAGES}
            for outcome in OUTCOMES
        }
        self.candidates = Histogram(cells, f"{name}candidates", CANDIDATES_BOUNDS)
        self.scores = Histogram(cells, f"{name}scores", about.score_bounds)
        self.repeats = ScoreRepeats(cells, f"{name}repeats")
        self.bins = {field: BinCounts(cells, f"{name}bins/{field}", bins) for field, bins in about.bins.items()}
        self.fields = {
            field: FieldCounts(cells, f"{name}field/{field}", ratios) for field, ratios in about.fields.items()
        }


class ModelMetrics(ModelCounts):
    """Counts what this process scores with a model.

    Args:
        cells: Where the numbers live.
        slot: Where among them this model's are.
        about: What they are.
        encoder: The model's serving encoder.
    """

    def __init__(self, cells: Cells, slot: int, about: About, encoder: FeatureEncoder) -> None:
        super().__init__(cells, slot, about)
        self._health = FeatureHealth(cells, encoder, self.fields, self.scores, repeats=self.repeats, bins=self.bins)
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
            if outcome == "ok":
                # Counted in batches: one by one, histograms and fields take longer than a one-row request.
                scores = work.scores
                times = (received, work.started, work.decoded, work.encoded, work.inferred, ended)
                queue = self._queue
                queue.append((times, work.context_ids, work.candidate_ids, scores))
                self._rows += len(scores)
                if len(queue) >= _REQUESTS_QUEUED or self._rows >= _ROWS_QUEUED:
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
        marks = np.fromiter(chain.from_iterable(times), np.float64, _MARKS * len(times)).reshape(-1, _MARKS).T
        stages = self.stages["ok"]
        for stage, seconds in zip(STAGES, np.diff(marks, axis=0), strict=False):
            stages[stage].observe_array(seconds)
        stages["total"].observe_array(marks[5] - marks[0])
        self.candidates.observe_array(np.fromiter(map(len, scores), np.float64, len(scores)))
        self._health.count(contexts, candidates, scores)
