"""The search for the tables' L2: where it climbs, what it keeps, what it tells."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from model_toys import SLOTS, clicks
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from training.config import load_config
from training.dtf import DtfConfig
from training.files import write_jsonl
from training.paired import CLEARLY, gain
from training.phases.checkpoint import CheckpointStore
from training.report import render_report
from training.runs import Run, open_run
from training.towers.schedule import Schedule
from training.towers.table_prior import LEAST_L2, MOST_L2, STEP, climb
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

DOWN = [300, 1200, 75, 18.75, 4.6875, 1.171875]


@pytest.mark.parametrize(
    ("losses", "tried", "best"),
    [
        ({300: 2, 1200: 3, 75: 3}, [300, 1200, 75], 300),
        ({300: 5, 1200: 4, 4800: 3, 19200: 3.5}, [300, 1200, 4800, 19200], 4800),
        ({300: 5, 1200: 4, 4800: 4}, [300, 1200, 4800], 1200),  # as good is not better
        ({300: 5, 1200: 6, 75: 4, 18.75: 4.5}, [300, 1200, 75, 18.75], 75),
        ({300: 5, 1200: 5, 75: 5}, [300, 1200, 75], 300),
        ({300: 5, 1200: 4.9995, 75: 4.9991}, [300, 1200, 75], 300),  # less than a thousandth is chance
        ({300: 9, 1200: 8, 4800: 7, 19200: 6, 76800: 5}, [300, 1200, 4800, 19200, 76800], 76800),
        (
            {300: 5, 1200: 6, 75: 4, 18.75: 3, 4.6875: 2, 1.171875: 1},
            [300, 1200, 75, 18.75, 4.6875, 1.171875],
            1.171875,
        ),
        ({300: -0.7, 1200: -0.8, 4800: -0.75}, [300, 1200, 4800], 1200),  # an AUC, with its sign turned
    ],
)
def test_it_climbs_as_long_as_that_helps_and_down_only_where_the_first_step_up_does_not(
    losses: dict[float, float], tried: list[float], best: float
) -> None:
    asked: dict[float, None] = {}

    def better(one: float, other: float) -> bool:
        asked.update({other: None, one: None})
        return losses[one] < losses[other] - CLEARLY

    assert climb(better) == best
    assert list(asked) == tried
    assert LEAST_L2 <= min(asked) <= max(asked) <= MOST_L2
    assert losses[best] < min(losses.values()) + CLEARLY


def schedule(where: Path, told: list[tuple[Any, ...]], **changes: Any) -> Schedule:
    settings = {"batch_size": 64, "epochs": 6, "rate": 1e-2, "half_scale_at": 0.0, "device": "cpu", **changes}
    return Schedule(
        SLOTS,
        clicks(600),
        clicks(300, seed=50),
        dtf=DtfConfig(widths=(8, 4), council=0),
        config=TrainConfig(**settings),
        seed=1,
        store=CheckpointStore(where, "toy", resume=False),
        progress=lambda *what: told.append(what),
    )


def scaled(label: np.ndarray, logits: np.ndarray) -> float:
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], label)
    return float(log_loss(label, fitted.predict_proba(logits[:, None])[:, 1]))


@pytest.mark.parametrize("monitor", ["log_loss", "auc"])
def test_tower_a_climbs_the_pair_decides_the_last_step_and_only_its_history_is_kept(
    tmp_path: Path, monitor: str
) -> None:
    torch.set_num_threads(1)
    told: list[tuple[Any, ...]] = []
    search = schedule(tmp_path / "search", told, monitor=monitor)
    with torch.random.fork_rng():
        found = search.search.pair()
    tried = [float(text) for text in dict.fromkeys(note.partition(" of")[0].removeprefix("L2 ") for *_, note in told)]
    assert len(tried) >= 3
    valid = clicks(300, seed=50)
    context, candidate = (torch.from_numpy(ids).long() for ids in (valid.context_ids, valid.candidate_ids))
    together, logits_a, towers, histories = {}, {}, {}, {}
    for l2 in tried:
        given = schedule(tmp_path / str(l2), [], monitor=monitor, table_l2=l2)
        with torch.random.fork_rng(), torch.no_grad():
            with torch.enable_grad():
                towers[l2] = given.gated_tower(), given.tower("tower_b", 1)
            a, b = (tower(context, candidate).numpy() for tower in towers[l2])
        histories[l2] = given.history
        pair = (a + b) / 2
        together[l2] = -roc_auc_score(valid.label, pair) if monitor == "auc" else scaled(valid.label, pair)
        logits_a[l2] = a
    # The climb's own rule on towers from elsewhere: tower A by itself, then the pair's mean by hand.
    stopped_by = "auc" if monitor == "auc" else "scaled_log_loss"
    top = climb(lambda one, other: gain(stopped_by, valid, logits_a[one], logits_a[other]).mean > CLEARLY)
    best = min([top, top / STEP] if top > 300 else [top], key=lambda l2: together[l2])
    assert search.config.first_table_l2 == search.config.table_l2 == best
    assert len(set(together.values())) > 1
    for tower, expected in zip((found.a, found.b), towers[best], strict=True):
        assert all(torch.equal(value, expected.state_dict()[key]) for key, value in tower.state_dict().items())
    assert search.history == [{**record, "table_l2": best} for record in histories[best]]


def test_a_given_l2_is_not_searched_for_and_no_prior_at_all_is_one(tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    given = schedule(tmp_path, told, epochs=1, table_l2=0.0)
    with torch.random.fork_rng():
        given.run()
    assert given.config.table_l2 == 0.0
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["fusion", "fusion_afresh", "tower_a", "tower_b"]
    assert "L2" not in told[-1][-1]


def test_a_run_keeps_the_l2_that_was_chosen_and_its_report_says_so(tiny_home: Path, tmp_path: Path) -> None:
    run = open_run(tiny_home / "run")
    assert load_config(tiny_home / "exp.toml").train.table_l2 is None
    chosen = run.config.train.table_l2
    assert chosen is not None
    shutil.copytree(run.path, tmp_path / "run")
    records = [record | {"table_l2": chosen} if record["phase"] == "tower_a" else record for record in run.history()]
    write_jsonl(tmp_path / "run" / "history.jsonl", records)
    told = f"under several L2 of their tables; shown are the best, under {chosen:g}."
    assert told in render_report(Run(tmp_path / "run", run.record))
