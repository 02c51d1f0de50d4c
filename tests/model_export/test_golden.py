"""Golden rows cover, field by field, what the sample has of it."""

from __future__ import annotations

import numpy as np
import pytest
from run_directory import fit_encoder, make_form, raw_rows

from model_export.errors import NonFiniteError, RunChangedError
from model_export.fusion import FusionFacts, fuse, fuse_towers
from model_export.golden import choose, golden_rows
from model_export.parity import Reference
from model_export.serving import serving_encoder

ENCODER = fit_encoder(raw_rows(600, seed=1))
FORM = make_form(ENCODER)
SERVING = serving_encoder(ENCODER, fuse(fuse_towers(FORM), FusionFacts()))
RAW = raw_rows(500, seed=2)


def test_every_kind_of_value_of_every_field_that_the_sample_has_is_in_a_golden_row() -> None:
    rows, _ = golden_rows(RAW, ENCODER, SERVING, Reference(FORM))
    assert 32 <= len(rows) <= 64

    def has(name: str, kind: object) -> bool:
        values = [{**row.context, **row.candidate}[name] for row in rows]
        return any(kind(value) for value in values)  # type: ignore[operator]

    for name in ("user", "hour", "tags", "item", "price", "genres"):
        assert has(name, lambda value: value is None), name
    assert has("hour", lambda value: value in {6, 12, 18})
    assert has("price", lambda value: value in {0.5, 1.5, 10.0})
    assert has("price", lambda value: value is not None and value < 0.5)
    assert has("price", lambda value: value is not None and value >= 10)
    assert has("tags", lambda value: value is not None and len(value) > 3)  # cut off
    assert has("tags", lambda value: value is not None and 1 < len(value) <= 3)
    assert has("genres", lambda value: value is not None and value.count("|") == 2)
    assert has("genres", lambda value: value is not None and value.count("|") == 1)


def test_golden_rows_are_the_same_every_time_and_in_the_order_of_the_sample() -> None:
    first, ids = golden_rows(RAW, ENCODER, SERVING, Reference(FORM))
    second, _ = golden_rows(RAW, ENCODER, SERVING, Reference(FORM))
    assert first == second
    places = [
        next(
            number
            for number, row in enumerate(RAW)
            if row["context"].items() >= one.context.items() and row["candidate"].items() >= one.candidate.items()
        )
        for one in first
    ]
    assert places == sorted(places)
    assert len(ids[0]) == len(ids[1]) == len(first)


def test_the_scores_span_the_range_of_the_sample() -> None:
    rows, _ = golden_rows(RAW, ENCODER, SERVING, Reference(FORM))
    ids = (ENCODER.encode_rows(side, [row[side] for row in RAW]) for side in ("context", "candidate"))
    every = Reference(FORM).logits(*ids)
    scores = np.array([row.pctr for row in rows])
    logits = np.log(scores / (1 - scores))
    assert logits.min() == pytest.approx(every.min())
    assert logits.max() == pytest.approx(every.max())


def test_few_rows_are_all_taken_and_none_is_an_error() -> None:
    rows, _ = golden_rows(RAW[:5], ENCODER, SERVING, Reference(FORM))
    assert len(rows) == 5
    with pytest.raises(RunChangedError, match=r"raw_sample\.jsonl: expected at least one row, got none"):
        golden_rows([], ENCODER, SERVING, Reference(FORM))


def test_choosing_covers_all_tags_with_few_rows_and_fills_up_evenly() -> None:
    tags = [{("f", str(number % 7))} for number in range(100)]
    tags[50] = {("f", str(number)) for number in range(7)}
    scores = np.arange(100.0)
    assert choose(tags, scores, fewest=1, most=64) == [50]
    filled = choose(tags, scores, fewest=11, most=64)
    assert len(filled) == 11
    assert {0, 50, 99} <= set(filled)
    assert np.diff(filled).max() < 25
    many = [{("f", str(number))} for number in range(100)]
    assert choose(many, scores) == list(range(64))


def test_a_score_that_is_no_number_is_refused_with_its_row() -> None:
    form = make_form(ENCODER)
    form.state_dict()["branches.0.norms.1.running_var"].fill_(-1.0)
    with pytest.raises(
        NonFiniteError, match=r"^raw_sample\.jsonl: row 0: expected a finite score .*, got nan \(500 such"
    ):
        golden_rows(RAW, ENCODER, SERVING, Reference(form))
