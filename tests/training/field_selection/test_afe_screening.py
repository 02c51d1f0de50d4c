"""Tests beyond a condition against enumeration, shuffling, planted interactions and scikit-learn."""

import itertools
import tracemalloc

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score

from training.field_selection.additive import RIDGE, additive_expectation
from training.field_selection.information import conditional_information, entropy
from training.field_selection.screening import (
    LARGEST_TABLE,
    Strata,
    adjusted_redundancy,
    bounded,
    conditional_test,
    greedy_order,
    joint_entropy,
    stratify,
)

NO_CONDITION = 1


def statistic(strata: Strata, target: np.ndarray, residual: np.ndarray) -> float:
    """The quadratic form by loops over cells."""
    total = 0.0
    for c in range(strata.size):
        for t in np.unique(target):
            cell = (strata.stratum == c) & (target[strata.row] == t)
            if cell.any():
                total += residual[cell].sum() ** 2 / cell.sum()
    return total


def over_all_shuffles(strata: Strata, target: np.ndarray) -> np.ndarray:
    """The statistic under every shuffle of the residuals within their strata."""
    places = [np.flatnonzero(strata.stratum == c) for c in range(strata.size)]
    found = []
    for orders in itertools.product(*(itertools.permutations(place) for place in places)):
        residual = strata.residual.copy()
        for place, order in zip(places, orders, strict=True):
            residual[place] = strata.residual[list(order)]
        found.append(statistic(strata, target, residual))
    return np.array(found)


def planted(seed: int, rows: int, weight: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two fields of 20 values, each saying nothing, and a label that depends on both."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 20, rows), rng.integers(0, 20, rows)
    sign = np.where((a < 10) == (b < 10), weight, -weight)
    label = (rng.random(rows) < 1 / (1 + np.exp(1.0 - sign))).astype(np.uint8)
    return a, b, label


@pytest.mark.parametrize(
    ("condition", "target", "label"),
    [
        ([0] * 7, [0, 0, 0, 1, 1, 2, 3], [1, 0, 0, 1, 1, 0, 0]),
        ([0] * 6, [0, 0, 0, 1, 1, 1], [1, 0, 0, 0, 0, 0]),
        ([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 2, 0, 1, 1, 1], [1, 0, 1, 0, 0, 0, 1, 0]),
        ([0, 0, 0, 0, 1, 1, 1, 2], [0, 0, 1, 1, 0, 1, 1, 1], [1, 0, 1, 0, 1, 1, 1, 0]),
    ],
)
def test_null_moments_equal_those_over_every_shuffle(condition: list[int], target: list[int], label: list[int]) -> None:
    strata = stratify(np.array(condition), max(condition) + 1, np.array(label, dtype=np.uint8))
    codes = np.array(target)
    found = conditional_test(codes, 4, strata)
    every = over_all_shuffles(strata, codes)
    assert found.statistic == pytest.approx(statistic(strata, codes, strata.residual))
    assert found.null.mean == pytest.approx(every.mean())
    assert found.null.variance == pytest.approx(every.var())
    assert found.null.third == pytest.approx(((every - every.mean()) ** 3).mean(), abs=1e-9)


def test_null_moments_equal_those_over_every_shuffle_of_units() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(6), [1, 2, 3, 4, 2, 1])
    target = np.array([0, 1, 0, 1, 2, 0])[units]
    strata = stratify(np.zeros(13, int), 1, rng.integers(0, 2, 13).astype(np.uint8), units)
    assert strata.residual.size == 6
    found = conditional_test(target, 3, strata)
    every = over_all_shuffles(strata, target)
    assert found.null.mean == pytest.approx(every.mean())
    assert found.null.variance == pytest.approx(every.var())
    assert found.null.third == pytest.approx(((every - every.mean()) ** 3).mean())


