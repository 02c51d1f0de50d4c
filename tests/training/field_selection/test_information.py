"""Information about the label against closed forms, enumeration, scikit-learn and shuffling."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import expected_mutual_information

from training.field_selection.information import (
    LabelTable,
    Moments,
    adjusted_p_values,
    conditional_information,
    divergence,
    entropy,
    entropy_miller_madow,
    information_about_label,
    mutual_information,
    mutual_information_miller_madow,
    permutation_null,
    relevance,
    upper_tail,
)


def long_tailed(rng: np.random.Generator, size: int, rows: int) -> np.ndarray:
    weights = 1.0 / (np.arange(size) + 2.0)
    return rng.choice(size, rows, p=weights / weights.sum())


def over_all_labelings(sizes: tuple[int, ...], positives: int) -> tuple[float, float, float]:
    """Mean, variance and third central moment of the plug-in information over every placement of the positives."""
    code = np.repeat(np.arange(len(sizes)), sizes)
    N = code.size
    found = []
    for rows in itertools.combinations(range(N), positives):
        k = np.bincount(code[list(rows)], minlength=len(sizes))
        found.append(divergence(sizes, k, positives / N).sum() / N)
    values = np.array(found)
    return values.mean(), values.var(), ((values - values.mean()) ** 3).mean()


def test_entropy_of_equal_counts_is_the_logarithm_of_their_number() -> None:
    assert entropy(np.full(64, 7)) == pytest.approx(np.log(64))
    assert entropy([5, 0, 0]) == 0.0


def test_entropy_is_that_of_scipy() -> None:
    counts = np.random.default_rng(0).integers(0, 50, 300)
    assert entropy(counts) == pytest.approx(stats.entropy(counts))


def test_mutual_information_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    a = long_tailed(rng, 30, 2000)
    b = (a + long_tailed(rng, 4, 2000)) % 9
    joint = np.zeros((30, 9), int)
    np.add.at(joint, (a, b), 1)
    assert mutual_information(joint) == pytest.approx(mutual_info_score(a, b))


def test_information_about_a_label_is_the_mutual_information_of_the_table() -> None:
    rng = np.random.default_rng(2)
    code, label = long_tailed(rng, 40, 3000), rng.integers(0, 2, 3000)
    table = LabelTable.count(code, label, 40)
    assert information_about_label(table) == pytest.approx(mutual_info_score(code, label))


def test_information_of_a_symmetric_channel_has_its_closed_form() -> None:
    # X a fair bit, Y equal to X but for one flip in four: ln 2 - H(1/4).
    table = LabelTable(total=np.array([400, 400]), positive=np.array([100, 300]))
    expected = np.log(2) + 0.25 * np.log(0.25) + 0.75 * np.log(0.75)
    assert information_about_label(table) == pytest.approx(expected)


def test_an_xor_has_all_its_information_in_the_interaction() -> None:
    total = np.full((2, 2), 50)
    positive = np.array([[50, 0], [0, 50]])
    assert information_about_label(LabelTable(total.sum(1), positive.sum(1))) == pytest.approx(0.0)
    assert conditional_information(total, positive) == pytest.approx(np.log(2))
    assert conditional_information(total.T, positive.T) == pytest.approx(np.log(2))


def test_what_a_pair_says_beyond_its_better_half_follows_the_chain_rule() -> None:
    rng = np.random.default_rng(3)
    total = rng.integers(1, 30, (6, 5))
    positive = rng.binomial(total, 0.3)
    both = information_about_label(LabelTable(total.ravel(), positive.ravel()))
    halves = [information_about_label(LabelTable(total.sum(axis), positive.sum(axis))) for axis in (0, 1)]
    beyond = min(conditional_information(total, positive), conditional_information(total.T, positive.T))
    assert beyond == pytest.approx(both - max(halves))


@pytest.mark.parametrize(
    ("sizes", "positives"),
    [((3, 4, 5), 5), ((1, 1, 2, 3, 8), 3), ((6, 6, 6), 6), ((1,) * 10 + (4,), 4), ((2, 9), 1), ((7, 7), 13)],
)
def test_null_moments_equal_those_over_every_labeling(sizes: tuple[int, ...], positives: int) -> None:
    null = permutation_null(np.array(sizes), positives)
    assert (null.mean, null.variance, null.third) == pytest.approx(over_all_labelings(sizes, positives), rel=1e-8)


def test_null_mean_is_scikit_learns_expected_mutual_information() -> None:
    rng = np.random.default_rng(4)
    code = np.concatenate([np.arange(400), long_tailed(rng, 400, 4600)])
    table = np.zeros((400, 2), dtype=np.int64)
    np.add.at(table, (code, (np.arange(5000) < 700).astype(int)), 1)
    assert permutation_null(table.sum(1), 700).mean == pytest.approx(expected_mutual_information(table, 5000), rel=1e-8)


def test_null_moments_are_those_of_shuffled_labels() -> None:
    rng = np.random.default_rng(5)
    code, label = long_tailed(rng, 3000, 8000), (rng.random(8000) < 0.1).astype(int)
    null = permutation_null(np.bincount(code, minlength=3000), int(label.sum()))
    found = np.array(
        [information_about_label(LabelTable.count(code, rng.permutation(label), 3000)) for _ in range(800)]
    )
    sd = null.variance**0.5
    assert abs(found.mean() - null.mean) < 4 * sd / 800**0.5
    assert found.std() == pytest.approx(sd, rel=0.1)


def test_noise_of_any_cardinality_is_estimated_at_zero_and_rarely_found() -> None:
    rng = np.random.default_rng(6)
    N = 4000
    label = (rng.random(N) < 0.25).astype(int)
    cardinalities = np.geomspace(10, N, 200).astype(int)
    found = [relevance(LabelTable.count(rng.integers(0, V, N), label, V)) for V in cardinalities]
    estimates = np.array([field.corrected for field in found])
    assert abs(estimates.mean()) < 2 * estimates.std(ddof=1) / np.sqrt(200)
    assert np.mean(adjusted_p_values([field.p_value for field in found]) < 0.05) <= 0.05
    # The plug-in estimate is far off, and so is the first-order correction where values are rare.
    assert np.mean([field.plug_in for field in found]) > 100 * abs(estimates.mean())
    V = N
    table = LabelTable.count(rng.integers(0, V, N), label, V)
    joint = np.stack([table.total - table.positive, table.positive], 1)
    assert abs(mutual_information_miller_madow(joint)) > 20 * abs(relevance(table).corrected)


def test_miller_madow_adds_half_the_number_of_values_seen_over_rows() -> None:
    assert entropy_miller_madow([10, 20, 30, 0]) == pytest.approx(entropy([10, 20, 30]) + 2 / 120)


@pytest.mark.parametrize(("values", "rows", "rate"), [(2, 500, 0.5), (30, 1000, 0.05), (800, 1000, 0.2)])
def test_p_values_of_noise_are_uniform_into_the_tail(values: int, rows: int, rate: float) -> None:
    rng = np.random.default_rng([7, values])
    p = []
    for _ in range(600):
        label = (rng.random(rows) < rate).astype(int)
        p.append(relevance(LabelTable.count(rng.integers(0, values, rows), label, values)).p_value)
    for level in (0.5, 0.1, 0.01):
        expected = 600 * level
        assert abs(np.sum(np.array(p) < level) - expected) < 4 * np.sqrt(expected) + 1


def test_a_weak_effect_is_found_and_estimated_right() -> None:
    rng = np.random.default_rng(8)
    N, V = 60_000, 600
    rate = np.where(np.arange(V) % 2 == 0, 0.22, 0.28)
    code = rng.integers(0, V, N)
    table = LabelTable.count(code, (rng.random(N) < rate[code]).astype(int), V)
    truth = entropy([0.25, 0.75]) - (entropy([0.22, 0.78]) + entropy([0.28, 0.72])) / 2
    found = relevance(table)
    assert found.p_value < 1e-6
    assert found.corrected == pytest.approx(truth, rel=0.3)
    assert found.plug_in > 2 * truth
    assert found.z > 4


@pytest.mark.parametrize("positives", [0, 1000])
def test_a_label_of_one_class_says_nothing(positives: int) -> None:
    table = LabelTable(np.array([400, 600]), np.array([400, 600]) if positives else np.zeros(2, int))
    assert relevance(table).p_value == 1.0
    assert relevance(table).corrected == 0.0


def test_a_value_of_its_own_in_every_row_is_no_evidence() -> None:
    rng = np.random.default_rng(9)
    label = (rng.random(500) < 0.3).astype(int)
    found = relevance(LabelTable.count(np.arange(500), label, 500))
    assert found.p_value == 1.0
    assert found.corrected == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("degrees", [1, 3, 40])
def test_the_tail_of_a_chi_square_is_exact(degrees: int) -> None:
    null = Moments(degrees, 2.0 * degrees, 8.0 * degrees)
    for value in (0.5 * degrees, 2.0 * degrees, 10.0 * degrees):
        assert upper_tail(value, null) == pytest.approx(stats.chi2.sf(value, degrees))


def test_the_tail_without_skewness_is_the_normal_one_and_mirrors_with_negative_skewness() -> None:
    assert upper_tail(3.0, Moments(1.0, 4.0, 0.0)) == pytest.approx(stats.norm.sf(1.0))
    right, left = Moments(0.0, 1.0, 0.8), Moments(0.0, 1.0, -0.8)
    assert upper_tail(1.5, right) == pytest.approx(1.0 - upper_tail(-1.5, left))
    assert upper_tail(-9.0, right) == 1.0
    assert upper_tail(9.0, left) == 0.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1)), max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_tables_of_parts_merge_into_the_table_of_the_whole(rows: list[tuple[int, int]], cuts: list[int]) -> None:
    code = np.array([row[0] for row in rows], dtype=np.int32)
    label = np.array([row[1] for row in rows], dtype=np.uint8)
    merged = LabelTable.empty(10)
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    for low, high in itertools.pairwise(edges):
        merged = LabelTable.count(code[low:high], label[low:high], 10).merge(merged)
    whole = LabelTable.count(code, label, 10)
    assert (merged.total == whole.total).all()
    assert (merged.positive == whole.positive).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    for level in (0.01, 0.05, 0.3):
        rejected = np.zeros(len(p_values), dtype=bool)
        for step, index in enumerate(np.argsort(p_values, kind="stable")):
            if p_values[index] * (len(p_values) - step) >= level:
                break
            rejected[index] = True
        assert ((adjusted_p_values(p_values) < level) == rejected).all()
