"""The paired bootstrap, against brute force and on data with known truth."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from benchmarks.accuracy.bootstrap import BootstrapError, counts, interval, paired_interval, replicates


def clicks(rows: int, seed: int, values: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    p = generator.integers(1, values, rows) / values  # with ties
    return (generator.random(rows) < p).astype(np.float64), p


def line(auc: float, resampled: list[float]) -> dict[str, object]:
    return {"test": {"auc": auc}, "bootstrap": {"auc": resampled}}


@pytest.mark.parametrize("clustered", [False, True])
def test_replicates_are_the_metrics_of_rows_repeated_as_drawn(clustered: bool) -> None:
    y, p = clicks(300, seed=1)
    cluster = np.arange(300) // 7 * 3 if clustered else None  # names of clusters need not be dense
    found = replicates(y, p, cluster, seed=5, replicates=6)
    groups = np.arange(300) // 7 if clustered else np.arange(300)
    for number, drawn in enumerate(counts(groups.max() + 1, 5, 6)):
        rows = np.repeat(np.arange(300), drawn[groups])
        assert found["auc"][number] == pytest.approx(roc_auc_score(y[rows], p[rows]), abs=1e-12)
        assert found["log_loss"][number] == pytest.approx(sklearn_log_loss(y[rows], p[rows]), abs=1e-12)


def test_resamples_are_of_the_data_not_of_the_model() -> None:
    y, p = clicks(500, seed=2)
    same = replicates(y, p / 2, seed=9, replicates=20)  # the same order, so the same AUC on the same rows
    assert replicates(y, p, seed=9, replicates=20)["auc"] == pytest.approx(same["auc"], abs=1e-12)
    assert replicates(y, p, seed=8, replicates=20)["auc"] != same["auc"]
    assert replicates(y, p, seed=9, replicates=5)["auc"] == pytest.approx(same["auc"][:5], abs=1e-12)


def test_the_bootstrap_spread_of_an_auc_is_that_of_fresh_samples_of_a_known_law() -> None:
    # Binormal scores: the true AUC is Phi(1 / sqrt 2).
    truth = norm.cdf(1 / np.sqrt(2))
    generator = np.random.default_rng(3)
    fresh, spreads, covered = [], [], 0
    for trial in range(60):
        y = np.repeat([0.0, 1.0], 150)
        p = norm.cdf(generator.standard_normal(300) + y)
        values = replicates(y, p, seed=trial, replicates=100)["auc"]
        fresh.append(roc_auc_score(y, p))
        spreads.append(np.std(values))
        low, high = np.quantile(values, [0.025, 0.975])
        covered += bool(low <= truth <= high)
    assert np.mean(spreads) == pytest.approx(np.std(fresh), rel=0.25)
    assert covered >= 50


def test_clusters_of_equal_rows_widen_the_spread_by_the_root_of_their_size() -> None:
    y, p = clicks(400, seed=4)
    many = {"label": np.repeat(y, 9), "pctr": np.repeat(p, 9)}
    alone = np.std(replicates(**many, seed=0)["log_loss"])
    together = np.std(replicates(**many, cluster=np.repeat(np.arange(400), 9), seed=0)["log_loss"])
    assert together / alone == pytest.approx(3.0, rel=0.25)


def test_the_interval_of_two_like_models_is_that_of_their_difference_not_of_each() -> None:
    generator = np.random.default_rng(6)
    y = generator.integers(0, 2, 2000).astype(np.float64)
    signal = generator.standard_normal(2000) + y
    ours, theirs = (norm.cdf(signal + 0.01 * generator.standard_normal(2000)) for _ in range(2))
    lines = [[line(roc_auc_score(y, p), replicates(y, p, seed=1)["auc"])] for p in (ours, theirs)]
    found = interval(*lines, "auc")
    assert found.high - found.low < 0.1 * 4 * np.std(replicates(y, ours, seed=1)["auc"])
    assert found.low <= found.mean <= found.high
    assert found.seeds == (1, 1)


def test_intervals_cover_a_known_difference_over_rows_and_seeds() -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(60):
        # Rows move both sides alike and each a little apart; a seed moves one line.
        both, apart = 0.02 * generator.standard_normal(), 0.003 * generator.standard_normal(2)
        resampled = 0.02 * generator.standard_normal(200), 0.003 * generator.standard_normal((2, 200))
        sides = []
        for side in range(2):
            means = 0.7 + 0.01 * side + both + apart[side] + 0.004 * generator.standard_normal(5)
            sides.append([line(mean, list(mean + resampled[0] + resampled[1][side])) for mean in means])
        found = interval(sides[1], sides[0], "auc")
        covered += found.low <= 0.01 <= found.high
    assert covered >= 54


def test_paired_intervals_cover_a_known_difference_and_are_as_narrow_as_what_seeds_do_not_share() -> None:
    generator = np.random.default_rng(8)
    covered, widths = 0, []
    for _ in range(60):
        both = 0.02 * generator.standard_normal()
        resampled = 0.02 * generator.standard_normal(200)
        begun = 0.01 * generator.standard_normal(5)  # what a seed gives to both sides
        sides = [0.7 + 0.01 * side + both + begun + 0.002 * generator.standard_normal(5) for side in (0, 1)]
        lines = [[line(mean, list(mean + resampled)) for mean in means] for means in sides]
        found = paired_interval(lines[1], lines[0], "auc")
        covered += found.low <= 0.01 <= found.high
        widths.append((found.high - found.low) / 2)
    assert covered >= 54
    # Student's t of four degrees of freedom on a difference of two, 2.78 * 0.002 * sqrt(2 / 5), within a third.
    assert np.mean(widths) == pytest.approx(2.78 * 0.002 * (2 / 5) ** 0.5, rel=1 / 3)
    shuffled = [[lines[0][i] for i in (3, 0, 4, 1, 2)], lines[1]]
    apart = paired_interval(shuffled[1], shuffled[0], "auc")
    assert apart.high - apart.low > 2 * widths[-1] * 2


def test_what_cannot_be_resampled_is_refused_in_a_sentence() -> None:
    with pytest.raises(BootstrapError, match="one class"):
        replicates(np.array([1.0, 0.0]), np.array([0.5, 0.4]), seed=0)
    with pytest.raises(BootstrapError, match="one length"):
        replicates(np.array([1.0, 0.0]), np.array([0.5]), seed=0)
    with pytest.raises(BootstrapError, match="probabilities"):
        replicates(np.array([1.0, 0.0]), np.array([0.5, 1.5]), seed=0)
    with pytest.raises(BootstrapError, match="cluster"):
        replicates(np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([1]), seed=0)
    with pytest.raises(BootstrapError, match="at least one line"):
        interval([], [line(0.5, [0.5])], "auc")
    with pytest.raises(BootstrapError, match="got 1 and 2"):
        paired_interval([line(0.5, [0.5])], [line(0.5, [0.5])] * 2, "auc")
    with pytest.raises(BootstrapError, match="as many replicates"):
        paired_interval([line(0.5, [0.5])], [line(0.5, [0.5, 0.6])], "auc")
    with pytest.raises(BootstrapError, match="as many replicates"):
        interval([line(0.5, [0.5])], [line(0.5, [0.5, 0.6])], "auc")