def test_p_values_hold_in_sparse_tables_that_depend_on_the_condition() -> None:
    rng = np.random.default_rng(1)
    p = []
    for _ in range(500):
        condition = rng.integers(0, 40, 1500)
        target = (condition * 7 + rng.integers(0, 60, 1500)) % 200  # tied to the condition, 1 row a cell
        rate = np.array([0.02, 0.3])[condition % 2]
        label = (rng.random(1500) < rate).astype(np.uint8)
        p.append(conditional_test(target, 200, stratify(condition, 40, label)).p_value)
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert np.sum(np.array(p) < 0.01) < 5 + 4 * np.sqrt(5)


def test_a_pure_interaction_is_found_in_both_directions_and_nowhere_else() -> None:
    a, b, label = planted(2, 6000, 0.7)
    noise = np.random.default_rng(3).integers(0, 20, 6000)
    for target, condition, expected in ((a, b, True), (b, a, True), (a, noise, False), (noise, b, False)):
        found = conditional_test(target, 20, stratify(condition, 20, label))
        assert (found.p_value < 1e-9) == expected
        assert expected or found.p_value > 1e-3


def test_information_beyond_the_condition_is_unbiased_and_right_to_second_order() -> None:
    weight = 0.4
    estimates = []
    for seed in range(20):
        a, b, label = planted(10 + seed, 20_000, weight)
        estimates.append(conditional_test(a, 20, stratify(b, 20, label)).information)
    # The plug-in estimate of the true table: cells with their exact expected counts.
    rate = 1 / (1 + np.exp(1.0 - np.array([[weight, -weight], [-weight, weight]])))
    truth = conditional_information(np.ones((2, 2)), rate)
    assert np.mean(estimates) == pytest.approx(truth, rel=0.04)


