"""A tower that reads what was seen of values: what it may know of a row, when it teaches, and with what share."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from model_toys import Arrays
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from training.dtf import DtfConfig, Teacher
from training.models.base import FieldSlot
from training.models.reaction import FusionForm, TowerPair
from training.phases.checkpoint import CheckpointStore
from training.phases.phase import NonFiniteLossError
from training.towers import recovery
from training.towers.evidence import SHARES, Evidence, evidence_of, share_of
from training.towers.linear_start import Yardstick
from training.towers.schedule import Schedule
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

V = 1500
USER = FieldSlot("user", "context", 0, 1, rows=V, dim=4)
ITEM = FieldSlot("item", "candidate", 0, 1, rows=V, dim=4)
SLOTS = (USER, ITEM)
QUALITY = np.random.default_rng(0).normal(0.0, 1.3, V)


def sparse(rows: int, seed: int) -> Arrays:
    """Rows of values that are seen a few times each, whose clicks follow from each value's own quality."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(3, V, (2, rows))
    odds = QUALITY[ids].sum(axis=0) - 0.5
    label = (draw.random(rows) < 1.0 / (1.0 + np.exp(-odds))).astype(np.uint8)
    context, candidate = ids[:, :, None].astype(np.int32)
    return Arrays(context, candidate, label)


