"""Metrics against scikit-learn and against counting by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from training import metrics


def _draw(seed: int, rows: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 2, rows)
    label[:2] = 0, 1
    pctr = np.round(draw.beta(1 + label, 2), 2).clip(0.01, 0.99)  # many ties
    return label, pctr, draw.uniform(0.1, 3.0, rows), draw.integers(0, 25, rows)


@given(st.integers(0, 10_000), st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_auc_and_log_loss_equal_scikit_learn_with_ties_and_weights(seed: int, rows: int) -> None:
    label, pctr, weight, _ = _draw(seed, rows)
    assert metrics.auc(label, pctr) == pytest.approx(sk.roc_auc_score(label, pctr), abs=1e-12)
    assert metrics.auc(label, pctr, weight) == pytest.approx(
        sk.roc_auc_score(label, pctr, sample_weight=weight), abs=1e-12
    )
    assert metrics.log_loss(label, pctr, weight) == pytest.approx(
        sk.log_loss(label, pctr, sample_weight=weight), abs=1e-12
    )


def test_auc_counts_pairs() -> None:
    label, score = np.array([0, 1, 0, 1, 1]), np.array([0.2, 0.2, 0.5, 0.9, 0.1])
    wins = [(s > t) + 0.5 * (s == t) for s in score[label == 1] for t in score[label == 0]]
    assert metrics.auc(label, score) == pytest.approx(np.mean(wins))


def test_a_weight_of_two_is_a_row_written_twice() -> None:
    label, pctr, _, group = _draw(1)
    weight = np.random.default_rng(2).integers(1, 4, len(label))
    twice = np.repeat(np.arange(len(label)), weight)
    for name in ("auc", "log_loss"):
        metric = getattr(metrics, name)
        assert metric(label, pctr, weight) == pytest.approx(metric(label[twice], pctr[twice]))
    assert metrics.gauc(label, pctr, group, weight) == pytest.approx(
        metrics.gauc(label[twice], pctr[twice], group[twice])
    )


def test_log_loss_at_zero_and_one_is_finite() -> None:
    assert metrics.log_loss([0, 1], [0.0, 1.0]) == pytest.approx(0.0, abs=1e-12)
    assert np.isfinite(metrics.log_loss([1, 0], [0.0, 1.0]))


def test_gauc_is_the_weighted_mean_of_aucs_over_groups_of_both_classes() -> None:
    label, pctr, weight, group = _draw(3)
    label[group == 7] = 1  # left out
    total = area = 0.0
    for g in np.unique(group):
        rows = group == g
        if 0 < label[rows].sum() < rows.sum():
            total += weight[rows].sum()
            area += weight[rows].sum() * sk.roc_auc_score(label[rows], pctr[rows], sample_weight=weight[rows])
    assert metrics.gauc(label, pctr, group, weight) == pytest.approx(area / total)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ndcg_equals_scikit_learn_group_by_group(k: int) -> None:
    label, pctr, _, group = _draw(4)
    expected = [
        sk.ndcg_score(label[None, group == g], pctr[None, group == g], k=k)
        for g in np.unique(group)
        if label[group == g].any() and (group == g).sum() > 1
    ]
    singles = [1.0 for g in np.unique(group) if (group == g).sum() == 1 and label[group == g].any()]
    assert metrics.ndcg(label, pctr, group, k) == pytest.approx(np.mean(expected + singles))


def test_the_calibration_curve_of_perfect_predictions_lies_on_the_diagonal() -> None:
    draw = np.random.default_rng(5)
    pctr = draw.uniform(0.05, 0.6, 40_000)
    label = (draw.random(len(pctr)) < pctr).astype(int)
    curve = metrics.calibration_curve(label, pctr, bins=10)
    assert curve.weight.sum() == len(pctr)
    assert np.abs(curve.observed - curve.predicted).max() < 0.025
    assert metrics.ece(label, pctr) < 0.01
    assert metrics.ece(label, pctr * 0.5) == pytest.approx(pctr.mean() / 2, rel=0.1)


def test_the_calibration_curve_equals_means_by_bin() -> None:
    label, pctr, weight, _ = _draw(6, 50)
    curve = metrics.calibration_curve(label, pctr, weight, bins=1)
    assert curve.predicted == pytest.approx([np.average(pctr, weights=weight)])
    assert curve.observed == pytest.approx([np.average(label, weights=weight)])


def test_equal_predictions_share_a_bin() -> None:
    curve = metrics.calibration_curve([0, 1, 0, 1], [0.3] * 4, bins=4)
    assert curve.observed.tolist() == [0.5]


@pytest.mark.parametrize(
    ("label", "score", "weight", "message"),
    [
        ([1, 1], [0.1, 0.2], None, "both classes"),
        ([0, 2], [0.1, 0.2], None, "expected 0 or 1"),
        ([0, 1], [0.1, np.nan], None, "row 1"),
        ([0, 1], [0.1], None, "one length"),
        ([], [], None, "one length"),
        ([0, 1], [0.1, 0.2], [1.0, -1.0], "weight"),
    ],
)
def test_what_has_no_auc_is_refused(
    label: list[int], score: list[float], weight: list[float] | None, message: str
) -> None:
    with pytest.raises(metrics.MetricError, match=message):
        metrics.auc(label, score, weight)


def test_a_probability_above_one_has_no_log_loss() -> None:
    with pytest.raises(metrics.MetricError, match=r"\[0, 1\]"):
        metrics.log_loss([0, 1], [0.1, 1.2])


def test_evaluate_leaves_out_what_a_grouping_does_not_define() -> None:
    label, pctr, weight, group = _draw(7)
    every = metrics.evaluate(label, pctr, weight, group)
    assert {"auc", "log_loss", "gauc", "ndcg@10", "ece", "base_rate", "mean_pctr"} == every.keys()
    assert "gauc" not in metrics.evaluate(label, pctr, None, np.arange(len(label)))


@given(st.integers(0, 10_000), st.floats(0.1, 4.0), st.floats(-3.0, 3.0))
@settings(max_examples=20, deadline=None)
def test_scaled_log_loss_is_that_of_an_unpenalised_logistic_regression_on_the_logit(
    seed: int, slope: float, shift: float
) -> None:
    label, pctr, weight, _ = _draw(seed)
    logit = np.log(pctr / (1 - pctr))
    logit *= np.sign(np.cov(logit, label, aweights=weight)[0, 1])
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logit[:, None], label, sample_weight=weight)
    expected = sk.log_loss(label, fitted.predict_proba(logit[:, None])[:, 1], sample_weight=weight)
    # However it was stretched and shifted.
    assert metrics.scaled_log_loss(label, slope * logit + shift, weight) == pytest.approx(expected, abs=1e-7)


@given(st.integers(0, 10_000), st.floats(0.05, 4.0), st.floats(-3.0, 3.0))
@settings(max_examples=20, deadline=None)
def test_an_order_the_wrong_way_round_is_worth_what_the_base_rate_is(seed: int, slope: float, shift: float) -> None:
    label, pctr, weight, _ = _draw(seed)
    signed = np.log(pctr / (1 - pctr))
    away = np.cov(signed, label, aweights=weight)[0, 1]
    reversed_order = -np.sign(away) * slope * signed + shift
    rate = np.average(label, weights=weight)
    base = sk.log_loss(label, np.full(len(label), rate), sample_weight=weight)
    assert metrics.scaled_log_loss(label, reversed_order, weight) == pytest.approx(base, abs=1e-9)
    assert metrics.scaled_log_loss(label, -reversed_order, weight) < base