def test_a_function_of_the_condition_says_nothing_beyond_it() -> None:
    rng = np.random.default_rng(4)
    fine = rng.integers(0, 50, 5000)
    label = (rng.random(5000) < np.array([0.1, 0.5])[fine % 2]).astype(np.uint8)
    assert conditional_test(fine // 10, 5, stratify(fine, 50, label)).p_value == 1.0
    assert conditional_test(fine, 50, stratify(fine // 10, 5, label)).p_value < 1e-9


def requests(seed: int, size: int, smallest: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Requests whose rows' labels resemble each other, and a field that is constant in them and means nothing."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(1500), rng.integers(smallest, 7, 1500))
    mood = rng.normal(0.0, 1.5, 1500)
    label = (rng.random(group.size) < 1 / (1 + np.exp(1.0 - mood[group]))).astype(np.uint8)
    return group, rng.integers(0, size, 1500)[group], label


def test_noise_that_is_constant_in_a_request_looks_informative_by_rows_but_not_by_requests() -> None:
    by_rows, by_requests = [], []
    for seed in range(60):
        group, noise, label = requests(seed, 300)
        everything = np.zeros(group.size, int)
        by_rows.append(conditional_test(noise, 300, stratify(everything, 1, label)).p_value)
        by_requests.append(conditional_test(noise, 300, stratify(everything, 1, label, group)).p_value)
    assert max(by_rows) < 1e-6
    assert stats.kstest(by_requests, "uniform").pvalue > 1e-3


def test_noise_stays_noise_where_a_request_s_size_decides_whether_its_value_is_in_the_vocabulary() -> None:
    p = []
    for seed in range(80):
        group, noise, label = requests(seed, 3000, smallest=1)
        rare = np.bincount(noise)[noise] < 2
        codes, size = bounded(np.where(rare, 3000, noise), 3001, 64)
        condition = np.random.default_rng(seed).integers(0, 3, group.size)
        p += [conditional_test(codes, size, stratify(condition, 3, label, group)).p_value]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert min(p) > 1e-5


def test_units_of_any_size_vary_alike() -> None:
    group, _, label = requests(100, 10, smallest=1)
    sizes = np.bincount(group)
    strata = stratify(np.zeros(group.size, int), 1, label, group)
    spread = [strata.residual[sizes == size].std() for size in range(1, 7)]
    assert max(spread) < 1.2 * min(spread)


def test_an_effect_of_a_request_s_field_is_found_and_sized_as_by_rows() -> None:
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(10_000), 5)
    field = rng.integers(0, 10, 10_000)[group]
    label = (rng.random(group.size) < np.linspace(0.2, 0.3, 10)[field]).astype(np.uint8)
    everything = np.zeros(group.size, int)
    rows = conditional_test(field, 10, stratify(everything, 1, label))
    units = conditional_test(field, 10, stratify(everything, 1, label, group))
    assert units.p_value < 1e-9
    assert units.information == pytest.approx(rows.information, rel=0.1)


def test_a_sparse_table_gives_what_a_full_one_gives() -> None:
    rng = np.random.default_rng(6)
    condition, target = rng.integers(0, 30, 2000), rng.integers(0, 40, 2000)
    label = rng.integers(0, 2, 2000).astype(np.uint8)
    full = conditional_test(target, 40, stratify(condition, 30, label))
    # The same partition under codes too far apart for a full table.
    sparse = conditional_test(target * 50_000, 40 * 50_000, stratify(condition, 30, label))
    assert sparse.statistic == pytest.approx(full.statistic)
    assert sparse.p_value == pytest.approx(full.p_value)


def test_bounding_keeps_frequent_values_apart_and_hashes_the_rest() -> None:
    rng = np.random.default_rng(7)
    weights = 1.0 / np.arange(1, 20_001)
    codes = rng.permutation(20_000)[rng.choice(20_000, 50_000, p=weights / weights.sum())]
    bound, size = bounded(codes, 20_000, 256)
    assert size == 256
    assert bound.min() == 0
    assert bound.max() < 256
    count = np.bincount(codes, minlength=20_000)
    top = np.argsort(-count, kind="stable")[:128]
    assert sorted(bound[codes == value][0] for value in top) == list(range(128))
    assert (bound[~np.isin(codes, top)] >= 128).all()
    tail = np.bincount(bound)[128:]
    assert tail.max() < 3 * tail.mean()
    few, size = bounded(np.array([5, 9, 9, 700]), 1000, 256)
    assert size == 3
    assert few.tolist() == [1, 0, 0, 2]


def test_a_pair_s_table_takes_bounded_memory_however_many_values_there_are() -> None:
    rows = 50_000
    rng = np.random.default_rng(8)
    ids = [rng.integers(0, 10**6, rows) for _ in range(2)]
    label = rng.integers(0, 2, rows).astype(np.uint8)
    views = [bounded(codes, 10**6, LARGEST_TABLE) for codes in ids]
    tracemalloc.start()
    strata = stratify(*views[0], label)
    conditional_test(*views[1], strata)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Two tables of 1024 x 1024 numbers of 8 bytes, and some columns of the rows; one of 10^6 x 10^6 would be 8 TB.
    assert peak < 3 * LARGEST_TABLE**2 * 8 + 30 * rows * 8


def redundancy(a: np.ndarray, b: np.ndarray, *, larger: bool) -> float:
    both = (entropy(np.bincount(a)), entropy(np.bincount(b)))
    size = int(b.max()) + 1
    shuffled = np.random.default_rng(0).permutation(b)
    norm = max(both) if larger else min(both)
    return adjusted_redundancy(joint_entropy(a, b, size), joint_entropy(a, shuffled, size), both, norm)


def test_redundancy_is_scikit_learns_adjusted_mutual_information() -> None:
    rng = np.random.default_rng(9)
    a = rng.integers(0, 60, 4000)
    for b in (a % 7, np.where(rng.random(4000) < 0.3, rng.integers(0, 60, 4000), a), rng.integers(0, 90, 4000)):
        for larger, method in ((True, "max"), (False, "min")):
            expected = max(0.0, adjusted_mutual_info_score(a, b, average_method=method))
            assert redundancy(a, b, larger=larger) == pytest.approx(expected, abs=0.01)


def test_redundancy_tells_copies_functions_and_strangers_apart() -> None:
    rng = np.random.default_rng(10)
    fine = rng.integers(0, 1000, 5000)
    renamed = rng.permutation(1000)[fine]
    assert redundancy(fine, renamed, larger=True) == pytest.approx(1.0)
    assert redundancy(fine, fine % 10, larger=False) == pytest.approx(1.0)
    assert redundancy(fine, fine % 10, larger=True) < 0.7
    one_each = rng.permutation(5000)
    assert redundancy(one_each, rng.permutation(5000), larger=True) in {0.0, 1.0}  # both tell every row apart
    nearly = rng.integers(0, 20_000, 5000), rng.integers(0, 20_000, 5000)
    assert redundancy(*nearly, larger=True) < 0.2
    constant = np.zeros(5000, int)
    assert redundancy(constant, constant, larger=True) == 0.0


def test_greedy_order_takes_a_copy_last_and_scores_by_the_least_conditional_information() -> None:
    # Field 1 copies field 0; field 2 is weaker but its own; field 3 is noise.
    alone = [5.0, 5.0, 2.0, 0.0]
    conditional = [[0, 0.0, 5, 5], [0.0, 0, 5, 5], [2, 2, 0, 2], [0.1, 0.1, 0.1, 0]]
    order, gains = greedy_order(alone, conditional)
    assert order == [0, 2, 1, 3]
    assert gains == [5.0, 2.0, 0.0, 0.0]


def test_the_additive_expectation_is_that_of_ridge_logistic_regression() -> None:
    rng = np.random.default_rng(11)
    fields = [(rng.integers(0, size, 6000), size) for size in (5, 40, 400)]
    log_odds = sum(rng.normal(0, 0.6, size)[codes] for codes, size in fields) - 1.0
    label = (rng.random(6000) < 1 / (1 + np.exp(-log_odds))).astype(np.uint8)
    X = sparse.hstack([sparse.csr_matrix((np.ones(6000), (np.arange(6000), codes))) for codes, _ in fields])
    model = LogisticRegression(C=1.0 / RIDGE, tol=1e-8, max_iter=500).fit(X, label)
    assert additive_expectation(fields, label) == pytest.approx(model.predict_proba(X)[:, 1], abs=0.03)


def suppressed(seed: int, rows: int = 12_000) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Eight fair bits that inform, a field that they hide, a noise field, and the label."""
    rng = np.random.default_rng(seed)
    bits = [rng.integers(0, 2, rows) for _ in range(8)]
    total = sum(bits) - 4.0
    hidden = (rng.random(rows) < 1 / (1 + np.exp(-total))).astype(int)
    low, high = 0.0, 4.0
    for _ in range(40):  # the effect under which the field alone says nothing
        effect = (low + high) / 2
        p = 1 / (1 + np.exp(-(0.5 * total - effect * (hidden - 0.5))))
        low, high = (effect, high) if p[hidden == 1].mean() > p[hidden == 0].mean() else (low, effect)
    label = (rng.random(rows) < p).astype(np.uint8)
    return bits, hidden, rng.integers(0, 2, rows), label


def test_a_field_that_others_hide_is_found_beyond_all_of_them() -> None:
    bits, hidden, noise, label = suppressed(12)
    everything = np.zeros(label.size, int)
    expected = additive_expectation([(bit, 2) for bit in bits], label)
    p = {
        name: conditional_test(field, 2, stratify(everything, 1, label, expected=expected)).p_value
        for name, field in (("hidden", hidden), ("noise", noise))
    }
    assert conditional_test(hidden, 2, stratify(everything, 1, label)).p_value > 1e-3
    assert p["hidden"] < 1e-9
    assert p["noise"] > 1e-3
