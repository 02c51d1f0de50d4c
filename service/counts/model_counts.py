"""What is counted of one model, and what its counts are called: enough to show them, whoever counted.

A process counts what it scores (`ModelMetrics`). What it shows holds other processes' counts too, also of a model that
only these serve, before or after a change of versions (`ModelCounts`).
"""

from __future__ import annotations

from itertools import pairwise
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from service.counts.cells import slot_prefix
from service.counts.feature_health import (
    SAMPLED_ROWS,
    FeatureHealth,
    FieldCounts,
    ScoreRepeats,
    field_ratios,
    score_bounds,
)
from service.counts.histogram import Histogram, observe_each
from service.counts.stability import BinCounts, FieldBins, field_bins, score_shares

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.counts.cells import Cells
    from service.features.encoder import FeatureEncoder
    from service.pipeline import Work

__all__ = ["OUTCOMES", "STAGES", "About", "ModelCounts", "ModelMetrics", "about_model"]

STAGES: Final = ("queue", "decode", "encode", "infer", "respond", "total")
OUTCOMES: Final = ("ok", "refused", "failed", "gone")
# 10 us to 10.5 s, two buckets an octave, three digits: a quantile read from them is at most 20% off.
SECONDS_BOUNDS: Final = tuple(float(f"{1e-5 * 2 ** (k / 2):.3g}") for k in range(41))
# A queue is counted when it holds this many requests or rows: a pause of a few hundred microseconds at most.
_REQUESTS_QUEUED: Final = 4096
_ROWS_QUEUED: Final = 16384
_MARKS: Final = 7  # six times of a request, and its candidates
_pack: Final = Struct(f"={_MARKS}d").pack
_SCORE_BYTES: Final = 4
_ID_BYTES: Final = 4
_MARKS_QUEUED: Final = _REQUESTS_QUEUED * _MARKS * 8
_SCORES_QUEUED: Final = _ROWS_QUEUED * _SCORE_BYTES
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


class _Waiting:
    """What is to be counted of requests, one after the other.

    Copies: were arrays kept, those of the next request would each time lie on memory that no cache holds. Ids are kept
    of the first requests alone, whole ones, until there are rows enough: a copy of all of them would be most of what
    counting costs, and drive what scoring needs out of the caches. Where a batch ends has nothing to do with what the
    next request holds, and as of a request all rows are taken or none, each row weighs the same (Wald's identity).

    Attributes:
        marks: Of each request its times (as of `Work`) and its candidates, float64.
        contexts, candidates: Ids, int32.
        scores: float32.
    """

    __slots__ = ("candidates", "contexts", "marks", "scores")

    def __init__(self) -> None:
        self.marks, self.contexts, self.candidates, self.scores = bytearray(), bytearray(), bytearray(), bytearray()


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
        self._widths = encoder.width("context"), encoder.width("candidate")
        # Bytes of ids that are enough, of each side.
        self._enough_contexts, self._enough_candidates = (_ID_BYTES * SAMPLED_ROWS * width for width in self._widths)
        self._waiting = _Waiting()
        self._ok = [self.stages["ok"][stage] for stage in STAGES]

    def record_good(self, work: Work, received: float, ended: float) -> None:
        """Count a request that was answered with scores; arguments as of `record`.

        In batches: one by one, histograms and fields take longer than a one-row request.
        """
        lag, scores, waiting = work.lag, work.scores.tobytes(), self._waiting
        rows = len(scores) // _SCORE_BYTES
        marks = waiting.marks
        marks += _pack(received - lag, work.started, work.decoded, work.encoded, work.inferred, ended - lag, rows)
        waiting.scores += scores
        if len(waiting.contexts) < self._enough_contexts:
            waiting.contexts += work.context_ids.tobytes()
        if len(waiting.candidates) < self._enough_candidates:
            waiting.candidates += work.candidate_ids.tobytes()
        if len(marks) >= _MARKS_QUEUED or len(waiting.scores) >= _SCORES_QUEUED:
            self.flush()

    def record(self, outcome: str, work: Work | None, received: float, ended: float) -> None:
        """Count one request.

        Args:
            outcome: One of `OUTCOMES`.
            work: What became of it; None where the body was refused unread.
            received: When its last byte was there (`perf_counter`, seconds); 0.0 if never.
            ended: When its answer was handed over.
        """
        if work is not None:
            if outcome == "ok":
                self.record_good(work, received, ended)
                return
            received -= work.lag
            ended -= work.lag
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
        waiting = self._waiting
        if not waiting.marks:
            return
        self._waiting = _Waiting()
        *marks, rows = np.frombuffer(waiting.marks, np.float64).reshape(-1, _MARKS).T.copy()
        observe_each(self._ok, np.array([*(end - begin for begin, end in pairwise(marks)), marks[-1] - marks[0]]))
        self.candidates.observe_array(rows)
        contexts, candidates = (
            np.frombuffer(ids, np.int32).reshape(-1, width) if width else np.zeros((0, 0), np.int32)
            for ids, width in zip((waiting.contexts, waiting.candidates), self._widths, strict=True)
        )
        self._health.count(contexts, candidates, np.frombuffer(waiting.scores, np.float32))
