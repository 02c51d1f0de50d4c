"""Rare values that share table rows: which rows, held against counting by hand; that nothing but rows changes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_toys import Arrays, scramble

from training.config import load_config
from training.dtf import DtfConfig
from training.metrics import scaled_log_loss
from training.models.base import FieldSlot
from training.models.reaction import FusionForm, Tower, TowerPair
from training.paired import gain
from training.phases.checkpoint import CheckpointStore
from training.report import render_report
from training.runs import open_run
from training.towers import row_sharing
from training.towers.row_sharing import RowSharing
from training.towers.schedule import Schedule
from training.towers.search import USUAL_SHARE
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

ONE = FieldSlot("item", "candidate", 1, 1, rows=400, dim=3)
SET = FieldSlot("tags", "candidate", 2, 3, rows=300, dim=2, pooling="mean", pad_id=2)
USER = FieldSlot("user", "context", 0, 1, rows=300, dim=4)
SLOTS = (USER, ONE, SET)


def rows(number: int, seed: int) -> Arrays:
    """Rows with many rare values, values twice in a set, and values of all kinds without any row."""
    draw = np.random.default_rng(seed)
    context = np.zeros((number, 1), np.int32)
    candidate = np.zeros((number, 5), np.int32)
    context[:, 0] = np.minimum(299, draw.zipf(1.3, number))
    candidate[:, 1] = np.minimum(399, draw.zipf(1.2, number))
    candidate[:, 2:] = np.minimum(299, draw.zipf(1.3, (number, 3)) + 1)
    return Arrays(context, candidate, (draw.random(number) < 0.4).astype(np.uint8))


def read(split: Any, slot: FieldSlot) -> np.ndarray:
    ids = split.context_ids if slot.side == "context" else split.candidate_ids
    return np.asarray(ids[:, slot.first : slot.first + slot.width])


def by_hand(split: Arrays, slot: FieldSlot, below: float) -> tuple[dict[tuple[int, int], Any], dict[int, Any]]:
    """What identifies the row that (row number, id) reads in training, and that an id reads when serving.

    ("own", id) of a value that is frequent or reserved, else the classes of the counts that are left.
    """
    ids, label = read(split, slot), split.label
    where = {v: [n for n in range(len(label)) if v in ids[n]] for v in range(slot.rows)}
    rate = label.mean()

    def state(numbers: list[int]) -> Any:
        clicked = sum(int(label[n]) for n in numbers)
        classes = tuple(
            k if k < 8 else (int(2 * np.log2(k / 8)), "doublings") for k in (clicked, len(numbers) - clicked)
        )
        return ("own", 1) if classes == (0, 0) else classes

    def rare(v: int) -> bool:
        return v >= (2 if slot.pad_id is None else 3) and len(where[v]) * 4 * rate * (1 - rate) < below

    training = {
        (n, v): state([m for m in where[v] if m != n]) if rare(v) else ("own", v)
        for n in range(len(label))
        for v in map(int, ids[n])
    }
    return training, {v: state(where[v]) if rare(v) else ("own", v) for v in range(slot.rows)}


@settings(max_examples=6, deadline=None)
@given(number=st.integers(40, 250), seed=st.integers(0, 10**6), below=st.floats(1.5, 40.0))
def test_values_share_a_row_just_where_their_counts_without_the_rows_own_label_are_alike(
    number: int, seed: int, below: float
) -> None:
    split = rows(number, seed)
    sharing = RowSharing.fit(SLOTS, split, below)
    everything = [np.arange(slot.rows) for slot in SLOTS]
    most = max(map(len, everything))
    probe = Arrays(np.zeros((most, 1), np.int32), np.zeros((most, 5), np.int32), np.zeros(most, np.uint8))
    for slot, ids in zip(SLOTS, everything, strict=True):
        read(probe, slot)[: len(ids), 0] = ids  # a view
    serving, training = sharing.serving(probe), sharing.training(split)
    for before, slot in zip(SLOTS, sharing.slots, strict=True):
        known, known_serving = by_hand(split, before, below)
        got = read(training, slot)
        found = {
            (n, int(v)): int(got[n, k]) for n, values in enumerate(read(split, before)) for k, v in enumerate(values)
        }
        places = defaultdict(set)
        if slot.rows == before.rows:  # sharing would not have saved a row
            assert all(row == v for (_, v), row in found.items())
            continue
        for key, row in found.items():
            places[known[key]].add(row)
        for v, row in enumerate(read(serving, slot)[: before.rows, 0]):
            places[known_serving[v]].add(int(row))
        assert all(len(same) == 1 for same in places.values())
        assert len({next(iter(same)) for same in places.values()}) == len(places)
        assert places["own", 1] == {1}
        assert max(next(iter(same)) for same in places.values()) < slot.rows < before.rows


def test_a_large_matrix_is_translated_as_it_is_read_and_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    split = rows(500, 3)
    sharing = RowSharing.fit(SLOTS, split, 10.0)
    kept = sharing.training(split), sharing.serving(split)
    monkeypatch.setattr(row_sharing, "_KEPT_CELLS", 0)
    monkeypatch.setattr(row_sharing, "_BLOCK_ROWS", 64)
    lazy = RowSharing.fit(SLOTS, split, 10.0)
    picked = np.random.default_rng(0).permutation(500)[:90]
    for one, other in zip(kept, (lazy.training(split), lazy.serving(split)), strict=True):
        assert not isinstance(other.candidate_ids, np.ndarray)
        assert other.candidate_ids.shape == split.candidate_ids.shape
        for index in (slice(10, 77), picked):
            assert np.array_equal(one.candidate_ids[index], other.candidate_ids[index])
            assert np.array_equal(one.context_ids[index], other.context_ids[index])


@pytest.mark.parametrize("kind", ["tower", "pair", "form"])
def test_a_model_with_a_row_a_value_again_says_what_it_said_over_shared_rows(kind: str) -> None:
    split = rows(400, 5)
    sharing = RowSharing.fit(SLOTS, split, 20.0)
    make = {
        "tower": lambda: Tower(sharing.slots, (6, 4)),
        "pair": lambda: TowerPair(Tower(sharing.slots, (6, 4)), Tower(sharing.slots, (6, 4))),
        "form": lambda: FusionForm(sharing.slots, (6, 4)),
    }
    model = make[kind]()
    for part in (model.a, model.b) if isinstance(model, TowerPair) else (model,):
        scramble(part)
    model.eval()
    raw = [torch.from_numpy(ids).long() for ids in (split.context_ids, split.candidate_ids)]
    served = sharing.serving(split)
    shared = [torch.from_numpy(np.array(ids)).long() for ids in (served.context_ids, served.candidate_ids)]
    with torch.no_grad():
        expected = model(*shared)
        assert torch.equal(sharing.expanded(model)(*raw), expected)
        assert [slot.rows for slot in model.slots] == [slot.rows for slot in SLOTS]
        assert torch.equal(sharing.expanded(model)(*raw), expected)  # nothing is left to do
        assert torch.allclose(sharing.shrunk(model)(*shared), expected, atol=1e-5)
        assert [slot.rows for slot in model.slots] == [slot.rows for slot in sharing.slots]


def test_labels_of_one_class_or_no_evidence_asked_for_share_nothing() -> None:
    split = rows(200, 1)
    assert RowSharing.fit(SLOTS, split, 0.0).idle
    assert RowSharing.fit(SLOTS, Arrays(split.context_ids, split.candidate_ids, np.zeros(200, np.uint8)), 10.0).idle
    assert not RowSharing.fit(SLOTS, split, 10.0).idle


def trained(where: Path, splits: tuple[Arrays, Arrays], slots: tuple[FieldSlot, ...], below: float | None) -> Schedule:
    return Schedule(
        slots,
        *splits,
        dtf=DtfConfig(widths=(16, 8)),
        config=TrainConfig(
            epochs=6, patience=3, table_l2=300.0, half_scale_at=0.0, rate=3e-3, device="cpu", batch_size=256
        ),
        seed=1,
        store=CheckpointStore(where, "toy", resume=False),
        progress=lambda *_: None,
        share_below=below,
    )


def sparse_clicks(number: int, seed: int, values: int) -> Arrays:
    """Two fields whose values have click rates of their own, far out at times; an item has a handful of rows."""
    world = np.random.default_rng(7)
    effects = world.standard_t(1.5, values), world.normal(0.0, 1.0, 20)
    draw = np.random.default_rng(seed)
    item, user = draw.integers(0, values, number), draw.integers(0, 20, number)
    label = draw.random(number) < 1.0 / (1.0 + np.exp(-(effects[0][item] + effects[1][user])))
    return Arrays((user[:, None] + 2).astype(np.int32), (item[:, None] + 2).astype(np.int32), label.astype(np.uint8))


FEW = (FieldSlot("user", "context", 0, 1, rows=22, dim=4), FieldSlot("item", "candidate", 0, 1, rows=1502, dim=8))


@pytest.mark.slow
def test_on_values_of_a_few_rows_each_sharing_is_chosen_and_better_on_rows_that_chose_nothing(tmp_path: Path) -> None:
    train, valid, test = (sparse_clicks(3000, seed, 750) for seed in (1, 2, 3))
    losses = {}
    for below in (None, 0.0):
        with torch.random.fork_rng():
            schedule = trained(tmp_path / str(below), (train, valid), FEW, below)
            tower = schedule.search.pair().a
        model = schedule.sharing.expanded(tower)
        assert [slot.rows for slot in model.slots] == [slot.rows for slot in FEW]
        assert schedule.sharing.below == (10.0 if below is None else 0.0)
        with torch.no_grad():
            logits = model(*(torch.from_numpy(ids).long() for ids in (test.context_ids, test.candidate_ids)))
        losses[below] = scaled_log_loss(test.label, logits.numpy())
    assert losses[None] < losses[0.0] - 0.003


@pytest.mark.slow
def test_where_what_was_seen_of_rare_values_misleads_on_validation_no_row_is_shared(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)

    def split(number: int, rare_rate: float) -> Arrays:
        item, user = draw.integers(0, 1500, number), draw.integers(0, 20, number)
        item = np.where(item < 750, item, item % 4)
        label = draw.random(number) < np.where(item < 4, 0.6, rare_rate)
        return Arrays(
            (user[:, None] + 2).astype(np.int32), (item[:, None] + 2).astype(np.int32), label.astype(np.uint8)
        )

    with torch.random.fork_rng():
        schedule = trained(tmp_path, (split(4000, 0.01), split(2000, 0.5)), FEW, None)
        first = schedule.search.pair().a
    assert schedule.sharing.below == 0.0
    assert first.slots == FEW
    assert {path.name for path in tmp_path.glob("tower_a*")} == {
        "tower_a_300.safetensors",
        "tower_a_300_unshared.safetensors",
    }


def test_a_choice_goes_by_groups_of_validation_rows_whatever_is_shared(tmp_path: Path) -> None:
    train, valid = sparse_clicks(3000, 1, 750), sparse_clicks(2000, 2, 750)
    user = valid.context_ids[:, 0].astype(np.int64)
    schedule = trained(tmp_path, (train, replace(valid, group=user)), FEW, None)
    clicked = np.bincount(user, valid.label, 22) / np.maximum(np.bincount(user, minlength=22), 1)
    # What is said of a user's rows is alike, and near enough to the truth.
    ours, theirs = (6.0 * clicked + np.random.default_rng(0).normal(0.0, 1.0, (2, 22)))[:, user]
    known = gain(schedule.tower_monitor, replace(valid, group=user), ours, theirs)
    assert known.error > 1.5 * gain(schedule.tower_monitor, valid, ours, theirs).error
    assert schedule.search.gain(ours, theirs) == known
    schedule.share(RowSharing.fit(FEW, train, USUAL_SHARE))
    assert not schedule.sharing.idle
    assert schedule.search.gain(ours, theirs) == known


def test_a_run_keeps_what_was_chosen_and_its_report_says_so(tiny_home: Path) -> None:
    run = open_run(tiny_home / "run")
    assert load_config(tiny_home / "exp.toml").afe.share_below is None
    chosen = run.config.afe.share_below
    assert chosen in {0.0, USUAL_SHARE}
    told = f"those with less evidence than {USUAL_SHARE:g} even rows"
    assert (told in render_report(run)) == (chosen == USUAL_SHARE)
