"""The search for the tables' L2: where it climbs, what it keeps, what it tells."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from model_toys import SLOTS, clicks

from training.checkpoint import CheckpointStore
from training.config import load_config
from training.dtf import DtfConfig
from training.files import write_jsonl
from training.report import render_report
from training.runs import Run, open_run
from training.schedule import Schedule
from training.table_prior import CLEARLY, LEAST_L2, MOST_L2, climb
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
    asked = []

    def attempt(l2: float) -> tuple[float, str]:
        asked.append(l2)
        return losses[l2], f"trained under {l2:g}"

    assert climb(attempt) == (best, f"trained under {best:g}")
    assert asked == tried
    assert LEAST_L2 <= min(asked) <= max(asked) <= MOST_L2
    assert losses[best] < min(losses.values()) + CLEARLY


def schedule(where: Path, told: list[tuple[Any, ...]], **changes: Any) -> Schedule:
    settings = {"batch_size": 64, "epochs": 4, "rate": 3e-3, "device": "cpu", **changes}
    return Schedule(
        SLOTS,
        clicks(400),
        clicks(300, seed=50),
        dtf=DtfConfig(widths=(8, 4)),
        config=TrainConfig(**settings),
        seed=1,
        store=CheckpointStore(where, "toy", resume=False),
        progress=lambda *what: told.append(what),
    )


@pytest.mark.parametrize("monitor", ["log_loss", "auc"])
def test_the_first_tower_is_the_best_of_those_tried_and_only_its_history_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, monitor: str
) -> None:
    torch.set_num_threads(1)
    told: list[tuple[Any, ...]] = []
    tried = []
    search = schedule(tmp_path / "search", told, monitor=monitor)
    own = search.tower

    def recorded(*arguments: Any, **named: Any) -> Any:
        tried.append(search.config.table_l2)
        return own(*arguments, **named)

    monkeypatch.setattr(search, "tower", recorded)
    with torch.random.fork_rng():
        tower = search.first_tower()
    assert len(tried) >= 3
    assert [*dict.fromkeys(note.partition(" of")[0] for *_, note in told)] == [f"L2 {l2:g}" for l2 in tried]
    scores, towers, histories = {}, {}, {}
    for l2 in tried:
        given = schedule(tmp_path / str(l2), [], monitor=monitor, table_l2=l2)
        with torch.random.fork_rng():
            towers[l2] = given.first_tower()
        histories[l2] = given.history
        values = [record[f"tower_a.{monitor}"] for record in given.history]
        scores[l2] = max(values) if monitor == "auc" else min(values)
    best = (max if monitor == "auc" else min)(scores, key=lambda l2: scores[l2])
    assert search.config.first_table_l2 == search.config.table_l2 == best
    assert len(set(scores.values())) > 1
    assert all(torch.equal(value, towers[best].state_dict()[key]) for key, value in tower.state_dict().items())
    assert search.history == [{**record, "table_l2": best} for record in histories[best]]


def test_a_given_l2_is_not_searched_for_and_no_prior_at_all_is_one(tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    given = schedule(tmp_path, told, epochs=1, table_l2=0.0)
    with torch.random.fork_rng():
        given.first_tower()
    assert given.config.table_l2 == 0.0
    assert [path.stem for path in tmp_path.iterdir()] == ["tower_a"]
    assert "L2" not in told[-1][-1]


def test_a_run_keeps_the_l2_that_was_chosen_and_its_report_says_so(tiny_home: Path, tmp_path: Path) -> None:
    run = open_run(tiny_home / "run")
    assert load_config(tiny_home / "exp.toml").train.table_l2 is None
    chosen = run.config.train.table_l2
    assert chosen is not None
    shutil.copytree(run.path, tmp_path / "run")
    records = [record | {"table_l2": chosen} if record["phase"] == "tower_a" else record for record in run.history()]
    write_jsonl(tmp_path / "run" / "history.jsonl", records)
    told = f"under several L2 of its tables; shown is the best, under {chosen:g}."
    assert told in render_report(Run(tmp_path / "run", run.record))
