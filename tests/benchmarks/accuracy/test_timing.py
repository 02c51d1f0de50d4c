"""The race of a task's models, ours from a bundle; and the files that come of it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ledger_lines import line
from run_directory import raw_rows, write_run

from benchmarks.accuracy.graph.pair import export_tower
from benchmarks.accuracy.latency import EMPTY
from benchmarks.accuracy.timing import measure, measure_task, read, write
from model_export.export import export_run
from service.bundle import read_bundle
from service.features import FeatureEncoder
from training.loader import Split
from training.models.files import load_pair


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with one exported run."""
    folder = tmp_path_factory.mktemp("work")
    export_run(write_run(folder / "run"), folder / "bundle")
    return folder


def prepared(work: Path) -> SimpleNamespace:
    """Encoded rows as a task has them."""
    encoder = FeatureEncoder.open(work / "run")
    rows = raw_rows(60, seed=3)
    context, candidate = (encoder.encode_rows(side, [row[side] for row in rows]) for side in ("context", "candidate"))
    test = Split(context, candidate, np.zeros(len(rows), np.uint8))
    return SimpleNamespace(encoder=encoder, split=lambda _: test)


def test_models_and_our_bundle_are_raced_with_what_they_store(work: Path) -> None:
    config = {"model": {"embedding_dim": 4, "hidden_units": [8], "dropout": 0.1, "batch_norm": True}, "train": {}}
    runs = {
        "LR": [line("films-random", "LR", 11)],
        "DNN-small": [line("films-random", "DNN-small", 11, config=config)],
        "DeepFM": [line("films-random", "DNN-small", 11, config=config)],
        "LightGBM": [line("films-random", "LightGBM", 11)],
        "REACTION": [
            line("films-random", "REACTION", 11, facts={"bundle": "gone"}),  # better on validation, but not there
            line("films-random", "REACTION", 12, facts={"bundle": "bundle"}, shift=-0.1),
        ],
    }
    found = measure_task(prepared(work), runs, work, seconds=0.05)  # type: ignore[arg-type]
    assert set(found["models"]) == {EMPTY, "LR", "DNN-small", "DeepFM", "REACTION", "tower A", "tower B"}
    for name, facts in found["models"].items():
        assert set(facts["latency"]) == {"1", "100", "1000"}
        assert name == EMPTY or facts["parameters"]["inference"] == sum(
            facts["parameters"][part] for part in ("embedding", "dense")
        )
    ours = found["models"]["REACTION"]
    model = read_bundle(work / "bundle").manifest.model
    assert ours["parameters"]["dense"] == model["dense_parameters"]
    assert ours["flops"]["1"] == model["flops"]
    assert ours["flops"]["100"] < 100 * ours["flops"]["1"]  # the context is shared
    assert ours["seed"] == 12
    assert found["models"]["DNN-small"]["parity"] < 2e-6
    towers = [found["models"][name] for name in ("tower A", "tower B")]
    assert all(one["seed"] == 12 and one["parity"] < 2e-6 for one in towers)
    assert sum(one["flops"]["1"] for one in towers) > 1.5 * ours["flops"]["1"]


def test_a_pairs_tower_is_a_form_whose_other_branch_weighs_nothing(work: Path) -> None:
    tower = load_pair(work / "run").b
    _, form = export_tower(tower)
    data = prepared(work).split("test")
    ids = [torch.from_numpy(np.array(part)).long() for part in (data.context_ids, data.candidate_ids)]
    form.reads_serving_constants = False
    with torch.inference_mode():
        torch.testing.assert_close(form(*ids), tower(*ids), rtol=1e-5, atol=1e-5)


def test_without_a_bundle_of_ours_what_was_measured_before_stays(work: Path, tmp_path: Path) -> None:
    runs = [line("films-random", "REACTION", 11, facts={"bundle": "bundle"})]
    assert (work / "bundle").is_dir()  # in another folder
    known = {"tasks": {"films-random": {"models": {"REACTION": {"seed": 7}}}}}
    said: list[str] = []
    table = measure(["films-random"], runs, tmp_path, known=known, seconds=0.05, told=said.append)
    assert table["tasks"] == known["tasks"]
    (text,) = said
    assert "films-random: not timed" in text
    assert str(tmp_path) in text


def test_a_table_of_latencies_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read(tmp_path / "none.json") == {}
    write(tmp_path / "some.json", {"tasks": {"a": 1}})
    assert read(tmp_path / "some.json") == json.loads((tmp_path / "some.json").read_text()) == {"tasks": {"a": 1}}
    assert [path.name for path in tmp_path.iterdir()] == ["some.json"]
