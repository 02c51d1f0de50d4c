"""The door of the ablation: what it refuses, where it writes, and what a control is handed."""

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ablation.__main__ import DEFAULT_TASKS, HERE, finished, main
from benchmarks.ablation.run import Workshop
from benchmarks.ablation.schedules import ControlSettings
from benchmarks.accuracy.ledger import Ledger, Line, Metrics, Purpose, run_key
from benchmarks.accuracy.models import METHOD


class Stub(Workshop):
    """Trains nothing: the whole takes 100 steps a seed, and each run is recorded."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, int, str, int]] = []

    def key(self, name: str, seed: int, purpose: Purpose, control: ControlSettings | None = None) -> str:
        return run_key("toy", "0", name, purpose, {"control": str(control)}, seed=seed)

    def run(
        self, name: str, seed: int, purpose: Purpose, *, budget: int = 0, control: ControlSettings | None = None
    ) -> Line:
        self.runs.append((name, seed, purpose, budget))
        return Line(
            key=self.key(name, seed, purpose, control),
            task="toy",
            data="0",
            split="random",
            model=name,
            purpose=purpose,
            config={"method": METHOD},
            seed=seed,
            rows={},
            validation=Metrics(auc=0.8, log_loss=0.5),
            steps=budget or 100 * seed,
            cpu_seconds=1.0,
            created="2026-01-01",
            versions={},
        )


def test_a_control_is_handed_the_steps_that_the_whole_took_on_the_same_seed(tmp_path: Path) -> None:
    ledger, workshop = Ledger(tmp_path / "ledger.jsonl"), Stub()
    for seed in (3, 2):
        finished(ledger, workshop, "born_again", seed)
    finished(ledger, workshop, "without_gates", 2)
    runs = [run for run in workshop.runs if run[2] == "ablation"]
    # The whole of seed 1 is for the trials, which are all on that seed.
    assert sorted(runs) == [
        ("born_again", 2, "ablation", 200),
        ("born_again", 3, "ablation", 300),
        ("full", 1, "ablation", 0),
        ("full", 2, "ablation", 0),
        ("full", 3, "ablation", 0),
        ("without_gates", 2, "ablation", 0),
    ]
    trials = [run for run in workshop.runs if run[2] == "trial"]
    assert len(trials) > 1
    assert set(trials) == {("born_again", 1, "trial", 100)}
    told = list(workshop.runs)
    assert finished(ledger, workshop, "born_again", 3).steps == 300
    assert workshop.runs == told  # what is in the ledger is not run again


def run_door(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["ablation", *map(str, arguments)])
    main()


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What the door says when it refuses."""
    with pytest.raises(SystemExit) as done:
        run_door(monkeypatch, *arguments)
    assert done.value.code == 2
    return capsys.readouterr().err


def ledger_of(where: Path, purpose: Purpose = "ablation") -> Path:
    ledger = Ledger(where / "ledger.jsonl")
    ledger.append(Stub().run("full", 1, purpose))
    return ledger.path


def test_a_report_of_no_ledger_or_of_one_without_a_run_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for path, said in ((tmp_path / "missing.jsonl", "got no file"), (ledger_of(tmp_path, "seed"), "got none")):
        told = refused(monkeypatch, capsys, "--report-only", "--ledger", path, "--out", out)
        assert str(path) in told
        assert said in told
        assert not out.exists()


def test_a_broken_line_is_refused_by_file_and_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ledger_of(tmp_path)
    good = path.read_text(encoding="utf-8")
    path.write_text(good + '{"key": 1}\n' + good, encoding="utf-8")
    for mode in (["--report-only"], []):
        assert f"{path}, line 2: expected a run" in refused(monkeypatch, capsys, *mode, "--ledger", path)


def test_the_folder_of_the_report_is_made_and_a_file_in_its_place_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger, out = ledger_of(tmp_path), tmp_path / "new" / "folder"
    run_door(monkeypatch, "--report-only", "--ledger", ledger, "--out", out)
    assert "## toy" in (out / "ABLATION.md").read_text(encoding="utf-8")
    assert str(ledger) in refused(monkeypatch, capsys, "--report-only", "--ledger", ledger, "--out", ledger)


@pytest.mark.parametrize("seed", ["0", "6", "99"])
def test_a_seed_that_is_not_one_of_five_is_refused(
    seed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trained(*_: Any) -> None:
        raise AssertionError("it began to train")

    monkeypatch.setattr("benchmarks.ablation.__main__.Workshop", trained)
    told = refused(monkeypatch, capsys, "--seeds", "1", seed, "--ledger", tmp_path / "x", "--out", tmp_path / "out")
    assert "--seeds" in told
    assert seed in told


def test_the_tasks_that_the_present_method_is_shown_for_are_run_when_none_is_named() -> None:
    asked = {f"{name}-time" for name in ("movielens_latest_tags", "movielens_100k", "avazu")}
    assert asked | {"movielens_latest_tags-random", "movielens_100k-random"} <= set(DEFAULT_TASKS)


@pytest.mark.parametrize("ledger", [[], ["--ledger", str(HERE / ".." / "benchmarks" / "ablation.jsonl")]])
def test_another_experiment_does_not_go_into_the_pages_ledger(
    ledger: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(monkeypatch, capsys, "--variants", "full", "--set", "train.table_l2=1200", *ledger)
    assert "--set: expected a --ledger and --out of its own" in " ".join(told.split())
