"""Rows of rare values that begin near zero: by how much, where that is chosen, and what is told of it."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from model_toys import Arrays
from sklearn.linear_model import LogisticRegression

from training.config import load_config
from training.dtf import DtfConfig
from training.loader import PreparedData
from training.loop import train_reaction
from training.models.base import FieldSlot
from training.paired import CLEARLY
from training.phases.checkpoint import CheckpointStore
from training.report import render_report
from training.runs import Run, open_run
from training.towers.schedule import Schedule
from training.towers.search import USUAL_HALF
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from training.models.reaction import Tower

RARE, COMMON = 4000, 6
FIELDS = (
    FieldSlot("user", "context", 0, 1, rows=RARE + 2, dim=4),
    FieldSlot("item", "candidate", 0, 1, rows=COMMON + 2, dim=4),
    FieldSlot("tags", "candidate", 1, 2, rows=COMMON + 3, dim=4, pooling="sum", pad_id=2),
)


def split(rows: int, seed: int, *, noisy: bool) -> Arrays:
    """Rows with many rare users, who say nothing.

    Args:
        rows: How many.
        seed: Of everything.
        noisy: The label follows from a few frequent users, so that what rare ones begin with is read as if it mattered;
            otherwise it follows from the item alone.
    """
    draw = np.random.default_rng(seed)
    item, tags = draw.integers(0, COMMON, rows), draw.integers(0, COMMON + 1, (rows, 2))
    if noisy:
        user, frequent = draw.integers(0, 10, rows), draw.random(rows) < 0.5
        rate = np.where(frequent, np.where(user < 5, 0.8, 0.2), 0.5)
        user = np.where(frequent, user, draw.integers(10, RARE, rows))
    else:
        user, rate = draw.integers(0, RARE, rows), np.where(item < COMMON // 2, 0.7, 0.3)
    label = draw.random(rows) < rate
    ids = np.column_stack([item + 2, tags + 2])
    return Arrays((user[:, None] + 2).astype(np.int32), ids.astype(np.int32), label.astype(np.uint8))


def toy(where: Path, half: float | None, *, noisy: bool = True, l2: float | None = 10.0) -> Schedule:
    torch.set_num_threads(1)
    return Schedule(
        FIELDS,
        split(3000, 0, noisy=noisy),
        split(2000, 1, noisy=noisy),
        dtf=DtfConfig(widths=(8,), council=0),
        config=TrainConfig(
            batch_size=128,
            epochs=6,
            rate=3e-3,
            table_l2=l2,
            table_scale=0.5 if noisy else 0.1,
            half_scale_at=half,
            device="cpu",
        ),
        seed=1,
        store=CheckpointStore(where, "toy", resume=False),
        progress=lambda *_: None,
    )


def begun(schedule: Schedule) -> Tower:
    with torch.random.fork_rng():
        return schedule.fresh(0)


@pytest.mark.parametrize("half", [1.0, 30.0])
def test_a_row_begins_with_what_its_values_count_leaves_of_the_scale(half: float, tmp_path: Path) -> None:
    train = split(3000, 0, noisy=True)
    columns = (train.context_ids, train.candidate_ids[:, :1], train.candidate_ids[:, 1:])
    plain, near = (begun(toy(tmp_path, given)) for given in (0.0, half))
    for field, ids, table, whole in zip(FIELDS, columns, near.tables, plain.tables, strict=True):
        seen = Counter(ids.ravel().tolist())
        for row in range(field.rows):
            share = seen[row] / (seen[row] + half)
            torch.testing.assert_close(table[row], share * whole[row], msg=f"{field.name} {row}")
    others = zip(plain.body.parameters(), near.body.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in others)


def row_losses(label: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Log loss (N,) of each row once slope and offset are fitted."""
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], label)
    pctr = fitted.predict_proba(logits[:, None])[:, 1]
    return -np.log(np.where(label == 1, pctr, 1.0 - pctr))


@pytest.mark.parametrize("noisy", [True, False])
def test_it_is_chosen_where_it_is_clearly_better_on_validation(noisy: bool, tmp_path: Path) -> None:
    label, found = split(2000, 1, noisy=noisy).label, {}
    for half in (0.0, USUAL_HALF):
        given = toy(tmp_path / str(half), half, noisy=noisy)
        with torch.random.fork_rng():
            found[half] = row_losses(label, given.tower_logits(given.gated_tower()))
    gains = found[0.0] - found[USUAL_HALF]
    clear = gains.mean() > max(CLEARLY, gains.std(ddof=1) / len(gains) ** 0.5)
    assert clear == noisy
    schedule = toy(tmp_path / "search", None, noisy=noisy)
    with torch.random.fork_rng():
        result = schedule.run()
    assert result.half_scale_at == (USUAL_HALF if noisy else 0.0)
    said = row_losses(label, schedule.tower_logits(result.pair.a))
    assert said.mean() == pytest.approx(found[result.half_scale_at].mean(), abs=1e-5)
    kept = {path.stem for path in (tmp_path / "search").glob("tower_b*")}
    assert kept == {"tower_b_10_unshared_near_zero" if noisy else "tower_b_10_unshared"}


def test_the_l2_is_searched_with_what_was_chosen(tmp_path: Path) -> None:
    schedule = toy(tmp_path, None, l2=None)
    with torch.random.fork_rng():
        schedule.search.pair()
    assert schedule.config.half_scale_at == USUAL_HALF
    tried = {path.stem for path in tmp_path.glob("tower_a*")}
    at_300 = "tower_a_300_unshared"
    assert {at_300, f"{at_300}_near_zero", "tower_a_1200_unshared_near_zero"} <= tried
    assert [name for name in tried if not name.endswith("near_zero")] == [at_300]


def test_a_run_keeps_what_was_chosen_a_retraining_takes_it_and_the_report_says_so(
    tiny_home: Path, tmp_path: Path
) -> None:
    run = open_run(tiny_home / "run")
    config = load_config(tiny_home / "exp.toml")
    assert config.train.half_scale_at is None
    chosen = run.config.train.half_scale_at
    assert chosen in {0.0, USUAL_HALF}
    result = train_reaction(
        PreparedData.open(tiny_home / "data"),
        config.model_copy(update={"train": config.train.model_copy(update={"epochs": 1})}),
        tmp_path / "on",
        resume=False,
        init_from=tiny_home / "run",
        progress=lambda *_: None,
    )
    assert result.half_scale_at == chosen
    for half in (0.0, USUAL_HALF):
        copied = tmp_path / str(half)
        shutil.copytree(run.path, copied)
        text = (copied / "config.toml").read_text()
        (copied / "config.toml").write_text(text.replace(f"half_scale_at = {chosen}", f"half_scale_at = {half}"))
        page = render_report(Run(copied, run.record))
        assert (f"with n of n + {USUAL_HALF:g} parts of the others" in page) == (half > 0)
