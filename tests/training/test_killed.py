"""A training that was killed: wherever that was, it goes on from there to the same end."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny
import torch

from training.config import load_config, save_config
from training.loader import PreparedData
from training.loop import TrainingResult, train_reaction

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]

CHILD = """
import os, signal, sys
from pathlib import Path
from training import loop
from training.config import load_config
from training.loader import PreparedData
from training.phases.phase import Phase

loop.CHECKPOINT_SECONDS = 0.0
train_step = Phase._step

def train(data, experiment, resume, workdir, phase, step):
    begun = False
    told = open(Path(workdir) / "told", "w")

    def die(self):
        nonlocal begun
        begun |= self.settings.name == phase and self.position.step == 0
        if self.settings.name == phase and self.position.step == int(step) and begun:
            os.kill(os.getpid(), signal.SIGKILL)
        train_step(self)

    def progress(name, done, *_):
        if name != "afe":
            print(name, done, file=told, flush=True)

    Phase._step = die
    loop.train_reaction(
        PreparedData.open(Path(data)),
        load_config(Path(experiment)),
        Path(workdir),
        resume=resume == "True",
        progress=progress,
    )

for line in sys.stdin:
    child = os.fork()
    if not child:
        train(*line.rstrip("\\n").split("\\t"))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Trains in a process of its own, told of on a line, and dies in it; libraries are loaded once for all of them."""


@pytest.fixture(scope="module")
def trainer() -> Iterator[subprocess.Popen[str]]:
    """What `killed` gives its trainings to."""
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(
        command, cwd=ROOT, env=tiny.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


def killed(trainer: subprocess.Popen[str], *training: object, phase: str, steps: list[int]) -> None:
    """Kill a training within a phase that it begins, between the second and the third of its evaluations.

    Args:
        trainer: Does it.
        *training: Its data, its experiment, whether it goes on, and its directory.
        phase: The phase.
        steps: At which it is evaluated.
    """
    print(*training, phase, steps[1] + 3, sep="\t", file=trainer.stdin, flush=True)
    assert int(trainer.stdout.readline()) == -signal.SIGKILL
    assert (Path(str(training[-1])) / "current.safetensors").exists()


def trained(data: Path, experiment: Path, workdir: Path, told: list[tuple[str, int]] | None = None) -> TrainingResult:
    """Train here, or go on where a list is given for what is told of phases."""

    def progress(name: str, done: int, *_: object) -> None:
        if told is not None and name != "afe":
            told.append((name, done))

    return train_reaction(
        PreparedData.open(data), load_config(experiment), workdir, resume=told is not None, progress=progress
    )


def evaluated(result: TrainingResult, phase: str) -> list[int]:
    """At which steps a phase was evaluated."""
    return [record["step"] for record in result.history if record["phase"] == phase]


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def same_training(one: TrainingResult, other: TrainingResult) -> bool:
    kept = ("history", "metrics", "table_l2", "half_scale_at", "share_below", "fusion_start")
    alike = all(getattr(one, name) == getattr(other, name) for name in kept)
    return alike and same_weights(one.form, other.form) and same_weights(one.pair, other.pair)


@pytest.mark.slow
def test_a_training_killed_again_and_again_goes_on_each_time_and_ends_bit_the_same(
    tiny_home: Path, trainer: subprocess.Popen[str], tmp_path: Path
) -> None:
    files = tiny_home / "data", tiny_home / "exp.toml"
    whole, workdir = trained(*files, tmp_path / "whole"), tmp_path / "killed"
    workdir.mkdir()
    # Two towers A of the search for what they are trained under, tower B, the fused model from its two beginnings.
    kills = ("tower_a", "tower_a", "tower_b", "fusion", "fusion")
    over: list[set[str]] = []
    for number, phase in enumerate(kills):
        killed(trainer, *files, bool(number), workdir, phase=phase, steps=evaluated(whole, phase))
        over.append({path.stem for path in workdir.glob("*.safetensors")} - {"current"})
        if number:  # what was over is not trained again, and what was under way goes on
            before = kills[number - 1]
            first = (workdir / "told").read_text(encoding="utf-8").splitlines()[0]
            assert first == f"{before} {evaluated(whole, before)[2]}"
    assert [len(names) for names in over[:2]] == [0, 1]
    assert [any(name.startswith("tower_b") for name in names) for names in over] == [False] * 3 + [True] * 2
    assert ["fusion" in names for names in over] == [False] * 4 + [True]
    assert all(one < other for one, other in itertools.pairwise(over))
    told: list[tuple[str, int]] = []
    resumed = trained(*files, workdir, told)
    assert told[0] == ("fusion", evaluated(whole, "fusion")[2])
    assert same_training(resumed, whole)


@pytest.mark.slow
def test_a_training_killed_in_a_tower_of_the_council_continues_to_the_bit_same_result(
    tiny_home: Path, trainer: subprocess.Popen[str], tmp_path: Path
) -> None:
    config = load_config(tiny_home / "exp.toml")
    config = config.model_copy(update={"dtf": config.dtf.model_copy(update={"council": 1})})
    save_config(config, tmp_path / "exp.toml")
    files = tiny_home / "data", tmp_path / "exp.toml"
    whole, workdir = trained(*files, tmp_path / "whole"), tmp_path / "killed"
    workdir.mkdir()
    for path in (tmp_path / "whole").glob("tower_[ab]_*"):
        shutil.copy(path, workdir)
    steps = evaluated(whole, "tower_b")  # a history names towers by their rank; any is evaluated after as many steps
    killed(trainer, *files, True, workdir, phase="tower_c", steps=steps)
    told: list[tuple[str, int]] = []
    resumed = trained(*files, workdir, told)
    assert told[0] == ("tower_c", steps[2])  # A and B were over
    assert same_training(resumed, whole)
