"""How values are spread, live and in training: bins made of the one, counts made of the other."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import FIELDS, MODEL_ID, ROW_CANDIDATES, ROW_CONTEXT, build_encoder, samples, serving

from service.counts.cells import Cells
from service.counts.feature_health import SAMPLED_ROWS, SCORE_BOUNDS, FeatureHealth, FieldCounts, ScoreRepeats
from service.counts.histogram import Histogram
from service.counts.stability import BinCounts, Stability, field_bins, score_shares
from training.reference import reference_statistics

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ENCODER = build_encoder()
SIDES = ("context", "candidate")


def drawn(rng: np.random.Generator, rows: int, favour: float) -> dict[str, NDArray[np.int32]]:
    """Ids as the encoder makes them: a multi-valued field is its missing id, or values, and pads after that."""
    found = {}
    for side in SIDES:
        ids = np.zeros((rows, ENCODER.width(side)), np.int32)  # type: ignore[arg-type]
        for column in ENCODER.columns(side):  # type: ignore[arg-type]
            size = len(ENCODER.vocabulary(column.name))
            weights = favour ** np.arange(size)
            for row in ids:
                if column.width == 1:
                    row[column.first] = rng.choice(size, p=weights / weights.sum())
                    continue
                values = rng.choice([1, *range(3, size)], size=rng.integers(0, column.width + 1)).tolist() or [0]
                row[column.first : column.first + column.width] = values + [2] * (column.width - len(values))
        found[side] = ids
    return found


def shares_by_hand(ids: dict[str, NDArray[np.int32]], name: str) -> dict[int, float]:
    (part,) = [
        ids[side][:, column.first : column.first + column.width]
        for side in SIDES
        for column in ENCODER.columns(side)  # type: ignore[arg-type]
        if column.name == name
    ]
    several = part.shape[1] > 1
    counts = Counter(int(number) for number in part.ravel() if not (several and number == 2))
    return {number: count / sum(counts.values()) for number, count in counts.items()}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, SAMPLED_ROWS), st.sampled_from([0.2, 0.9, 1.0, 2.0]))
def test_shares_of_bins_in_training_and_live_are_those_counted_value_by_value(
    seed: int, rows: int, favour: float
) -> None:
    rng = np.random.default_rng(seed)
    trained, live = drawn(rng, 200, favour), drawn(rng, rows, 1 / favour)
    reference = reference_statistics(ENCODER, trained, np.zeros(200, np.uint8), rng.random(50))
    bins = field_bins(ENCODER, reference)
    assert set(bins) == {f.name for f in ENCODER.fields}
    cells = Cells()
    counts = {name: BinCounts(cells, name, field) for name, field in bins.items()}
    for side in SIDES:
        Stability(cells, ENCODER, side, counts).count(live[side])
    for name, field in bins.items():
        for expected, got in (
            (shares_by_hand(trained, name), field.shares),
            (shares_by_hand(live, name), np.array(counts[name].counts) / sum(counts[name].counts)),
        ):
            named = [sum(expected.get(number, 0.0) for number in group) for group in field.ids[:-1]]
            np.testing.assert_allclose(got, [*named, 1 - sum(named)], atol=1e-12)


def test_a_long_batch_is_sampled_without_favour() -> None:
    # Every third row is missing: who looked at every third row would see all or none.
    cells = Cells()
    bins = field_bins(ENCODER, {"rows": 1, "fields": {"user": {"histogram": {"ids": [2], "counts": [1]}}}})
    counts = BinCounts(cells, "user", bins["user"])
    fields = {field.name: FieldCounts(cells, field.name, {}) for field in ENCODER.fields}
    scores = Histogram(cells, "scores", SCORE_BOUNDS)
    repeats = ScoreRepeats(cells, "repeats")
    health = FeatureHealth(cells, ENCODER, fields, scores, repeats=repeats, bins={"user": counts})
    (user,) = [column.first for column in ENCODER.columns("context") if column.name == "user"]
    ids = np.full((SAMPLED_ROWS * 3, ENCODER.width("context")), 2, np.int32)
    ids[::3, user] = 0
    for _ in range(50):
        health.count(ids, np.zeros((1, ENCODER.width("candidate")), np.int32), np.full(len(ids), 0.5, np.float32))
    missing = counts.counts[0] / sum(counts.counts)
    assert sum(counts.counts) == fields["user"].values == 50 * SAMPLED_ROWS
    assert fields["user"].missing == counts.counts[0]
    assert abs(missing - 1 / 3) < 0.03  # seven deviations
    assert (scores.cumulative()[-1], repeats.total) == (50 * len(ids), 50 * len(ids) - 1), "all scores are counted"


def test_bins_are_few_and_hold_about_as_much_each_and_rare_ids_are_told_by_their_shares() -> None:
    named = {"ids": list(range(3, 67)), "counts": [64 - n for n in range(64)], "other": 1000}
    entry = {"missing": 0.05, "out_of_vocabulary": 0.1, "histogram": named}
    (field,) = [f for f in FIELDS if f.name == "user"]
    bins = field_bins(ENCODER, {"rows": sum(named["counts"]) + 1000, "fields": {field.name: entry}})["user"]  # type: ignore[operator, call-overload]
    assert bins.names == ("missing", "unknown", "1", "2", "3", "4", "5", "6", "7", "8", "rest")[: len(bins.names)]
    assert sum(bins.shares) == 1
    assert np.allclose(bins.shares[:2], [0.05, 0.1], atol=1e-3)
    assert max(bins.shares[2:-2]) < 1.5 * min(bins.shares[2:-2])


def test_nothing_is_told_of_fields_and_scores_of_which_training_said_nothing() -> None:
    for reference in ({}, {"fields": {"user": {}}}, {"fields": {"user": {"histogram": {"ids": [], "counts": []}}}}):
        assert field_bins(ENCODER, reference) == {}
    assert score_shares({"score_histogram": {"edges": [0, 0.5, 1], "counts": [3, 1]}}, (0.5, 1.0)) == (0.75, 1.0)
    for other in ({}, {"score_histogram": {"edges": [0, 0.5, 1], "counts": [0, 0]}}):
        assert score_shares(other, (0.5, 1.0)) == ()


def test_a_service_shows_shares_of_training_and_counts_of_all_workers(bundle: Path) -> None:
    model = f'model="{MODEL_ID}"'
    body: dict[str, Any] = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}
    with serving(bundle) as server, httpx.Client(base_url=server.url) as client:
        for user in ("u1", "u1", "u1", "nobody", None):
            client.post("/score", json={**body, "context": {"user": user}, "candidates": [{"ad": "a1"}] * 4})
        found = samples(client.get("/metrics").text)
    live = {
        name.split('bin="')[1].split('"')[0]: value
        for name, value in found.items()
        if name.startswith("reaction_field_bin_values_total")
    }
    assert (live["missing"], live["unknown"], live["1"], sum(live.values())) == (1, 1, 3, 5)
    assert found[f'reaction_field_reference_bin_ratio{{bin="1",field="user",{model}}}'] == 0.4
    assert found[f'reaction_field_reference_bin_ratio{{bin="missing",field="user",{model}}}'] == 0.12
    assert found[f'reaction_reference_score_ratio{{le="0.5",{model}}}'] == 0.7
    assert found[f"reaction_score_repeats_total{{{model}}}"] == 19 - 2  # the user changes twice: another score
