"""The columns that trees get: rates of other folds, counted in loops."""

import math
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from prepared import make

from benchmarks.accuracy.fitted import Place
from benchmarks.accuracy.models import MODELS
from benchmarks.accuracy.trees import Statistics, fit


@pytest.mark.parametrize("strength", [1.0, 20.0])
def test_a_training_rows_rate_is_that_of_the_other_folds_and_a_test_rows_of_all(
    tmp_path: Path, strength: float
) -> None:
    data = make(tmp_path / "data", rows=300)
    train, test = data.split("train"), data.split("test")
    statistics = Statistics(data.encoder, train, strength=strength, folds=4, seed=2)
    fold = np.random.default_rng(2).integers(0, 4, train.rows)
    base = float(np.mean(train.label))
    (ad,) = [column for column in data.encoder.columns("candidate") if column.name == "ad"]
    place = statistics.columns.index("rate_3")  # the third field
    mine, theirs = statistics.out_of_fold(), statistics.of(test)
    ids = np.asarray(train.candidate_ids[:, ad.first])
    for row in range(train.rows):
        others = [r for r in range(train.rows) if fold[r] != fold[row] and ids[r] == ids[row]]
        clicks = sum(int(train.label[r]) for r in others)
        assert mine[row, place] == pytest.approx((clicks + strength * base) / (len(others) + strength), rel=1e-5)
        assert mine[row, place - 1] == pytest.approx(math.log1p(len(others)), rel=1e-5)
        assert mine[row, place - 2] == ids[row]
    for row in range(test.rows):
        same = np.flatnonzero(ids == test.candidate_ids[row, ad.first])
        expected = (float(train.label[same].sum()) + strength * base) / (len(same) + strength)
        assert theirs[row, place] == pytest.approx(expected, rel=1e-5)


def test_a_multi_valued_fields_rate_is_the_mean_over_its_values_without_pads(tmp_path: Path) -> None:
    data = make(tmp_path / "data", rows=200)
    train, valid = data.split("train"), data.split("valid")
    statistics = Statistics(data.encoder, train, strength=5.0, folds=3, seed=1)
    found = statistics.of(valid)[:, statistics.columns.index("rate_2")]
    (tags,) = [column for column in data.encoder.columns("context") if column.name == "tags"]
    span = slice(tags.first, tags.first + tags.width)
    base = float(np.mean(train.label))
    for row in range(valid.rows):
        rates = []
        for value in valid.context_ids[row, span]:
            if value == 2:  # the pad
                continue
            held = (np.asarray(train.context_ids[:, span]) == value).any(1)
            rates.append((float(train.label[held].sum()) + 5.0 * base) / (held.sum() + 5.0))
        assert found[row] == pytest.approx(np.mean(rates) if rates else 0.0, rel=1e-5)


def test_trees_learn_from_rates_that_leave_a_rows_own_label_out_and_are_stopped_by_rates_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(tmp_path / "data", rows=300)
    train, valid = data.split("train"), data.split("valid")
    config = MODELS["LightGBM"].defaults("", train.rows)
    seen: list[np.ndarray] = []
    real = lightgbm.train

    def spy(settings: Any, fitted: lightgbm.Dataset, **how: Any) -> Any:
        seen.extend(np.array(one.data) for one in (fitted, *how["valid_sets"]))
        return real(settings, fitted, **how)

    monkeypatch.setattr(lightgbm, "train", spy)
    fit("LightGBM", Place("", data, tmp_path, test=False), config, 1)
    given = {"strength": config["model"]["strength"], "folds": config["model"]["folds"], "seed": 1}
    statistics = Statistics(data.encoder, train, **given)
    assert np.array_equal(seen[0], statistics.out_of_fold())
    assert np.array_equal(seen[1], statistics.of(valid))
    assert not np.array_equal(seen[0], statistics.of(train))
