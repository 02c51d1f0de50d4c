"""The accuracy table's DNN as plain matrices, and thinned: against the module itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ledger_lines import line, whole
from prepared import make
from test_baselines import small, wake

from benchmarks.accuracy import deep
from benchmarks.accuracy.fitted import Place
from benchmarks.redundancy.tuned import chosen_config, dense, embedded, tuned_structure
from training.loader import PreparedData
from training.metrics import auc


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return make(tmp_path_factory.mktemp("small") / "data")


def test_the_matrices_of_a_dnn_give_what_the_module_gives(data: PreparedData) -> None:
    module = deep.new_module("DNN", data, small("DNN", 3000), seed=1)
    wake(module)
    valid, rows = data.split("valid"), np.arange(50)
    sides = (torch.from_numpy(np.array(ids[:50])).long() for ids in (valid.context_ids, valid.candidate_ids))
    expected = module(*sides).detach().numpy()
    np.testing.assert_allclose(dense(module).logits(embedded(module, valid, rows)), expected, rtol=1e-4, atol=1e-4)
    assert dense(module).parameters == deep.count(module).dense


def test_the_tuned_dnn_is_trained_as_in_the_table_and_thinned(data: PreparedData) -> None:
    config = small("DNN", 3000)
    config["train"] |= {"epochs": 3, "averaging": 0.0}
    found = tuned_structure(data, config, seed=1, rows=1000, resamples=20)
    fitted = deep.fit("DNN", Place("films-random", data, Path(), test=False), config, seed=1)
    assert found.parameters == fitted.parameters.dense  # type: ignore[union-attr]
    valid = data.split("valid")
    assert found.rows == valid.rows
    assert found.auc == pytest.approx(auc(valid.label, fitted.score(valid)), abs=1e-3)
    assert set(found.curves) >= {"magnitude", "rank", "units"}


def test_the_config_is_that_of_the_tables_row_of_the_task() -> None:
    other = line("ads-time", "DNN", 11, config={"model": {"width": 99}, "train": {}})
    assert chosen_config("films-random", [other, *whole()]) == {"model": {"width": 10}, "train": {}}
    assert chosen_config("criteo-random", whole()) is None
