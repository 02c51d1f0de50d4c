"""Reference statistics against counting by hand."""

from collections import Counter

import numpy as np
import pytest

from service.features import CategoricalField, FeatureEncoder, MultiValuedField, Vocabulary
from training import reference
from training.reference import SCORE_EDGES, correct_for_sampling, reference_statistics, truncated_shares


@pytest.fixture(scope="module")
def encoder() -> FeatureEncoder:
    return FeatureEncoder(
        [
            CategoricalField("user", "context"),
            CategoricalField("position", "candidate", serving_constant="1"),
            MultiValuedField("tags", "candidate", max_values=2),
        ],
        {
            "user": Vocabulary.fit({f"u{i:03}": 300 - i for i in range(200)}),
            "position": Vocabulary.fit({"1": 3, "2": 2}),
            "tags": Vocabulary.fit({"a": 5, "b": 4, "c": 3}, reserved=3),
        },
    )


@pytest.fixture(scope="module")
def raw() -> dict[str, list[object]]:
    rng = np.random.default_rng(0)
    users = [*(f"u{i:03}" for i in np.minimum(rng.geometric(0.02, 2800), 250)), *[None] * 200]
    tags = [list(rng.choice(["a", "b", "c", "odd"], rng.integers(0, 4), replace=False)) for _ in users]
    return {"user": users, "tags": [[str(tag) for tag in row] for row in tags]}


@pytest.fixture(scope="module")
def found(encoder: FeatureEncoder, raw: dict[str, list[object]]) -> dict[str, object]:
    rows = len(raw["user"])
    ids = {
        "context": encoder.encode_columns("context", {"user": raw["user"]}, rows),
        "candidate": encoder.encode_columns("candidate", {"position": ["2"] * rows, "tags": raw["tags"]}, rows),
    }
    label = (np.arange(rows) % 4 == 0).astype(np.uint8)
    scores = np.linspace(0, 1, 1001)
    return reference_statistics(encoder, ids, label, scores, negative_sampling_rate=0.5)  # type: ignore[arg-type]


def test_a_field_of_one_value_has_its_missing_and_unknown_shares_and_its_most_frequent_ids(
    found: dict, raw: dict[str, list[object]], encoder: FeatureEncoder
) -> None:
    values = [int(encoder.encode_values("user", [value])[0, 0]) for value in raw["user"]]
    counts = Counter(values)
    user = found["fields"]["user"]
    assert user["missing"] == counts[0] / 3000 == 200 / 3000
    assert user["out_of_vocabulary"] == counts[1] / 3000 > 0
    shown = dict(zip(user["histogram"]["ids"], user["histogram"]["counts"], strict=True))
    assert len(shown) == 64
    assert all(counts[value] == count for value, count in shown.items())
    assert min(shown.values()) >= max(count for value, count in counts.items() if value not in shown)
    assert user["histogram"]["other"] == 3000 - sum(shown.values()) > 0


def test_a_multi_valued_field_counts_values_without_pads_and_rows_with_an_unknown_one(
    found: dict, raw: dict[str, list[list[str]]]
) -> None:
    kept = [row[:2] for row in raw["tags"]]
    values = [tag for row in kept for tag in row]
    tags = found["fields"]["tags"]
    assert tags["missing"] == sum(not row for row in kept) / 3000
    assert tags["out_of_vocabulary"] == sum("odd" in row for row in kept) / 3000
    shown = dict(zip(tags["histogram"]["ids"], tags["histogram"]["counts"], strict=True))
    assert shown == {
        0: sum(not row for row in kept),
        1: values.count("odd"),
        **{3 + i: values.count(tag) for i, tag in enumerate("abc")},
    }
    assert tags["histogram"]["other"] == 0


def test_a_training_only_field_is_left_out_as_no_request_holds_it(found: dict) -> None:
    assert set(found["fields"]) == {"user", "tags"}


def test_rates_and_scores_are_on_the_scale_that_is_served(found: dict) -> None:
    # One in four of the kept rows is positive; half of the negatives were thrown away: 1 in 7 in truth.
    assert found["base_rate"] == pytest.approx(1 / 7)
    counts = found["score_histogram"]["counts"]
    edges = found["score_histogram"]["edges"]
    assert edges == list(SCORE_EDGES)
    assert sum(counts) == 1001
    served = [0.5 * p / (0.5 * p + 1 - p) for p in np.linspace(0, 1, 1001)]
    at = edges.index(0.5)
    assert counts[at] == sum(0.5 <= p < 0.6 for p in served)


def test_the_sampling_correction_adds_the_log_of_the_rate_to_the_logit() -> None:
    p = np.array([0.01, 0.3, 0.99])
    logit = np.log(p / (1 - p)) + np.log(0.1)
    assert correct_for_sampling(p, 0.1) == pytest.approx(1 / (1 + np.exp(-logit)))
    assert correct_for_sampling(np.array([0.0, 1.0]), 0.1).tolist() == [0.0, 1.0]


def test_counting_in_chunks_equals_counting_at_once(
    encoder: FeatureEncoder, raw: dict[str, list[object]], found: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "CHUNK_ROWS", 7)
    rows = len(raw["user"])
    ids = {
        "context": encoder.encode_columns("context", {"user": raw["user"]}, rows),
        "candidate": encoder.encode_columns("candidate", {"position": ["2"] * rows, "tags": raw["tags"]}, rows),
    }
    again = reference_statistics(encoder, ids, np.zeros(rows, np.uint8), np.zeros(1))  # type: ignore[arg-type]
    assert again["fields"] == found["fields"]


def test_truncated_shares_come_from_raw_rows_with_more_values_than_the_field_keeps(encoder: FeatureEncoder) -> None:
    rows = [{"context": {}, "candidate": {"tags": tags}} for tags in (["a"], ["a", "b"], ["a", "b", "c"], None)]
    assert truncated_shares(encoder, rows) == {"tags": 0.25}
