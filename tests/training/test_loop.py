"""A training on prepared data: repeated, retrained, weighted, refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tiny
import torch

from training.config import load_config, save_config
from training.loader import PreparedData
from training.loop import DeviceError, OriginError, TrainConfig, TrainingDataError, TrainingResult, train_reaction
from training.models.files import load_fusion_form, save_model, save_pair
from training.models.reaction import serving_ids
from training.phases.phase import probabilities

if TYPE_CHECKING:
    from pathlib import Path

    from training.config import ExperimentConfig


def quiet(*_: object) -> None:
    """Tell nobody."""


@pytest.fixture(scope="module")
def data(tiny_home: Path) -> PreparedData:
    return PreparedData.open(tiny_home / "data")


@pytest.fixture(scope="module")
def config(tiny_home: Path) -> ExperimentConfig:
    return load_config(tiny_home / "exp.toml")


@pytest.fixture(scope="module")
def whole(data: PreparedData, config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train_reaction(data, config, tmp_path_factory.mktemp("whole"), resume=False, progress=quiet)


def with_l2(config: ExperimentConfig, table_l2: float) -> ExperimentConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"table_l2": table_l2})})


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def split_logits(result: TrainingResult, split: object, model: str) -> np.ndarray:
    context = torch.from_numpy(np.array(split.context_ids))
    candidate = torch.from_numpy(np.array(split.candidate_ids))
    with torch.no_grad():
        return getattr(result, model)(context, candidate).numpy()


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    data: PreparedData, config: ExperimentConfig, whole: TrainingResult, tmp_path: Path
) -> None:
    torch.manual_seed(123)  # what happened in the process before does not matter
    expected = torch.rand(3)
    torch.manual_seed(123)
    threads = torch.get_num_threads()
    again = train_reaction(data, config, tmp_path / "a", resume=False, progress=quiet)
    assert same_weights(again.form, whole.form)
    # The caller's random numbers and threads are left alone.
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    other = train_reaction(data, config.model_copy(update={"seed": 4}), tmp_path / "b", resume=False, progress=quiet)
    assert not same_weights(other.form, whole.form)


def test_the_tables_l2_that_was_chosen_gives_the_same_model_when_it_is_given(
    data: PreparedData, config: ExperimentConfig, whole: TrainingResult, tmp_path: Path
) -> None:
    told = []
    again = train_reaction(
        data, with_l2(config, whole.table_l2), tmp_path, resume=False, progress=lambda *what: told.append(what)
    )
    assert same_weights(again.form, whole.form)
    assert same_weights(again.pair, whole.pair)
    plain = [{key: value for key, value in record.items() if key != "table_l2"} for record in whole.history]
    assert again.history == plain
    assert not any("L2" in note for *_, note in told)


def test_metrics_stand_for_towers_pair_and_fused_on_both_splits(data: PreparedData, whole: TrainingResult) -> None:
    assert whole.metrics.keys() == {"validation", "test"}
    for name, key in (("valid", "validation"), ("test", "test")):
        assert whole.metrics[key].keys() == {"tower_a", "tower_b", "pair", "fused"}
        split = data.split(name)
        pctr = probabilities(split_logits(whole, split, "form"))
        y, w = np.asarray(split.label, float), np.asarray(split.weight, float)
        by_hand = -np.sum(w * (y * np.log(pctr) + (1 - y) * np.log(1 - pctr))) / w.sum()
        assert whole.metrics[key]["fused"]["log_loss"] == pytest.approx(by_hand, abs=1e-5)
        assert {"auc", "gauc", "ndcg@10", "ece"} <= whole.metrics[key]["fused"].keys()


def test_the_model_reads_the_fields_that_afe_kept(data: PreparedData, whole: TrainingResult) -> None:
    slots = whole.form.slots
    assert {slot.name for slot in slots} == set(whole.selection.kept)
    assert {slot.name: slot.dim for slot in slots} == whole.selection.dims
    columns = {c.name: c for side in ("context", "candidate") for c in data.encoder.columns(side)}
    for slot in slots:
        assert (slot.first, slot.width) == (columns[slot.name].first, columns[slot.name].width)
        assert slot.rows == len(data.encoder.vocabulary(slot.name))


def test_a_training_only_field_is_served_at_its_constant(data: PreparedData, whole: TrainingResult) -> None:
    position = next(slot for slot in whole.form.slots if slot.name == "position")
    assert position.serving_constant_id == int(data.encoder.encode_values("position", ["1"])[0, 0])
    split = data.split("valid")
    context, candidate = (torch.from_numpy(np.array(x)) for x in (split.context_ids, split.candidate_ids))
    with torch.no_grad():
        served = whole.form.serving()(context, candidate)
        assert torch.equal(served, whole.form(*serving_ids(whole.form.slots, context, candidate)))
        assert not torch.equal(served, whole.form(context, candidate))


def test_the_history_is_json_and_names_every_phase(whole: TrainingResult) -> None:
    back = json.loads(json.dumps(whole.history, allow_nan=False))
    assert [*dict.fromkeys(r["phase"] for r in back)] == ["tower_a", "tower_b", "fusion"]
    assert all("step" in r and "epoch" in r for r in back)


# Retraining: `init_from`.


@pytest.fixture
def origin(config: ExperimentConfig, whole: TrainingResult, tmp_path: Path) -> Path:
    """What a finished run keeps that a retraining needs."""
    run = tmp_path / "run"
    run.mkdir()
    save_config(with_l2(config, whole.table_l2), run / "config.toml")
    save_model(run, whole.form)
    save_pair(run, whole.pair)
    (run / "afe.json").write_text(json.dumps({"selection": whole.selection.as_json()}))
    return run


def test_a_retraining_goes_on_from_the_runs_towers(
    data: PreparedData, config: ExperimentConfig, whole: TrainingResult, origin: Path, tmp_path: Path
) -> None:
    result = train_reaction(data, config, tmp_path / "w", resume=False, init_from=origin, progress=quiet)
    assert [*dict.fromkeys(r["phase"] for r in result.history)] == ["tower_a", "tower_b", "fusion"]
    before, after = (found.metrics["validation"] for found in (whole, result))
    for tower in ("tower_a", "tower_b"):
        start = next(r for r in result.history if r["phase"] == tower)
        assert start["step"] == 0
        assert start[f"{tower}.log_loss"] == pytest.approx(before[tower]["log_loss"], abs=0.02)
        assert after[tower]["log_loss"] <= start[f"{tower}.log_loss"] + 1e-6
    assert result.selection.kept == whole.selection.kept
    assert result.table_l2 == whole.table_l2
    assert [slot.dim for slot in result.form.slots] == [slot.dim for slot in whole.form.slots]


def test_a_retraining_takes_the_tables_l2_from_the_run_unless_it_is_given(
    data: PreparedData, config: ExperimentConfig, origin: Path, tmp_path: Path
) -> None:
    save_config(with_l2(config, 77.0), origin / "config.toml")
    found, short = {}, tiny.brief(config)
    for name, wanted in (
        ("taken", short.model_copy(update={"train": short.train.model_copy(update={"table_l2": None})})),
        ("given", with_l2(short, 77.0)),
        ("other", with_l2(short, 5000.0)),
    ):
        found[name] = train_reaction(data, wanted, tmp_path / name, resume=False, init_from=origin, progress=quiet)
    assert [result.table_l2 for result in found.values()] == [77.0, 77.0, 5000.0]
    assert same_weights(found["taken"].form, found["given"].form)
    assert not same_weights(found["taken"].form, found["other"].form)


def test_a_retraining_on_data_without_a_field_is_refused(
    data: PreparedData, config: ExperimentConfig, whole: TrainingResult, origin: Path, tmp_path: Path
) -> None:
    slots = list(whole.form.slots)
    slots[0] = dataclasses.replace(slots[0], name="gone")
    save_model(origin, type(whole.form)(slots, whole.form.widths))
    with pytest.raises(OriginError, match=r"expected fields \['gone'\]"):
        train_reaction(data, config, tmp_path / "w", resume=False, init_from=origin, progress=quiet)


def test_a_vocabulary_that_shrank_is_refused(
    data: PreparedData, config: ExperimentConfig, whole: TrainingResult, origin: Path, tmp_path: Path
) -> None:
    slots = [dataclasses.replace(slot, rows=slot.rows + 5) for slot in whole.form.slots]
    bigger = type(whole.form)(slots, whole.form.widths)
    save_model(origin, bigger)
    pair = type(whole.pair)(*(type(whole.pair.a)(slots, whole.form.widths) for _ in range(2)))
    save_pair(origin, pair)
    with pytest.raises(OriginError, match="prepare the data with --init-from"):
        train_reaction(data, config, tmp_path / "w", resume=False, init_from=origin, progress=quiet)


# What cannot be trained on.


def test_a_split_of_one_class_is_refused_by_name(config: ExperimentConfig, tiny_home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tiny_home / "data", copy)
    label = np.load(copy / "valid" / "label.npy")
    np.save(copy / "valid" / "label.npy", np.zeros_like(label))
    with pytest.raises(TrainingDataError, match=rf"valid: expected rows of both classes, got {len(label)} rows, 0 of"):
        train_reaction(PreparedData.open(copy), config, tmp_path / "w", resume=False, progress=quiet)


def test_a_device_that_is_not_there_is_refused(data: PreparedData, config: ExperimentConfig, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    wanted = config.model_copy(update={"train": config.train.model_copy(update={"device": "cuda"})})
    with pytest.raises(DeviceError, match="expected a CUDA device"):
        train_reaction(data, wanted, tmp_path, resume=False, progress=quiet)


def test_bfloat16_autocast_trains_too(data: PreparedData, config: ExperimentConfig, tmp_path: Path) -> None:
    short = tiny.brief(config)
    halved = short.model_copy(update={"train": short.train.model_copy(update={"epochs": 3, "precision": "bfloat16"})})
    result = train_reaction(data, halved, tmp_path, resume=False, progress=quiet)
    assert all(v.dtype == torch.float32 for v in result.form.state_dict().values() if v.is_floating_point())
    assert result.metrics["validation"]["fused"]["log_loss"] < 0.72


@pytest.mark.parametrize(("rows", "batch"), [(100, 256), (50_000, 512), (110_000, 1024), (10**6, 4096), (10**9, 4096)])
def test_the_default_batch_grows_with_the_rows(rows: int, batch: int) -> None:
    assert TrainConfig().batch_rows(rows) == batch


def test_table_l2_is_a_prior_of_the_same_strength_for_any_number_of_rows() -> None:
    config = TrainConfig(table_l2=300.0)
    assert config.table_settings(1000).l2 == pytest.approx(0.3)
    assert config.table_settings(10_000, 0.1).l2 == pytest.approx(0.003)


def test_a_saved_form_scores_as_the_trained_one(data: PreparedData, whole: TrainingResult, tmp_path: Path) -> None:
    save_model(tmp_path, whole.form)
    split = data.split("test")
    back = dataclasses.replace(whole, form=load_fusion_form(tmp_path))
    assert np.array_equal(split_logits(back, split, "form"), split_logits(whole, split, "form"))
