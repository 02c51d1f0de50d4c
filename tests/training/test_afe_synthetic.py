"""AFE against the generator's truth: noise, copies and interactions, found without names or positions."""

from pathlib import Path

import numpy as np
import pytest
from encoded import encode

from training.afe import AfeConfig, Selection, measure, measure_prepared, select
from training.datasets.config import DataConfig
from training.datasets.synthetic import TRAIN, SyntheticData, Truth, generate
from training.prepare import prepare

ROWS = 60_000


def check(selection: Selection, truth: Truth) -> None:
    kept = set(selection.kept)
    assert not kept & truth.named("noise")
    for group in truth.duplicates:
        assert len(kept & group) == 1
    pairs = {frozenset(pair) for pair in selection.interactions}
    for pair in truth.xor_pairs:
        assert set(pair) <= kept
        assert frozenset(pair) in pairs
    copied = {name for group in truth.duplicates for name in group}
    assert truth.named("informative") - copied <= kept


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_noise_and_copies_are_dropped_and_pairs_found(seed: int) -> None:
    log = generate(ROWS, seed)
    rows = np.flatnonzero(log.split == TRAIN)
    slots, context, candidate = encode(log, rows)
    measures = measure(context, candidate, log.label[rows], slots, clusters=log.group[rows])
    check(select(measures), log.truth)


def test_names_and_positions_do_not_matter() -> None:
    log = generate(20_000, 6)
    rows = np.flatnonzero(log.split == TRAIN)
    slots, context, candidate = encode(log, rows)
    clusters = log.group[rows]
    order = np.random.default_rng(0).permutation(len(slots))
    shuffled = [slots[place] for place in order]
    first, again = (
        select(measure(context, candidate, log.label[rows], fields, clusters=clusters)) for fields in (slots, shuffled)
    )
    assert set(first.noise) == set(again.noise)
    assert {frozenset(pair) for pair in first.interactions} == {frozenset(pair) for pair in again.interactions}


@pytest.fixture(scope="module")
def small_log() -> SyntheticData:
    return generate(40_000, 7)


def test_prepared_data_is_measured_between_requests(small_log: SyntheticData, tmp_path: Path) -> None:
    config = DataConfig.model_validate(
        {
            "dataset": "synthetic",
            "options": {"rows": 40_000},
            "split": {"kind": "given", "column": "split", "test": "test"},
        }
    )
    data = prepare(config, base=tmp_path, seed=7, name="synthetic", out=tmp_path / "data")
    measures = measure_prepared(data, AfeConfig(seed=1))
    assert {field.name for field in measures.fields if field.clustered} == {
        name for name, field in small_log.truth.fields.items() if field.side == "context"
    }
    assert measures.rows == data.info.rows["train"]
    check(select(measures), small_log.truth)
