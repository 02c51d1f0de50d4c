"""Reference statistics: what a service compares its traffic with, to see drift and broken features.

All on the scale the service sees: scores and base rate carry the correction for negative sampling, and a training-only
field (which no request holds) is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from service.features import MISSING, OUT_OF_VOCABULARY, PAD, MultiValuedField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from service.features import FeatureEncoder, Side

REFERENCE_FORMAT = "reaction-reference"
REFERENCE_VERSION = 1

TOP_IDS = 64
"""Most ids a field's histogram names; the rest is summed."""

SCORE_EDGES = (
    *(0.0, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05),
    *(0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
"""Score buckets, the same for every model so that two models (and a service's metric) can be laid side by side."""

CHUNK_ROWS = 1 << 18


def correct_for_sampling(probability: NDArray[np.float64], negative_sampling_rate: float) -> NDArray[np.float64]:
    """The probability before negatives were thinned: the logit plus ln(rate).

    Args:
        probability: any shape, in [0, 1], as trained on thinned negatives.
        negative_sampling_rate: the share of negatives kept, in (0, 1].
    """
    scaled = negative_sampling_rate * probability
    return np.asarray(scaled / (scaled + (1.0 - probability)))


def reference_statistics(
    encoder: FeatureEncoder,
    ids: Mapping[Side, NDArray[np.int32]],
    label: NDArray[np.uint8],
    scores: NDArray[np.floating[Any]],
    *,
    negative_sampling_rate: float = 1.0,
    truncated: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Summarise the training split's ids and the model's scores.

    Args:
        encoder: gives the columns of each side.
        ids: the training split, side -> (N, columns of the side); may be memory-mapped, read once in chunks.
        label: (N,) of the training split.
        scores: (M,) probabilities of the served model on rows it was not trained on, before the sampling correction.
        negative_sampling_rate: the share of negatives that was kept.
        truncated: per multi-valued field, the share of rows with more values than the field holds.

    Returns:
        `reference.json`. Per field, `missing` and `out_of_vocabulary` are shares of rows, as the service counts them: a
        row with several values is out of vocabulary if one of them is. The histogram counts values, pads apart.
    """
    counts, unknown = _count_ids(encoder, ids)
    fields = {}
    for field in encoder.fields:
        if field.training_only:
            continue
        fields[field.name] = {
            **_field_statistics(
                counts[field.name], len(label), unknown[field.name], multi_valued=isinstance(field, MultiValuedField)
            ),
            "truncated": float((truncated or {}).get(field.name, 0.0)),
        }
    base_rate = correct_for_sampling(np.asarray(label.mean(dtype=np.float64)), negative_sampling_rate)
    served = correct_for_sampling(scores.astype(np.float64), negative_sampling_rate)
    histogram, _ = np.histogram(served, bins=np.asarray(SCORE_EDGES))
    return {
        "format": REFERENCE_FORMAT,
        "version": REFERENCE_VERSION,
        "rows": len(label),
        "base_rate": float(base_rate),
        "mean_score": float(served.mean()),
        "negative_sampling_rate": negative_sampling_rate,
        "score_histogram": {"edges": list(SCORE_EDGES), "counts": histogram.tolist()},
        "fields": fields,
    }


def truncated_shares(encoder: FeatureEncoder, raw_sample: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Per multi-valued field, the share of sampled raw rows that hold more values than the field keeps.

    Args:
        encoder: of the fields.
        raw_sample: rows {"context": {...}, "candidate": {...}}; ids do not tell what was cut off, so raw rows must.
    """
    shares = {}
    for field in encoder.fields:
        if isinstance(field, MultiValuedField) and raw_sample:
            values = [row[field.side].get(field.name) for row in raw_sample]
            shares[field.name] = float(encoder.truncated(field.name, values).mean())
    return shares


def _count_ids(
    encoder: FeatureEncoder, ids: Mapping[Side, NDArray[np.int32]]
) -> tuple[dict[str, NDArray[np.int64]], dict[str, int]]:
    """Occurrences of every id, a multi-valued field's columns together; and of each field, rows with an unknown one."""
    unknown = dict.fromkeys((field.name for field in encoder.fields), 0)
    counts = {field.name: np.zeros(len(encoder.vocabulary(field.name)), dtype=np.int64) for field in encoder.fields}
    for side, matrix in ids.items():
        for start in range(0, len(matrix), CHUNK_ROWS):
            chunk = np.asarray(matrix[start : start + CHUNK_ROWS])
            for column in encoder.columns(side):
                part = chunk[:, column.first : column.first + column.width]
                seen = np.bincount(part.ravel())
                counts[column.name][: len(seen)] += seen
                unknown[column.name] += int(np.count_nonzero((part == OUT_OF_VOCABULARY).any(axis=1)))
    return counts, unknown


def _field_statistics(counts: NDArray[np.int64], rows: int, unknown: int, *, multi_valued: bool) -> dict[str, Any]:
    counts = counts.copy()
    if multi_valued:
        counts[PAD] = 0
    # Ties go to the smaller id, so that the file is the same on every machine.
    top = np.argsort(-counts, kind="stable")[:TOP_IDS]
    top = top[counts[top] > 0]
    return {
        "missing": int(counts[MISSING]) / rows,
        "out_of_vocabulary": unknown / rows,
        "histogram": {
            "ids": top.tolist(),
            "counts": counts[top].tolist(),
            "other": int(counts.sum() - counts[top].sum()),
        },
    }