TRAIN, VALID = sparse(6000, 1), sparse(4000, 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a pair and the tower beside it, trained once: they know nothing of what becomes of them."""
    where = tmp_path_factory.mktemp("trained")
    schedule = toy(where)
    with torch.random.fork_rng():
        schedule.towers()
    found(schedule)
    return where


def toy(
    where: Path,
    told: list[str] | None = None,
    *,
    after: Path | None = None,
    train: Arrays = TRAIN,
    below: float = 2.0,
    epochs: int = 15,
    **dtf: Any,
) -> Schedule:
    if after is not None:
        shutil.copytree(after, where, dirs_exist_ok=True)

    def progress(phase: str, *_: object) -> None:
        if told is not None and (not told or told[-1] != phase):
            told.append(phase)

    return Schedule(
        SLOTS,
        train,
        VALID,
        dtf=DtfConfig(**{"widths": (8, 6), "council": 0, "evidence": 1000.0, **dtf}),
        config=TrainConfig(batch_size=250, epochs=epochs, rate=3e-3, table_l2=30.0, half_scale_at=0.0, device="cpu"),
        seed=1,
        store=CheckpointStore(where, "toy", resume=True),
        progress=progress,
        share_below=below,
    )


def found(schedule: Schedule) -> Evidence:
    with torch.random.fork_rng():
        evidence = evidence_of(schedule)
    assert evidence is not None
    return evidence


def scaled(logits: np.ndarray) -> float:
    """The log loss on validation of logits once slope and offset are fitted."""
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], VALID.label)
    return float(log_loss(VALID.label, fitted.predict_proba(logits[:, None])[:, 1]))


def test_the_tower_knows_of_a_training_row_the_counts_without_it_and_nothing_else(
    trained: Path, tmp_path: Path
) -> None:
    evidence = found(toy(tmp_path, after=trained))
    ids = np.hstack([TRAIN.context_ids, TRAIN.candidate_ids])
    counts: dict[tuple[int, int, int], int] = {}
    for (user, item), label in zip(ids, TRAIN.label, strict=True):
        for field, value in enumerate((user, item)):
            counts[field, value, label] = counts.get((field, value, label), 0) + 1

    def left(row: int) -> tuple[int, ...]:
        """Clicks and others of the row's user and item, the row itself left out."""
        return tuple(
            counts.get((field, ids[row, field], label), 0) - (TRAIN.label[row] == label)
            for field in (0, 1)
            for label in (0, 1)
        )

    said: dict[tuple[int, ...], set[float]] = {}
    for row in range(len(ids)):
        said.setdefault(left(row), set()).add(float(evidence.training[row]))
    alike = [logits for logits in said.values() if len(logits) > 1]
    assert len(said) > 500
    assert max((max(logits) - min(logits) for logits in alike), default=0.0) < 1e-5
    # It has learnt something, and as much holds where it has not been trained.
    on_training = roc_auc_score(TRAIN.label, evidence.training)
    assert roc_auc_score(VALID.label, evidence.valid) > 0.65
    assert abs(on_training - roc_auc_score(VALID.label, evidence.valid)) < 0.08  # 0.2 where the row's label is counted


def test_the_schedule_is_left_as_it_was_and_a_stored_tower_is_not_trained_again(tmp_path: Path) -> None:
    told: list[str] = []
    schedule = toy(tmp_path, told)
    schedule.history = [{"phase": "before"}]
    before = schedule.sharing, schedule.slots, schedule.config, list(schedule.history), schedule.train.split.label
    evidence = found(schedule)
    assert (schedule.sharing, schedule.slots, schedule.config, schedule.history) == before[:4]
    assert schedule.train.split.label is before[4]
    assert found(schedule) is evidence
    assert told == ["evidence"]
    told.clear()
    again = found(toy(tmp_path, told))
    assert told == []
    np.testing.assert_array_equal(again.training, evidence.training)
    np.testing.assert_array_equal(again.valid, evidence.valid)


@pytest.mark.parametrize("error", [NonFiniteLossError("nan"), KeyboardInterrupt()])
def test_one_that_fails_leaves_the_schedule_as_it_was_and_is_not_tried_again(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, tries = toy(tmp_path), []

    def fails(*args: object, **_: object) -> None:
        tries.append(args)
        raise error

    monkeypatch.setattr(schedule, "tower", fails)
    before = schedule.sharing, schedule.slots, schedule.config
    if isinstance(error, NonFiniteLossError):
        assert evidence_of(schedule) is evidence_of(schedule) is None
        assert len(tries) == len(schedule.notes) == 1
        assert "failed and does not teach: nan" in schedule.notes[0]
    else:
        with pytest.raises(KeyboardInterrupt):
            evidence_of(schedule)
    assert (schedule.sharing, schedule.slots, schedule.config) == before


def test_fields_that_are_left_out_are_not_read(tmp_path: Path) -> None:
    schedule = toy(tmp_path)
    schedule.slots = tuple(slot for slot in schedule.slots if slot.name == "user")
    evidence = found(schedule)
    assert [slot.name for slot in schedule.slots] == ["user"]
    by_user: dict[int, set[float]] = {}
    for user, logit in zip(VALID.context_ids[:, 0], evidence.valid, strict=True):
        by_user.setdefault(int(user), set()).add(round(float(logit), 5))
    assert max(map(len, by_user.values())) == 1


@pytest.mark.parametrize("how", [{"evidence": 0.0}, {"below": 0.0}, {"evidence": 2.0}])
def test_there_is_none_for_0_where_no_values_share_rows_and_where_as_many_do_anyway(
    how: dict[str, Any], tmp_path: Path
) -> None:
    told: list[str] = []
    schedule = toy(tmp_path, told, **how)
    assert evidence_of(schedule) is None
    assert told == []


def test_its_share_is_what_validation_is_best_with_and_none_without_a_clear_gain(tmp_path: Path) -> None:
    schedule = toy(tmp_path)
    draw = np.random.default_rng(5)
    odds = draw.normal(0.0, 1.5, (2, len(VALID.label)))
    label = (draw.random(len(VALID.label)) < 1.0 / (1.0 + np.exp(-odds.sum(axis=0)))).astype(np.uint8)
    schedule.splits = (TRAIN, replace(VALID, label=label))
    schedule.share(schedule.sharing)
    one, other = odds.astype(np.float32)
    nothing = draw.normal(0.0, 1.5, len(label)).astype(np.float32)

    def loss(share: float, weak: np.ndarray) -> float:
        logits = ((1 - share) * one + share * weak)[:, None]
        fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logits, label)
        return float(log_loss(label, fitted.predict_proba(logits)[:, 1]))

    for scale in (0.5, 1.0, 2.0):
        weak = (scale * other).astype(np.float32)
        best = min(SHARES, key=lambda share: loss(share, weak))
        assert share_of(schedule, one, Evidence(weak, weak)) == best
    assert share_of(schedule, one, Evidence(nothing, nothing)) == 0.0
    assert share_of(schedule, one, Evidence(one, one)) == 0.0


def test_a_teacher_says_what_both_do_row_by_row(trained: Path, tmp_path: Path) -> None:
    schedule = toy(tmp_path, after=trained)
    with torch.random.fork_rng():
        a, b = (schedule.tower(f"tower_{name}", number) for number, name in enumerate("ab"))
        pair = TowerPair(a, b)
        teacher = schedule.teacher(pair)
    evidence = schedule.evidence
    assert evidence is not None
    assert teacher.share in SHARES  # values are sparse: one by one there is little to know of them
    assert schedule.evidence_share == teacher.share
    said = np.mean([schedule.tower_logits(tower) for tower in (a, b)], axis=0)
    mean = (1 - teacher.share) * said + teacher.share * evidence.valid
    assert scaled(mean) < scaled(said) - 0.01
    rows = np.array([5, 3, 700])
    batch = schedule.train.batch(rows)
    assert batch.evidence is not None
    np.testing.assert_array_equal(batch.evidence.numpy(), evidence.training[rows])
    plain = Teacher(pair.all, [schedule.bank(tower) for tower in pair.all]).logits(batch.ids).numpy()
    expected = teacher.calibration((1 - teacher.share) * plain + teacher.share * evidence.training[rows])
    np.testing.assert_allclose(teacher.logits(batch.ids, batch.evidence).numpy(), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="expected what the evidence tower says of these rows, got nothing"):
        teacher.logits(batch.ids)


def test_a_fused_model_learns_from_it_and_is_no_larger(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = toy(tmp_path / "taught", after=trained, fusion_start="afresh")
    alone = toy(tmp_path / "alone", after=trained, fusion_start="afresh", evidence=0.0)
    asked: dict[Schedule, list[float]] = {taught: [], alone: []}
    for schedule, factors in asked.items():

        def bank(module: Any, l2_factor: float = 1.0, *, to: list[float] = factors, of: Any = schedule.bank) -> Any:
            to.append(l2_factor)
            return of(module, l2_factor)

        monkeypatch.setattr(schedule, "bank", bank)
    with torch.random.fork_rng():
        one, other = taught.run(), alone.run()
    fused = [[round(factor, 9) for factor in found if factor != 1.0] for found in asked.values()]
    assert fused == [[0.03, 0.1], [0.1]]  # the second one of the first is of one that it does not teach
    shapes = [[tuple(value.shape) for value in result.form.state_dict().values()] for result in (one, other)]
    assert shapes[0] == shapes[1]
    said = "a tower that reads what was seen of values, not which they are, taught with a share of "
    assert one.notes == (f"{said}{taught.evidence_share:g}",)
    assert other.notes == ()
    said = [schedule.logits(result, VALID)["fused"] for schedule, result in ((taught, one), (alone, other))]
    assert scaled(said[0]) < scaled(said[1]) - 0.002
    # Its phase is nobody's who serves: the history is of what the others were trained to.
    assert {record["phase"] for record in one.history} == {record["phase"] for record in other.history}


@pytest.mark.parametrize("better", ["taught", "alone", "regression"])
def test_it_teaches_only_where_what_it_taught_is_better_and_is_told_of_only_if_that_stays(
    better: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = toy(tmp_path, fusion_start="afresh", epochs=3)
    certain = np.where(VALID.label == 1, 9.0, -9.0).astype(np.float32)
    monkeypatch.setattr(recovery, "regression_ahead", lambda *_: None)  # the fused model alone is behind it
    monkeypatch.setattr(recovery, "ahead_of_yardstick", lambda _schedule, pair: pair)
    schedule.yardstick = Yardstick(C=1.0, logits=certain)
    trained: list[tuple[str, FusionForm]] = []

    def fusion(*arguments: Any, stored: str, of: Any = schedule.fusion, **named: Any) -> FusionForm:
        form: FusionForm = of(*arguments, stored=stored, **named)
        trained.append((stored, form))
        return form

    def loss(form: FusionForm) -> float:
        (stored,) = [stored for stored, one in trained if one is form]
        name = {"fusion_afresh": "taught", "fusion_afresh_alone": "alone"}.get(stored, "regression")
        return 0.5 if name == better else 0.6

    monkeypatch.setattr(schedule, "fusion", fusion)
    monkeypatch.setattr(schedule, "form_loss", loss)
    dtf = schedule.dtf
    with torch.random.fork_rng():
        result = schedule.run()
    assert [stored for stored, _ in trained[:2]] == ["fusion_afresh", "fusion_afresh_alone"]
    assert len(trained) > 2  # and those that began as the regression
    assert any("began anew as it" in note for note in result.notes)
    assert any("taught with a share of" in note for note in result.notes) == (better == "taught")
    assert bool(schedule.evidence_share) == (better == "taught")
    assert schedule.dtf == dtf
    if better != "regression":
        kept = dict(trained)[f"fusion_afresh{'_alone' if better == 'alone' else ''}"]
        values = schedule.sharing.expanded(kept).state_dict()
        assert all(torch.equal(value, values[name]) for name, value in result.form.state_dict().items())
        last = [record for record in result.history if record["phase"] == "fusion"]
        store = CheckpointStore(tmp_path, "toy", resume=True)
        done = store.finished("fusion_afresh" + ("_alone" if better == "alone" else ""))
        assert done is not None
        assert last == done[1]["history"]


def test_one_without_it_that_fails_leaves_the_one_that_it_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = toy(tmp_path, fusion_start="afresh", epochs=2)

    def fusion(*arguments: Any, stored: str, of: Any = schedule.fusion, **named: Any) -> FusionForm:
        if stored.endswith("_alone"):
            raise NonFiniteLossError("nan")
        return of(*arguments, stored=stored, **named)  # type: ignore[no-any-return]

    monkeypatch.setattr(schedule, "fusion", fusion)
    dtf = schedule.dtf
    with torch.random.fork_rng():
        result = schedule.run()
    assert schedule.dtf == dtf
    assert result.notes[0] == "the fused model that no evidence tower taught failed and was left out: nan"
    assert "taught with a share of" in result.notes[1]
    assert [record for record in result.history if record["phase"] == "fusion"]
