"""Splits of data too large for tests, and progress for people: the parts of preparation that stand alone."""

from __future__ import annotations

import io
import itertools
import re
import sys
import tomllib
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from rich.progress import Progress as Bars

import training.datasets.config
import training.datasets.synthetic
import training.datasets.table
from training.datasets.base import FrameSource, RawBatch, Table, TableSpec
from training.datasets.config import DataConfig, TimeSplit
from training.progress import ConsoleProgress, Quiet, console_progress
from training.splits import OrderAssigner, RandomAssigner, splitmix64, time_assigner

if TYPE_CHECKING:
    from types import ModuleType


def test_splitmix64_gives_its_published_numbers() -> None:
    # The reference implementation's first outputs for the seed 1234567: each step adds the golden gamma.
    golden = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + step * golden) % 2**64 for step in range(3)], dtype=np.uint64)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_rows_split_depends_on_its_number_and_not_on_the_batch() -> None:
    frame = pl.DataFrame({"x": range(1000)})
    for assigner in (RandomAssigner(3, 0.2, 0.1), OrderAssigner(700, 900)):
        whole = assigner.assign(RawBatch(frame, "x"), 0)
        cuts = [0, 1, 300, 301, 999, 1000]
        pieces = [assigner.assign(RawBatch(frame[low:high], "x"), low) for low, high in itertools.pairwise(cuts)]
        assert np.array_equal(np.concatenate(pieces), whole)
        assert set(whole.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("batch_rows", [500, 20_000])
def test_too_many_instants_are_cut_on_a_grid_near_the_shares_asked_for(batch_rows: int) -> None:
    rng = np.random.default_rng(0)
    times = 1.7e9 + rng.exponential(1e6, 20_000)
    frame = pl.DataFrame({"y": ["0"] * times.size, "t": times})
    table = Table(TableSpec("many", (), "y"), FrameSource(frame, "many", batch_rows=batch_rows))
    assigner = time_assigner(table, "t", TimeSplit(kind="time", valid=0.1, test=0.2), Quiet(), most=1000)
    split = assigner.assign(RawBatch(frame, "many"), 0)
    shares = np.bincount(split, minlength=3) / times.size
    assert np.allclose(shares, [0.7, 0.1, 0.2], atol=0.01)
    assert times[split == 0].max() < times[split == 1].min()
    assert times[split == 1].max() < times[split == 2].min()
    exact = time_assigner(table, "t", TimeSplit(kind="time", valid=0.1, test=0.2), Quiet())
    assert np.bincount(exact.assign(RawBatch(frame, "many"), 0)).tolist() == [14_000, 2_000, 4_000]


@pytest.mark.parametrize("module", [training.datasets.config, training.datasets.table, training.datasets.synthetic])
def test_the_toml_that_a_docstring_shows_is_valid(module: ModuleType) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", module.__doc__ or "", re.DOTALL)
    assert blocks
    for block in blocks:
        DataConfig.model_validate(tomllib.loads(block)["data"])


def test_progress_is_quiet_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with console_progress() as progress:
        progress.start("reading", 3)
        progress.advance(3)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_sees_a_bar_a_stage() -> None:
    screen = io.StringIO()
    with Bars(console=Console(file=screen, force_terminal=True, width=100), auto_refresh=False) as bars:
        progress = ConsoleProgress(bars)
        progress.start("counting values")
        progress.advance(500)
        progress.start("encoding", 1000)
        progress.advance(250)
        bars.refresh()
        done = {task.description: (task.completed, task.total) for task in bars.tasks}
        assert done == {"counting values": (500, 500), "encoding": (250, 1000)}
    assert "counting values" in screen.getvalue()
    assert "encoding" in screen.getvalue()
