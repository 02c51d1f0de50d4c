"""Picks the golden rows: a few real raw rows that touch what can go wrong between training and serving.

Each row has tags: a field that is missing, out of vocabulary, cut off, several-valued, or exactly on a bucket's edge,
and the sixteenth of the score range it falls in. Rows are taken greedily by how many new tags they bring, then
filled up evenly by score. No randomness: the same run gives the same rows.

A row keeps the fields that the served model reads, and no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model_export.errors import NonFiniteError, RunChangedError
from model_export.parity import sigmoid
from service.bundle import GoldenRow
from service.features import (
    MISSING,
    OUT_OF_VOCABULARY,
    PAD,
    FeatureEncoder,
    FeatureError,
    MultiValuedField,
    NumericField,
)

if TYPE_CHECKING:
    from model_export.fusion.tower import Float, Ids
    from model_export.parity import Reference
    from service.features import Field

FEWEST: Final = 32
MOST: Final = 64
SCORE_BINS: Final = 16

Tag = tuple[str, str]
RawRow = Mapping[str, Any]


def golden_rows(
    raw: Sequence[RawRow], training: FeatureEncoder, serving: FeatureEncoder, reference: Reference
) -> tuple[tuple[GoldenRow, ...], tuple[Ids, Ids]]:
    """Pick rows and score them with the unfused model.

    Args:
        raw: Rows of the run's sample, `{"context": {...}, "candidate": {...}}`.
        training: The run's encoder, whose layout the fusion form reads.
        serving: The bundle's encoder.
        reference: The fusion form.

    Returns:
        The rows in their order in the sample, and their ids on the training layout.

    Raises:
        RunChangedError: The sample is empty, or holds a value that the run's encoder refuses.
        NonFiniteError: The fusion form gives a row no finite score.
    """
    if not raw:
        raise RunChangedError("raw_sample.jsonl: expected at least one row, got none")
    context = [_kept(row["context"], serving) for row in raw]
    candidate = [_kept(row["candidate"], serving) for row in raw]
    try:
        ids = training.encode_rows("context", context), training.encode_rows("candidate", candidate)
        served = serving.encode_rows("context", context), serving.encode_rows("candidate", candidate)
    except FeatureError as error:
        raise RunChangedError(f"raw_sample.jsonl: {error}") from error
    scores = reference.logits(*ids)
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise NonFiniteError(
            f"raw_sample.jsonl: row {wrong[0]}: expected a finite score of the fusion form, got {scores[wrong[0]]} "
            f"({wrong.size} such of {len(raw)})"
        )
    pctr = sigmoid(scores)
    tags = [
        set(_tags(serving, row, one, two)) for row, one, two in zip(_merged(context, candidate), *served, strict=True)
    ]
    for row, score_bin in enumerate(_score_bins(scores)):
        tags[row].add(("score", str(score_bin)))
    for row, tag in _nearest_to_edges(serving, context, candidate):
        tags[row].add(tag)
    chosen = choose(tags, scores)
    rows = tuple(
        GoldenRow(
            context=context[row],
            candidate=candidate[row],
            context_ids=served[0][row].tolist(),
            candidate_ids=served[1][row].tolist(),
            pctr=float(pctr[row]),
        )
        for row in chosen
    )
    return rows, (ids[0][chosen], ids[1][chosen])


def choose(tags: Sequence[set[Tag]], scores: Float, fewest: int = FEWEST, most: int = MOST) -> list[int]:
    """Choose row numbers, ascending: a greedy cover of the tags, then evenly by score."""
    left = set().union(*tags)
    chosen: list[int] = []
    while left and len(chosen) < most:
        best = max(range(len(tags)), key=lambda row: (len(tags[row] & left), -row))
        chosen.append(best)
        left -= tags[best]
    by_score = [int(row) for row in np.argsort(scores, kind="stable") if row not in set(chosen)]
    need = min(max(0, fewest - len(chosen)), len(by_score))
    if need:
        chosen += [by_score[int(position)] for position in np.linspace(0, len(by_score) - 1, need).round()]
    return sorted(set(chosen))


def _kept(values: Mapping[str, object], serving: FeatureEncoder) -> dict[str, object]:
    names = {field.name for field in serving.fields}
    return {name: value for name, value in values.items() if name in names}


def _merged(context: list[dict[str, object]], candidate: list[dict[str, object]]) -> Iterator[dict[str, object]]:
    return ({**one, **two} for one, two in zip(context, candidate, strict=True))


def _tags(encoder: FeatureEncoder, row: Mapping[str, object], context_ids: Ids, candidate_ids: Ids) -> Iterator[Tag]:
    for side, ids in (("context", context_ids), ("candidate", candidate_ids)):
        for column in encoder.columns(side):  # type: ignore[arg-type]
            own = ids[column.first : column.first + column.width]
            if own[0] == MISSING:
                yield column.name, "missing"
            if OUT_OF_VOCABULARY in own:
                yield column.name, "out of vocabulary"
            yield from ((column.name, tag) for tag in _kind_tags(encoder.field(column.name), row.get(column.name), own))


def _kind_tags(field: Field, raw: object, ids: Ids) -> Iterator[str]:
    match field:
        case MultiValuedField():
            if len(field.tokens(raw)) > field.max_values:
                yield "cut off"
            elif np.count_nonzero(ids != PAD) > 1:
                yield "several values"
        case NumericField():
            if field.number(raw) in field.edges:
                yield "edge"
            if ids[0] != MISSING and field.token(raw) in {"0", str(len(field.edges))}:
                yield f"end bucket {field.token(raw)}"


def _nearest_to_edges(
    encoder: FeatureEncoder, context: list[dict[str, object]], candidate: list[dict[str, object]]
) -> Iterator[tuple[int, Tag]]:
    """The rows whose numbers come closest to a bucket's edge, from above (or on it) and from below."""
    for field in encoder.fields:
        if not isinstance(field, NumericField) or not field.edges:
            continue
        rows = context if field.side == "context" else candidate
        numbers = [field.number(row.get(field.name)) for row in rows]
        values = np.array([np.nan if number is None else number for number in numbers])
        edges = np.array([-np.inf, *field.edges, np.inf])
        bucket = np.searchsorted(edges, values, side="right")
        above, below = values - edges[bucket - 1], edges[np.minimum(bucket, len(edges) - 1)] - values
        for tag, gap in (("from above", above), ("from below", below)):
            if np.isfinite(gap).any():
                yield int(np.nanargmin(gap)), (field.name, tag)


def _score_bins(scores: Float) -> list[int]:
    """The sixteenth of the range of logits that each row falls in."""
    spread = float(scores.max() - scores.min()) or 1.0
    return [min(SCORE_BINS - 1, int(SCORE_BINS * (score - scores.min()) / spread)) for score in scores]
