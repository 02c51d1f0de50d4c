"""`python -m training` as a user meets it: the whole path on a tiny table, and what is said of wrong input."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    Log = list[dict[str, str]]


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a command that refused its input: exit code 2, no traceback, nothing on standard output."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    return done.stderr.removeprefix("error: ").rstrip("\n")


def swap(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


def label_two(log: Log) -> None:
    log[3]["click"] = "2"


def label_missing(log: Log) -> None:
    log[3]["click"] = ""


def one_class_valid(log: Log) -> None:
    for row in log[800:1300]:
        row["click"] = "0"


def all_train(log: Log) -> None:
    for row in log:
        row["position"] = "train"


def price_text(log: Log) -> None:
    log[5]["price"] = "cheap"


def negative_weight(log: Log) -> None:
    log[7]["importance"] = "-1"


@pytest.mark.parametrize(
    ("text", "log", "messages"),
    [
        pytest.param(swap("log.csv", "gone.csv"), None, ["data.path", "'gone.csv'", "got none"], id="missing file"),
        pytest.param(
            swap('name = "ad"', 'name = "ad"\ncolumn = "banner"'),
            None,
            ["log.csv", "field 'ad'", "expected a column 'banner'", "got the columns click, shown_at"],
            id="missing column",
        ),
        pytest.param(swap('label = "click"', 'label = "clicked"'), None, ["label", "'clicked'"], id="missing label"),
        pytest.param(
            None, label_two, ["log.csv: line 5", "'click'", "expected a label of 0 or 1", "got '2'"], id="label not 0/1"
        ),
        pytest.param(None, label_missing, ["log.csv: line 5", "'click'", "got a missing value"], id="label missing"),
        pytest.param(
            swap(
                'split = { kind = "time", valid = 0.2, test = 0.2 }', 'split = { kind = "given", column = "position" }'
            ),
            all_train,
            ["log.csv: valid split: expected rows, got none (of 1500 in all)"],
            id="empty split",
        ),
        pytest.param(
            None,
            one_class_valid,
            ["log.csv: valid split", "'click'", "expected both labels, got only 0"],
            id="one class",
        ),
        pytest.param(None, list.clear, ["log.csv: expected rows, got none"], id="empty table"),
        pytest.param(
            swap('split = { kind = "time", valid = 0.2, test = 0.2 }', 'split = { kind = "random" }'),
            list.clear,
            ["log.csv: train split: expected rows, got none (of 0 in all)"],
            id="empty table, random split",
        ),
        pytest.param(
            swap("[train]", "[train]\nbatchsize = 3"),
            None,
            ["exp.toml: train.batchsize", "unknown key (did you mean batch_size?)"],
            id="unknown key",
        ),
        pytest.param(
            swap("seed = 3", "seed = 3.5"), None, ["exp.toml: seed: expected a valid integer, got 3.5"], id="type"
        ),
        pytest.param(swap("[data]", "[data"), None, ["exp.toml: line 6", "expected TOML"], id="syntax"),
        pytest.param(
            None, price_text, ["log.csv: line 7", "'price'", "expected a number", "'cheap'"], id="text as a number"
        ),
        pytest.param(None, negative_weight, ["log.csv: line 9", "'importance'", "got '-1'"], id="negative weight"),
    ],
)
def test_prepare_refuses_wrong_input_with_one_message_and_leaves_nothing(
    tmp_path: Path, text: Callable[[str], str] | None, log: Callable[[Log], None] | None, messages: list[str]
) -> None:
    rows = tiny.rows()
    if log is not None:
        log(rows)
    tiny.write_experiment(tmp_path, tiny.EXPERIMENT if text is None else text(tiny.EXPERIMENT), rows)
    told = refused(tiny.training_here("prepare", "exp.toml", "--out", "data", cwd=tmp_path))
    for message in messages:
        assert message in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp.toml", "log.csv"]


def test_prepare_refuses_a_path_that_exists_and_leaves_it_alone(tmp_path: Path) -> None:
    tiny.write_experiment(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    told = refused(tiny.training_here("prepare", "exp.toml", "--out", "data", cwd=tmp_path))
    assert "data: expected a path that does not exist" in told
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine.txt"]


def test_options_of_a_data_set_that_are_wrong_are_refused_by_key(tmp_path: Path) -> None:
    text = 'format = 1\nname = "x"\n[data]\ndataset = "synthetic"\noptions = { rows = "many" }\n'
    (tmp_path / "exp.toml").write_text(text)
    told = refused(tiny.training_here("prepare", "exp.toml", "--out", "data", cwd=tmp_path))
    assert "rows" in told
    assert "integer" in told


def test_a_refusal_is_exit_code_2_and_one_line_for_the_shell_too(tmp_path: Path) -> None:
    told = refused(tiny.training("prepare", "no.toml", "--out", "data", cwd=tmp_path))
    assert told == "no.toml: expected a TOML file, got no such file or directory"


def test_a_debug_run_shows_where_an_error_was_raised(tmp_path: Path) -> None:
    done = tiny.training("prepare", "no.toml", "--out", "data", cwd=tmp_path, REACTION_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ConfigFileError: no.toml: expected a TOML file" in done.stderr


@pytest.fixture
def home(tiny_home: Path, tmp_path: Path) -> Path:
    """A copy of the experiment and its prepared data, to train in."""
    for name in ("exp.toml", "log.csv"):
        shutil.copy(tiny_home / name, tmp_path / name)
    shutil.copytree(tiny_home / "data", tmp_path / "data")
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


TRAIN = ("train", "exp.toml", "--data", "data", "--out", "run")


def test_a_training_that_is_interrupted_says_how_to_go_on_and_ends_as_if_it_never_was(
    home: Path, tiny_home: Path
) -> None:
    command = [sys.executable, "-W", "error", "-m", "training", *TRAIN]
    process = subprocess.Popen(command, cwd=home, env=tiny.environment(), stderr=subprocess.PIPE, text=True)
    checkpoints = home / "run.partial" / "checkpoints"
    deadline = time.monotonic() + 120
    while not any(checkpoints.glob("*.safetensors")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped; what was trained so far is in run.partial" in told
    assert "continue with: python -m training train exp.toml --data data --out run --resume" in told
    assert "Traceback" not in told
    assert not (home / "run").exists()

    assert "an unfinished training is there; continue it with --resume" in refused(tiny.training_here(*TRAIN, cwd=home))
    told = refused(tiny.training_here(*TRAIN, "--resume", "--seed", "4", cwd=home))
    assert told == "run.partial: cannot resume: seed: expected 3 (as it was started), got 4"
    assert "run.partial" in {path.name for path in home.iterdir()}

    done = tiny.training_here(*TRAIN, "--resume", cwd=home)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in home.iterdir()) == ["data", "exp.toml", "log.csv", "run"]
    for name in ("weights.safetensors", "pair.safetensors", "validation.safetensors"):
        assert (home / "run" / name).read_bytes() == (tiny_home / "run" / name).read_bytes(), name
    for name in ("metrics.json", "history.jsonl", "afe.json", "reference.json"):
        assert (home / "run" / name).read_bytes() == (tiny_home / "run" / name).read_bytes(), name


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc, where nothing can be written")
def test_an_output_path_where_nothing_can_be_written_is_refused(home: Path) -> None:
    for command in (("prepare", "exp.toml"), TRAIN[:-2]):
        for out in ("/proc/x/y", "/proc/y", "log.csv/y"):
            told = refused(tiny.training_here(*command, "--out", out, cwd=home))
            assert told.startswith(f"{out}: expected a writable parent directory, got "), told
    assert sorted(path.name for path in home.iterdir()) == ["data", "exp.toml", "log.csv"]


def test_train_refuses_a_run_that_exists_data_of_another_experiment_and_no_data(home: Path) -> None:
    (home / "taken").mkdir()
    told = refused(tiny.training_here(*TRAIN[:-1], "taken", cwd=home))
    assert told == "taken: expected a path that does not exist yet, got an existing one"
    told = refused(tiny.training_here("train", "exp.toml", "--data", "nowhere", "--out", "run", cwd=home))
    assert "nowhere" in told
    assert "expected a prepared data set" in told
    change(home / "exp.toml", "min_count = 2", "min_count = 3")
    told = refused(tiny.training_here(*TRAIN, cwd=home))
    assert told == "data: data.min_count: expected 2 (as it was prepared), got 3 in the experiment"
    change(home / "exp.toml", "min_count = 3", "min_count = 2")
    change(home / "exp.toml", '"log.csv"', '"gone.csv"')
    assert "data: data.path: expected 'log.csv' (as it was prepared)" in refused(tiny.training_here(*TRAIN, cwd=home))
    assert sorted(path.name for path in home.iterdir()) == ["data", "exp.toml", "log.csv", "taken"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_training_that_fails_before_its_first_checkpoint_leaves_nothing(home: Path) -> None:
    told = refused(tiny.training_here(*TRAIN, "--device", "cuda", cwd=home))
    assert told == "train.device: expected a CUDA device, got none; use 'auto' or 'cpu'"
    assert sorted(path.name for path in home.iterdir()) == ["data", "exp.toml", "log.csv"]


def test_a_field_to_keep_that_is_none_is_refused_before_anything_is_trained(home: Path) -> None:
    change(home / "exp.toml", "[dtf]", '[afe]\nkeep = ["copy_of_add"]\n\n[dtf]')
    for command in (TRAIN, ("analyze", "data", "--config", "exp.toml")):
        told = refused(tiny.training_here(*command, cwd=home))
        assert told.startswith("afe.keep: expected a field of the data (user, <script>, ad, copy_of_ad")
        assert told.endswith("got 'copy_of_add' (did you mean 'copy_of_ad'?)")
    assert sorted(path.name for path in home.iterdir()) == ["data", "exp.toml", "log.csv"]


def test_a_resume_of_what_was_never_begun_is_refused_and_names_where_it_looked(home: Path) -> None:
    told = refused(tiny.training_here(*TRAIN[:-1], "rnu", "--resume", cwd=home))
    assert told == (
        "rnu.partial: cannot resume: expected an unfinished training, got none; to start one, leave out --resume"
    )
    assert sorted(path.name for path in home.iterdir()) == ["data", "exp.toml", "log.csv"]


def test_a_budget_that_pays_for_no_table_is_one_message(home: Path) -> None:
    change(home / "exp.toml", "[dtf]", "[afe]\nbudget = 7\n\n[dtf]")
    for command in (TRAIN, ("analyze", "data", "--config", "exp.toml")):
        told = refused(tiny.training_here(*command, cwd=home))
        assert re.fullmatch(r"afe\.budget: expected at least \d+ \(one dimension a field\), got 7", told)
    assert sorted(path.name for path in home.iterdir()) == ["data", "exp.toml", "log.csv"]


def test_a_resume_on_other_data_is_refused(home: Path) -> None:
    (home / "run.partial").mkdir()
    start = {"format": "reaction-partial-run", "id": "x", "created": "x", "asked": {"data_digest": "0"}}
    (home / "run.partial" / "start.json").write_text(json.dumps(start))
    told = refused(tiny.training_here(*TRAIN, "--resume", cwd=home))
    assert told.startswith("run.partial: cannot resume: ")


def test_evaluate_prints_the_models_as_a_table_and_as_json(tiny_home: Path) -> None:
    shown = tiny.training_here("evaluate", "run", cwd=tiny_home)
    assert shown.returncode == 0, shown.stderr
    for word in ("Test: 300 rows", "Tower A", "Pair", "Fused", "LR baseline", "AUC", "GAUC", "NDCG@10"):
        assert word in shown.stdout
    stored = json.loads(tiny.training_here("evaluate", "run", "--json", cwd=tiny_home).stdout)
    measured = json.loads(tiny.training_here("evaluate", "run", "--data", "data", "--json", cwd=tiny_home).stdout)
    assert stored["models"].keys() == measured["models"].keys()
    for model, metrics in stored["models"].items():
        assert measured["models"][model] == pytest.approx(metrics, abs=1e-9)
        assert f"{metrics['auc']:.4f}" in shown.stdout


def test_evaluate_refuses_a_split_without_numbers_and_data_with_other_features(home: Path, tiny_home: Path) -> None:
    run = tiny_home / "run"
    told = refused(tiny.training_here("evaluate", run, "--split", "train", cwd=home))
    assert "train: expected a split it was measured on, got none; give --data" in told
    change(home / "exp.toml", "min_count = 2", "min_count = 300")
    assert tiny.training_here("prepare", "exp.toml", "--out", "other", cwd=home).returncode == 0
    told = refused(tiny.training_here("evaluate", run, "--data", "other", cwd=home))
    assert "other: features digest: expected" in told


def test_analyze_says_the_same_of_a_run_its_data_and_its_experiment(tiny_home: Path) -> None:
    found = {
        source: json.loads(tiny.training_here("analyze", source, *more, "--json", cwd=tiny_home).stdout)
        for source, more in {"run": [], "data": ["--config", "exp.toml"], "exp.toml": []}.items()
    }
    for source, analysis in found.items():
        assert analysis.pop("source") == source
    assert found["run"] == found["data"] == found["exp.toml"]
    assert found["run"]["groups"] == [{"kept": "ad", "copies": [["copy_of_ad", 1.0]]}]
    assert {row["name"]: row["fate"] for row in found["run"]["fields"]}["<script>"] == "dropped"
    shown = tiny.training_here("analyze", "run", cwd=tiny_home).stdout
    for word in ("Information about the label (900 rows", "<script>", "p-value", "copy_of_ad (100.0%)", "noise: "):
        assert word in shown


def test_analyze_refuses_what_is_neither_experiment_nor_data_nor_run(tmp_path: Path) -> None:
    assert "expected a run directory" in refused(tiny.training_here("analyze", tmp_path, cwd=tmp_path))
    assert "expected a TOML file" in refused(tiny.training_here("analyze", "no.toml", cwd=tmp_path))


def test_daily_retraining_keeps_ids_and_starts_from_the_run(home: Path, tiny_home: Path) -> None:
    log = tiny.rows(seed=1)
    for row in log[:200]:
        row["user"] = "newcomer"
    tiny.write_log(home / "log.csv", log)
    run = tiny_home / "run"
    assert tiny.training_here("prepare", "exp.toml", "--out", "next", "--init-from", run, cwd=home).returncode == 0
    done = tiny.training_here("train", "exp.toml", "--data", "next", "--out", "grown", "--init-from", run, cwd=home)
    assert done.returncode == 0, done.stderr
    record = json.loads((home / "grown" / "run.json").read_text())
    assert record["init_from"] == json.loads((run / "run.json").read_text())["id"]
    phases = {json.loads(line)["phase"] for line in (home / "grown" / "history.jsonl").read_text().splitlines()}
    assert phases == {"tower_a", "tower_b", "fusion"}


def test_the_documented_table_experiment_is_true(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text((tiny.ROOT / "training" / "experiments" / "table.toml").read_text())
    names = {"shown_at": "shown_at", "request": "request", "user": "user", "device": "<script>", "ad": "ad"}
    names |= {"click": "click", "price": "price", "tags": "tags", "position": "position"}
    lines = [",".join(names), *(",".join(row[column] for column in names.values()) for row in tiny.rows())]
    (tmp_path / "clicks.csv").write_text("\n".join(lines) + "\n")
    done = tiny.training_here("prepare", "mine.toml", "--out", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "prepared data (6 fields)" in done.stdout
