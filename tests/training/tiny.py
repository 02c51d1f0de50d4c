"""A tiny click log and the real commands on it, for tests that need a run directory."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from training import __main__ as door

if TYPE_CHECKING:
    from training.config import ExperimentConfig

ROOT = Path(__file__).resolve().parents[2]

COLUMNS = (
    "click",
    "shown_at",
    "request",
    "importance",
    "user",
    "<script>",
    "ad",
    "copy_of_ad",
    "price",
    "tags",
    "position",
)

EXPERIMENT = """
format = 1
name = "tiny"
seed = 3

[data]
dataset = "table"
path = "log.csv"
min_count = 2
split = { kind = "time", valid = 0.2, test = 0.2 }
negative_sampling_rate = 0.5

[data.table]
label = "click"
time = "shown_at"
group = "request"
weight = "importance"

[[data.fields]]
name = "user"
kind = "categorical"
side = "context"

[[data.fields]]
name = "<script>"
kind = "categorical"
side = "context"

[[data.fields]]
name = "ad"
kind = "categorical"
side = "candidate"

[[data.fields]]
name = "copy_of_ad"
kind = "categorical"
side = "candidate"

[[data.fields]]
name = "price"
kind = "numeric"
side = "candidate"
buckets = 8

[[data.fields]]
name = "tags"
kind = "multi_valued"
side = "candidate"
max_values = 2

[[data.fields]]
name = "position"
kind = "categorical"
side = "candidate"
serving_constant = "1"

[dtf]
widths = [8, 8]
council = 0  # quick

[train]
batch_size = 64
epochs = 3
evaluations = 1
"""


def rows(count: int = 1500, seed: int = 0) -> list[dict[str, str]]:
    """Clicks that follow from user and ad together, price, tags and position."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        user, ad, position = draw.randrange(12), draw.randrange(8), draw.randrange(1, 4)
        tags = draw.sample(["new", "hot", "sale", "rare"], draw.randrange(4))
        price = draw.lognormvariate(2, 1)
        odds = 0.2 + 1.6 * ((user + ad) % 3 == 0) + 0.8 * ("sale" in tags) - 1.0 * (position - 1) - 0.02 * price
        found.append(
            {
                "click": str(int(draw.random() < 1 / (1 + 2.718281828**-odds))),
                "shown_at": str(1_700_000_000 + 7 * (number // 5)),
                "request": f"r{number // 5}",
                "importance": f"{draw.uniform(0.5, 2):.3f}",
                "user": f"u{user}" if draw.random() > 0.05 else "",
                "<script>": draw.choice("abc"),
                "ad": f"ad{ad}",
                "copy_of_ad": f"x{ad}",
                "price": f"{price:.2f}",
                "tags": "|".join(tags),
                "position": str(position),
            }
        )
    return found


def write_log(path: Path, log: list[dict[str, str]]) -> Path:
    """Write rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(log)
    return path


def write_experiment(directory: Path, text: str = EXPERIMENT, log: list[dict[str, str]] | None = None) -> Path:
    """A directory with exp.toml and log.csv."""
    directory.mkdir(parents=True, exist_ok=True)
    write_log(directory / "log.csv", rows() if log is None else log)
    path = directory / "exp.toml"
    path.write_text(text, encoding="utf-8")
    return path


def environment(**more: str) -> dict[str, str]:
    """The environment of a command: ours without REACTION_*, and the package importable from anywhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("REACTION_")}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "NO_COLOR": "1", **more}


def brief(config: ExperimentConfig) -> ExperimentConfig:
    """An experiment that searches for nothing and reads its rows once, for tests of something else."""
    train = {"table_l2": 300.0, "half_scale_at": 0.0, "epochs": 1}
    changes = {"train": train, "afe": {"share_below": 0.0}, "dtf": {"fusion_start": "towers"}}
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=update) for name, update in changes.items()}
    )


def training_here(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same door without starting a process (torch takes seconds to import)."""
    out, err = io.StringIO(), io.StringIO()
    command = ["python -m training", *map(str, arguments)]
    code: object = 0
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", command),
        mock.patch.dict(os.environ, environment(), clear=True),
    ):
        try:
            door.main()
        except SystemExit as done:
            code = done.code
    return subprocess.CompletedProcess(command, int(str(code or 0)), out.getvalue(), err.getvalue())


def training(*arguments: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m training` and return what it said."""
    command = [sys.executable, "-W", "error", "-m", "training", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(**more), capture_output=True, text=True, check=False, timeout=300
    )
