"""The search: what it starts from, reads, keeps and writes."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
import tiny

from training.__main__ import app
from training.baseline import fit_yardstick
from training.config import load_config
from training.loader import PreparedData
from training.loop import train_reaction
from training.models.base import FieldSlot
from training.tuning.search import Search, TuningError, TuningExtraError
from training.tuning.space import applied
from training.tuning.tried import Tried, choose, finalists, served_parameters
from training.tuning.tune import tune

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from training.tuning.tried import Found

EXPERIMENT = tiny.EXPERIMENT.replace("[8, 8]", "[4, 4]").replace("epochs = 3", "epochs = 1\npatience = 1")
EXPERIMENT = EXPERIMENT.replace("council = 0", "council = 1")
TRIALS = 3


def quiet(*_: object) -> None:
    """Tell nobody."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with exp.toml and data/, to be read only."""
    place = tmp_path_factory.mktemp("tuning")
    tiny.write_experiment(place, EXPERIMENT, tiny.rows(600))
    done = tiny.training_here("prepare", "exp.toml", "--out", "data", cwd=place)
    assert done.returncode == 0, done.stderr
    return place


def search(home: Path, out: Path, progress: Callable[..., None] = quiet, **more: Any) -> Found:
    return tune(home / "exp.toml", home / "data", out, trials=TRIALS, parameters=2000, progress=progress, **more)


@pytest.fixture(scope="module")
def told() -> dict[int, set[str]]:
    """What the undisturbed search told of fused models: trials that were over -> what each one's began from."""
    return {}


