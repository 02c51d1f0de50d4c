"""Arrays of values fall into the buckets that a search puts them in; of rows of many requests a fair share is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import build_encoder

from service.counts.buckets import Buckets
from service.counts.cells import Cells
from service.counts.feature_health import SCORE_BOUNDS
from service.counts.histogram import Histogram, observe_each
from service.counts.model_counts import _REQUESTS_QUEUED, SECONDS_BOUNDS, ModelMetrics, about_model
from service.pipeline import Work

NUMBERS = st.floats(-3, 30, width=32)
LADDERS = [SECONDS_BOUNDS, SCORE_BOUNDS, tuple(np.linspace(0.02, 1, 50)), tuple(float(2**k) for k in range(15))]


@given(
    st.sampled_from(LADDERS) | st.lists(NUMBERS, min_size=1, max_size=9, unique=True).map(sorted),
    st.lists(NUMBERS | st.floats(0, 2**-13, width=32), max_size=30),
    st.sampled_from([np.float32, np.float64]),
)
def test_a_bucket_is_the_one_that_a_search_finds(
    bounds: list[float], values: list[float], kind: type[np.float32 | np.float64]
) -> None:
    edges: Any = np.unique(np.array(bounds, kind))
    beside = np.nextafter(edges, kind(99)), np.nextafter(edges, kind(-9))
    all_of = np.concatenate([np.array(values, kind), edges, *beside])
    assert Buckets(edges.tolist(), kind)(all_of).tolist() == edges.searchsorted(all_of).tolist()


@pytest.mark.parametrize("bounds", LADDERS, ids=str)
def test_bounds_of_our_histograms_are_found_without_a_search(bounds: tuple[float, ...]) -> None:
    assert Buckets(bounds, np.float32)._bucket is not None
    assert Buckets(bounds, np.float64)._bucket is not None


def test_several_histograms_are_counted_as_each_by_itself() -> None:
    values = 10 ** np.random.default_rng(1).uniform(-7, 3, (3, 500))
    together, alone = ([Histogram(Cells(), str(n), SECONDS_BOUNDS) for n in range(3)] for _ in range(2))
    observe_each(together, values)
    for histogram, row in zip(alone, values, strict=True):
        for value in row:
            histogram.observe(value)
    assert [h.cumulative() for h in together] == [h.cumulative() for h in alone]
    assert [h.sum for h in together] == pytest.approx([h.sum for h in alone])


def test_rows_of_short_and_long_requests_weigh_the_same_in_what_is_kept_of_fields() -> None:
    encoder = build_encoder()
    about = about_model("m", encoder, {}, info=("a", "b"), load_seconds=1.0)
    metrics = ModelMetrics(Cells(), 0, about, encoder)
    column = encoder.columns("candidate")[0]
    random, rows, scored = np.random.default_rng(3), {1: 0, 150: 0}, 0
    for _ in range(6 * _REQUESTS_QUEUED):
        long = bool(random.random() < 0.02)
        size = 150 if long else 1
        work = Work(b"", request_id="r", packed=False, answer_packed=False)
        work.context_ids = np.full((1, encoder.width("context")), 2, np.int32)
        work.candidate_ids = np.full((size, encoder.width("candidate")), 2, np.int32)
        work.candidate_ids[:, column.first] = 0 if long else 2  # missing in every row of a long one
        work.scores = np.full(size, 0.5, np.float32)
        metrics.record_good(work, 1.0, 2.0)
        rows[size] += size
        scored += size
    metrics.flush()
    field = metrics.fields[column.name]
    assert metrics.candidates.cumulative()[-1] == 6 * _REQUESTS_QUEUED
    assert metrics.candidates.sum == metrics.scores.cumulative()[-1] == scored
    assert field.values < scored / 20, "few are looked at"
    assert abs(field.missing / field.values - rows[150] / scored) < 0.1
