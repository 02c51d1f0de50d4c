"""The baseline: one-hot rows against a brute-force loop, its fit against scikit-learn used by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from service.features import CategoricalField, FeatureEncoder, MultiValuedField, Vocabulary
from training.baseline import Baseline, baseline_scores, fit_baseline, one_hot
from training.loader import Split

COLOURS = {"red": 5, "green": 4, "blue": 3}
TAGS = {"new": 5, "hot": 4, "sale": 3}


@pytest.fixture(scope="module")
def encoder() -> FeatureEncoder:
    fields = [
        CategoricalField("colour", "context"),
        MultiValuedField("tags", "candidate", max_values=3),
        CategoricalField("size", "candidate"),
    ]
    vocabularies = {
        "colour": Vocabulary.fit(COLOURS),
        "tags": Vocabulary.fit(TAGS, reserved=3),
        "size": Vocabulary.fit({"s": 2, "l": 1}),
    }
    return FeatureEncoder(fields, vocabularies)


def some_split(encoder: FeatureEncoder, rows: int, seed: int, *, weighted: bool = False) -> Split:
    rng = np.random.default_rng(seed)
    colour = rng.choice(["red", "green", "blue", ""], rows)
    tags = [list(rng.choice(["new", "hot", "sale"], rng.integers(0, 4), replace=False)) for _ in range(rows)]
    size = rng.choice(["s", "l", "unheard-of"], rows)
    logit = (colour == "red") * 1.5 - np.array(["sale" in t for t in tags]) + (size == "l") * 0.5 - 0.5
    return Split(
        context_ids=encoder.encode_columns("context", {"colour": colour.tolist()}, rows),
        candidate_ids=encoder.encode_columns(
            "candidate", {"tags": [[str(tag) for tag in row] for row in tags], "size": size.tolist()}, rows
        ),
        label=(rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.uint8),
        weight=rng.uniform(0.5, 2.0, rows).astype(np.float32) if weighted else None,
    )


def brute_force(encoder: FeatureEncoder, split: Split) -> np.ndarray:
    """One-hot rows by loops over rows and columns."""
    widths = {name: len(encoder.vocabulary(name)) for name in ("colour", "tags", "size")}
    hot = np.zeros((len(split.label), sum(widths.values())))
    for row in range(len(split.label)):
        hot[row, split.context_ids[row, 0]] += 1
        for value in split.candidate_ids[row, :3]:
            if value != 2:  # the pad id
                hot[row, widths["colour"] + value] += 1
        hot[row, widths["colour"] + widths["tags"] + split.candidate_ids[row, 3]] += 1
    return hot


def test_one_hot_rows_equal_loops_over_values_with_pads_left_out(encoder: FeatureEncoder) -> None:
    split = some_split(encoder, 60, seed=3)
    ids = {"context": split.context_ids, "candidate": split.candidate_ids}
    expected = brute_force(encoder, split)
    assert np.array_equal(one_hot(encoder, ids).toarray(), expected)  # type: ignore[arg-type]
    assert np.array_equal(one_hot(encoder, ids, np.array([3, 7])).toarray(), expected[[3, 7]])  # type: ignore[arg-type]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_chosen_c_and_scores_are_those_of_a_grid_search_by_hand(encoder: FeatureEncoder, *, weighted: bool) -> None:
    train = some_split(encoder, 600, seed=1, weighted=weighted)
    valid = some_split(encoder, 300, seed=2, weighted=weighted)
    grid = (0.001, 0.03, 1.0)
    baseline = fit_baseline(encoder, train, valid, seed=0, grid=grid)

    x, valid_x = brute_force(encoder, train), brute_force(encoder, valid)
    # The solver's intercept is regularised like any weight: a column of ones.
    x, valid_x = (np.column_stack([rows, np.ones(len(rows))]) for rows in (x, valid_x))
    losses, scores = {}, {}
    for C in grid:
        model = LogisticRegression(C=C, max_iter=1000, tol=1e-8, fit_intercept=False)
        model.fit(x, train.label, sample_weight=train.weight)
        scores[C] = model.predict_proba(valid_x)[:, 1]
        losses[C] = log_loss(valid.label, scores[C], sample_weight=valid.weight)
    assert min(losses, key=losses.__getitem__) == baseline.C
    assert dict(baseline.search) == pytest.approx(losses, abs=5e-4)
    assert baseline_scores(baseline, encoder, valid) == pytest.approx(scores[baseline.C], abs=5e-3)


def test_the_search_stops_after_two_worse_values_and_keeps_the_best(encoder: FeatureEncoder) -> None:
    train, valid = some_split(encoder, 40, seed=5), some_split(encoder, 400, seed=6)
    seen: list[tuple[int, int]] = []
    grid = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
    baseline = fit_baseline(
        encoder, train, valid, seed=0, grid=grid, progress=lambda done, total: seen.append((done, total))
    )
    losses = [loss for _, loss in baseline.search]
    assert len(losses) < len(grid)
    assert losses[-1] > min(losses)
    assert losses[-2] > min(losses)
    assert grid[int(np.argmin(losses))] == baseline.C
    assert seen == [(i + 1, len(grid)) for i in range(len(losses))]


def test_more_rows_than_the_limit_are_sampled_by_the_seed(encoder: FeatureEncoder) -> None:
    train, valid = some_split(encoder, 400, seed=1), some_split(encoder, 100, seed=2)
    first, again, other = (
        fit_baseline(encoder, train, valid, seed=seed, train_rows=100, grid=(1.0,)) for seed in (1, 1, 2)
    )
    assert first.rows == 100
    assert np.array_equal(first.weights, again.weights)
    assert not np.array_equal(first.weights, other.weights)


def test_extreme_logits_give_probabilities_without_a_warning(encoder: FeatureEncoder) -> None:
    split = some_split(encoder, 20, seed=1)
    columns = brute_force(encoder, split).shape[1]
    for weight, expected in ((1e4, 1.0), (-1e4, 0.0)):
        baseline = Baseline(1.0, np.full(columns, weight), 0.0, 20, ())
        assert baseline_scores(baseline, encoder, split) == pytest.approx(np.full(20, expected))
