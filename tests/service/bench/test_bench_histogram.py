"""The histogram's quantiles against numpy's, on the same values."""

from __future__ import annotations

import numpy as np
import pytest

from service.bench.histogram import RELATIVE_ERROR, Histogram

SHARES = (0.001, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)


@pytest.mark.parametrize("scale", [3.0, 900.0, 1e5, 1e7, 1e10])
@pytest.mark.parametrize("size", [1, 7, 100, 20_000])
def test_quantiles_are_numpys_to_the_stated_error_and_never_too_low(scale: float, size: int) -> None:
    values = np.random.default_rng(size).lognormal(0, 1.5, size) * scale
    values = values.astype(np.int64)
    histogram = Histogram.of(values)
    for share in SHARES:
        exact = float(np.quantile(values, share, method="inverted_cdf")) / 1e9
        found = histogram.quantile(share)
        assert exact - 1e-15 <= found <= exact * (1 + RELATIVE_ERROR) + 1e-15
    assert histogram.count == size
    assert histogram.quantiles().max == values.max() / 1e9
    assert histogram.quantiles().mean == pytest.approx(values.mean() / 1e9)


def test_the_sum_of_histograms_is_the_histogram_of_all_values() -> None:
    draw = np.random.default_rng(1)
    parts = [draw.integers(0, limit, 500) for limit in (100, 10_000, 10**9)]
    whole, pooled = Histogram.of(np.concatenate(parts)), Histogram.sum(map(Histogram.of, parts))
    assert np.array_equal(whole.buckets, pooled.buckets)
    assert np.array_equal(whole.counts, pooled.counts)
    assert (whole.total, whole.largest) == (pooled.total, pooled.largest)


def test_every_value_lies_in_its_bucket_at_every_power_of_two() -> None:
    edges = np.unique([max(0, 2**power + step) for power in range(53) for step in (-1, 0, 1)]).astype(np.int64)
    upper = [Histogram.of(np.array([value])).upper_edges()[0] for value in edges]
    assert all(value <= edge <= value * (1 + RELATIVE_ERROR) for edge, value in zip(upper, edges, strict=True))


def test_of_nothing_nothing_is_said() -> None:
    nothing = Histogram.sum([])
    assert nothing.count == 0
    assert nothing.quantiles().p99 == 0.0