@pytest.fixture(scope="module")
def whole(home: Path, told: dict[int, set[str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Path]:
    """An undisturbed search, and what it wrote."""
    out = tmp_path_factory.mktemp("whole") / "tuned.toml"

    def progress(phase: str, done: int, _total: int, note: str) -> None:
        if phase == "trials":
            told[done] = set()
        elif phase == "fusion":
            told[max(told)].add(note.partition(": ")[0] if ": " in note else "")

    return search(home, out, progress), out


def outcomes(found: Found) -> list[tuple[object, ...]]:
    return [(t.number, t.overrides, t.state, t.scores, t.parameters) for t in found.trials] + [(found.chosen,)]


def test_the_first_trial_is_the_experiment_as_it_is(home: Path, whole: tuple[Found, Path], tmp_path: Path) -> None:
    first = whole[0].trials[0]
    assert (first.number, first.overrides) == (0, {})
    config, data = load_config(home / "exp.toml"), PreparedData.open(home / "data")
    assert load_config(whole[1]).dtf.council == config.dtf.council == 1
    pair_alone = config.dtf.model_copy(update={"council": 0})
    for seed, score in first.scores.items():
        alone = train_reaction(
            data,
            config.model_copy(update={"seed": seed, "dtf": pair_alone}),
            tmp_path / str(seed),
            resume=False,
            progress=quiet,
            yardstick=fit_yardstick(data, config.seed),
        )
        assert alone.metrics["validation"]["fused"]["log_loss"] == score
        pair_alone = pair_alone.model_copy(update={"fusion_start": alone.fusion_start})


@pytest.mark.usefixtures("whole")
def test_what_a_model_begins_from_is_found_out_by_the_first_trial_alone(told: dict[int, set[str]]) -> None:
    assert told == {0: {"from the towers", "afresh"}, **{done: {""} for done in range(1, TRIALS + 1)}}


def test_trials_are_compared_with_the_towers_that_the_first_one_kept_by_what_stops_them(
    home: Path, tmp_path: Path
) -> None:
    config, data = load_config(home / "exp.toml"), PreparedData.open(home / "data")
    pair_alone = config.dtf.model_copy(update={"council": 0})
    train = config.train.model_copy(update={"epochs": 4, "patience": 4})
    config = config.model_copy(update={"train": train, "dtf": pair_alone})
    made = Search(data, config, tmp_path / "search", quiet)
    made.run(1)
    (trial,) = made._study.get_trials()
    alone = train_reaction(
        data, config, tmp_path / "w", resume=False, progress=quiet, yardstick=fit_yardstick(data, config.seed)
    )
    expected = {}
    for number, key in enumerate(("tower_a.scaled_log_loss", "tower_b.scaled_log_loss", "fused.log_loss")):
        values = [
            record[key] for record in alone.history if record["phase"] == ("tower_a", "tower_b", "fusion")[number]
        ]
        expected |= {number * 10_000 + place: min(values[: place + 1]) for place in range(len(values))}
    assert trial.intermediate_values == expected


def test_what_is_written_is_the_experiment_with_the_winners_overrides(home: Path, whole: tuple[Found, Path]) -> None:
    found, out = whole
    tuned, start = load_config(out), load_config(home / "exp.toml")
    assert tuned.model_copy(update={"data": start.data}) == applied(start, found.best.overrides)
    assert tuned.data.path == str((home / "log.csv").resolve())  # it lies in another directory
    report = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert [trial["number"] for trial in report["trials"]] == [trial.number for trial in found.trials]
    assert report["chosen"] == found.chosen
    assert sum(trial.state != "too large" for trial in found.trials) == TRIALS
    assert all((trial.parameters > 2000) == (trial.state == "too large") for trial in found.trials)
    assert sorted(path.name for path in out.parent.iterdir()) == ["tuned.json", "tuned.toml", "tuned.tuning"]


def test_a_killed_search_goes_on_to_the_same_end_and_none_ever_opens_the_test_split(
    home: Path, whole: tuple[Found, Path], tmp_path: Path
) -> None:
    copy, left = tmp_path / "home", tmp_path / "left.tuning"
    shutil.copytree(home, copy)
    for path in (copy / "data/test").iterdir():
        path.write_bytes(b"?" * path.stat().st_size)
    with pytest.raises(Exception, match="expected a NumPy array"):
        PreparedData.open(copy / "data").split("test")

    def copy_in_the_middle(phase: str, done: int, *_: object) -> None:
        # What a power cut would leave: the folder as it is in the middle of the second trial's second phase.
        running = tmp_path / "tuned.tuning"
        if phase == "tower_b" and done and any(running.glob("training-*")) and not left.exists():
            study = optuna.load_study(study_name="tune", storage=f"sqlite:///{running / 'study.db'}")
            if len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) == 1:
                shutil.copytree(running, left)

    assert outcomes(search(copy, tmp_path / "tuned.toml", copy_in_the_middle)) == outcomes(whole[0])
    assert list(left.glob("training-*/tower_a.safetensors"))
    trained: list[str] = []
    resumed = search(copy, tmp_path / "left.toml", lambda phase, *_: trained.append(phase))
    assert trained.index("tower_b") < trained.index("tower_a")  # the first phase was not trained again
    assert outcomes(resumed) == outcomes(whole[0])


def test_ctrl_c_leaves_what_was_found_and_the_same_command_goes_on(
    home: Path, whole: tuple[Found, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tuned.toml"
    command = ("tune", home / "exp.toml", "--data", home / "data", "--out", out, "--trials", TRIALS)
    with monkeypatch.context() as patched:
        judge = Search._judge

        def stop(self: Search, trial: Any, *more: Any) -> None:
            if trial.user_attrs["number"]:
                raise KeyboardInterrupt
            judge(self, trial, *more)

        patched.setattr(Search, "_judge", stop)
        done = tiny.training_here(*map(str, command), "--parameters", "2000", cwd=tmp_path)
    assert done.returncode == 130
    assert f"{out} has the best so far" in done.stderr
    assert load_config(out).train == load_config(home / "exp.toml").train
    done = tiny.training_here(*map(str, command), "--parameters", "2000", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "as it was" in done.stdout
    report = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert report["chosen"] == whole[0].chosen
    assert [trial["overrides"] for trial in report["trials"]] == [trial.overrides for trial in whole[0].trials]


def test_a_search_stops_when_its_time_is_over(home: Path, tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="came to its end, got none"):
        search(home, tmp_path / "tuned.toml", minutes=0.0)
    assert not (tmp_path / "tuned.toml").exists()


def test_another_experiment_does_not_go_on_with_a_search(home: Path, whole: tuple[Found, Path], tmp_path: Path) -> None:
    shutil.copytree(whole[1].parent, tmp_path / "w")
    with pytest.raises(TuningError, match="with other limit"):
        tune(home / "exp.toml", home / "data", tmp_path / "w/tuned.toml", trials=1, progress=quiet)
    shutil.rmtree(tmp_path / "w/tuned.tuning")
    with pytest.raises(TuningError, match="does not exist yet"):
        search(home, tmp_path / "w/tuned.toml")


def test_without_the_extra_the_message_says_how_to_get_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(TuningExtraError, match=r"pip install 'reaction-ctr\[tune\]'"):
        search(home, tmp_path / "tuned.toml")
    assert app.registered_commands  # the door itself needs no extra


def tried(number: int, **scores: float) -> Tried:
    by_seed = {int(seed[1:]): score for seed, score in scores.items()}
    return Tried(number, {}, "complete" if scores else "stopped early", by_seed, 100, 1.0)


def test_near_ties_go_to_further_seeds_and_the_experiment_as_it_was_with_them() -> None:
    trials = [tried(0, s1=0.5), tried(1, s1=0.4004), tried(2, s1=0.4), tried(3), tried(4, s1=0.402)]
    assert [trial.number for trial in finalists(trials, "log_loss", 1)] == [2, 1, 0]
    assert finalists([tried(0, s1=0.4), tried(1, s1=0.5)], "log_loss", 1) == []
    assert [t.number for t in finalists([tried(0, s1=0.7), tried(1, s1=0.8), tried(2, s1=0.75)], "auc", 1)] == [1, 0]


def test_the_mean_over_seeds_decides_between_finalists() -> None:
    trials = [tried(0, s1=0.5, s2=0.5), tried(1, s1=0.41, s2=0.41), tried(2, s1=0.40, s2=0.43)]
    assert choose(trials, "log_loss", 1) == 1
    assert choose(trials, "auc", 1) == 0


def test_luck_on_the_searched_seed_alone_does_not_replace_the_experiment_as_it_was() -> None:
    assert choose([tried(0, s1=0.5, s2=0.45, s3=0.45), tried(1, s1=0.3, s2=0.46, s3=0.46)], "log_loss", 1) == 0
    assert choose([tried(0, s1=0.5, s2=0.45, s3=0.45), tried(1, s1=0.3, s2=0.44, s3=0.45)], "log_loss", 1) == 1


def test_the_parameters_of_a_trial_are_those_of_its_merged_tower() -> None:
    slots = [FieldSlot("a", "context", 0, 1, rows=10, dim=2), FieldSlot("b", "candidate", 0, 1, rows=7, dim=4)]
    weights = [np.zeros((6, 5)), np.zeros(5), np.zeros((5, 3)), np.zeros(3), np.zeros((3, 1)), np.zeros(1)]
    tables = [np.zeros((10, 2)), np.zeros((7, 4))]
    assert served_parameters(slots, (5, 3)) == sum(array.size for array in weights + tables)
