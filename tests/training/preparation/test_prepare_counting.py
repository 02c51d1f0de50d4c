"""Counting with a budget against collections.Counter, and the grid that many numbers are rounded to."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from training.preparation.counting import Counters, ValueCounter, round_down

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

values = st.text(st.characters(codec="utf-8"), max_size=2)


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.dictionaries(values, st.integers(0, 5), max_size=12), min_size=1, max_size=6),
    budget=st.integers(0, 30),
    min_count=st.integers(1, 4),
)
def test_counts_are_those_of_a_counter_however_often_they_are_spilled(
    batches: list[dict[str, int]], budget: int, min_count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spill")
    counters = Counters(folder, budget)
    counters.add("one")
    counters.add("two")
    expected: Counter[str] = Counter()
    for batch in batches:
        for name in ("one", "two"):
            keys = pl.Series([*batch, None], dtype=pl.String)
            counters[name].add(keys, pl.Series([*batch.values(), 7], dtype=pl.Int64))
        expected.update(batch)
        counters.keep_to_budget()
        assert sum(counters[name].rows for name in ("one", "two")) <= budget
    kept = {value: count for value, count in expected.items() if count >= min_count and value}
    order = sorted(kept, key=lambda value: (-kept[value], value))
    for name in ("one", "two"):
        found = counters[name].counts(min_count)
        assert found.get_column("value").to_list() == order, "by falling count, then code points"
        assert found.get_column("count").to_list() == [kept[value] for value in order]


def test_a_budget_puts_counts_on_disk_and_no_budget_does_not(tmp_path: Path) -> None:
    for budget, spilled in ((5, True), (50, False)):
        counters = Counters(tmp_path / str(budget), budget)
        counters.add("f")
        for start in range(0, 20, 4):
            counters["f"].add(pl.Series([str(start + n) for n in range(4)]), pl.Series([1] * 4))
            counters.keep_to_budget()
        assert any((tmp_path / str(budget)).rglob("*.arrow")) == spilled
        assert counters["f"].counts().height == 20


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(numbers, min_size=1, max_size=20), numbers)
def test_rounding_down_keeps_every_comparison_with_what_is_on_the_grid(some: list[float], edge: float) -> None:
    rounded = round_down(pl.Series(some)).to_list()
    on_grid = round_down(pl.Series([edge]))[0]
    for value, low in zip(some, rounded, strict=True):
        assert low <= value or value == -np.finfo(float).max or low == -np.finfo(float).max
        assert abs(low - value) <= abs(value) * 2.0**-11 or abs(value) < 1e-300
        assert (low >= on_grid) == (value >= on_grid)
    assert round_down(pl.Series(rounded)).to_list() == rounded


def test_small_integers_and_halves_are_on_the_grid() -> None:
    exact = [float(n) for n in range(-8192, 8193)] + [n / 2 for n in range(-2000, 2000)]
    assert round_down(pl.Series(exact)).to_list() == exact


def test_many_numbers_are_counted_on_a_grid_and_few_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    draws = rng.lognormal(0.0, 2.0, 60_000)
    results = []
    for order in (draws, draws[::-1]):
        counter = ValueCounter(tmp_path, most=30_000)
        for part in np.array_split(order, 7):
            counter.add(pl.Series(part), pl.Series(np.ones(part.size, dtype=np.int64)))
            counter.spill()  # numbers stay in memory
        results.append(counter.counts())
    assert results[0].equals(results[1]), "in whatever order they come"
    assert results[0].height <= 30_000 + 4096
    assert results[0].get_column("count").sum() == 60_000
    assert not list(tmp_path.iterdir())
    few = ValueCounter(tmp_path, most=30_000)
    few.add(pl.Series(draws[:1000]), pl.Series(np.ones(1000, dtype=np.int64)))
    assert sorted(few.counts().get_column("value").to_list()) == sorted(draws[:1000].tolist())
