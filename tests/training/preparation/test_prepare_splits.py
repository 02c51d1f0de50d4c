"""Splits against brute force, labels by a rule, and progress for people."""

from __future__ import annotations

import io
import itertools
import re
import sys
import tomllib
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import made_up
import numpy as np
import polars as pl
import pytest
from made_up import prepared
from rich.console import Console
from rich.progress import Progress as Bars

import training.datasets.config
import training.datasets.synthetic
import training.datasets.table
from training.datasets.base import FrameSource, RawBatch, Table, TableSpec
from training.datasets.config import DataConfig, TimeSplit
from training.preparation.rows import SPLITS
from training.preparation.splits import OrderAssigner, RandomAssigner, splitmix64, time_assigner
from training.progress import ConsoleProgress, Quiet, console_progress

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REACTION_DATA_DIR", raising=False)


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


def test_a_random_split_follows_the_seed_and_its_shares(tmp_path: Path) -> None:
    made_up.write(tmp_path / "log.csv", made_up.rows(2000))
    config = made_up.config(split={"kind": "random", "valid": 0.2, "test": 0.1})
    one, again, two = (prepared(tmp_path, config, out=str(n), seed=seed) for n, seed in enumerate((1, 1, 2)))
    assert one.digest == again.digest
    assert one.info.files["train/label.npy"] != two.info.files["train/label.npy"]
    for data in (one, two):
        assert sum(data.info.rows.values()) == 2000
        # four standard deviations of a binomial
        assert abs(data.info.rows["valid"] - 400) < 4 * (2000 * 0.2 * 0.8) ** 0.5
        assert abs(data.info.rows["test"] - 200) < 4 * (2000 * 0.1 * 0.9) ** 0.5


def test_a_random_split_by_request_cuts_no_request(tmp_path: Path) -> None:
    made_up.write(tmp_path / "log.csv", made_up.rows(600))
    data = prepared(tmp_path, made_up.config(split={"kind": "random", "by": "request", "valid": 0.3, "test": 0.2}))
    groups = {name: set(np.asarray(data.split(name).group).tolist()) for name in SPLITS}  # type: ignore[arg-type]
    assert all(groups.values())
    for one, two in itertools.combinations(SPLITS, 2):
        assert not groups[one] & groups[two]
    assert sum(map(len, groups.values())) == 200


@pytest.mark.parametrize(
    ("times", "valid_from", "test_from"),
    [
        (["3", "1", "2", "10", "9", "9", "8", "7", "6", "5"], 9.0, 10.0),  # numbers, not text: 10 is the newest
        ([f"2024-01-{day:02d}" for day in (3, 1, 2, 10, 9, 9, 8, 7, 6, 5)], "2024-01-09", "2024-01-10"),
    ],
)
def test_a_split_by_time_puts_the_newest_last_and_cuts_no_instant(
    times: list[str], valid_from: Any, test_from: Any, tmp_path: Path
) -> None:
    rows = [{"y": str(n % 2), "t": t, "f": t} for t in times for n in range(2)]
    made_up.write(tmp_path / "t.csv", rows)
    section = {
        "dataset": "table",
        "path": "t.csv",
        "min_count": 1,
        "split": {"kind": "time", "column": "t", "valid": 0.2, "test": 0.1},
        "table": {"label": "y"},
        "fields": [{"name": "f", "kind": "categorical", "side": "context"}],
    }
    data = prepared(tmp_path, DataConfig.model_validate(section))
    comparable = [type(valid_from)(t) for t in times]
    expected = {
        "train": sum(t < valid_from for t in comparable) * 2,
        "valid": sum(valid_from <= t < test_from for t in comparable) * 2,
        "test": sum(t >= test_from for t in comparable) * 2,
    }
    assert data.info.rows == expected
    train = {t for t, value in zip(times, comparable, strict=True) if value < valid_from}
    assert set(data.encoder.vocabulary("f").tokens()) == train


def test_iso_times_are_ordered_by_their_instants_whatever_their_offsets_and_are_bounded() -> None:
    draw = np.random.default_rng(0)
    start = datetime(2025, 12, 31, tzinfo=UTC)
    instants = np.sort(draw.choice(10**6, 3000, replace=False))[draw.permutation(3000)]
    zones = [timezone(timedelta(minutes=int(m))) for m in draw.integers(-12 * 4, 14 * 4, 3000) * 15]
    moments = [start + timedelta(seconds=int(s)) for s in instants]
    texts = [m.astimezone(zone).isoformat() for m, zone in zip(moments, zones, strict=True)]
    texts[::3] = [m.strftime("%Y-%m-%dT%H:%M:%SZ") for m in moments[::3]]
    texts[1::3] = [m.strftime("%Y-%m-%d %H:%M:%S") for m in moments[1::3]]  # without an offset: UTC
    frame = pl.DataFrame({"y": ["0"] * 3000, "t": texts})
    table = Table(TableSpec("many", (), "y"), FrameSource(frame, "many", batch_rows=700))
    for most, close in ((10_000, 0), (500, 60)):
        made = time_assigner(table, "t", TimeSplit(kind="time", valid=0.1, test=0.2), Quiet(), most=most)
        split = made.assign(RawBatch(frame, "many"), 0)
        assert np.abs(np.bincount(split) - [2100, 300, 600]).max() <= close
        for older, newer in itertools.pairwise(range(3)):
            assert instants[split == older].max() < instants[split == newer].min()


def test_a_split_by_time_without_a_column_goes_by_the_order_of_the_rows(tmp_path: Path) -> None:
    raw = made_up.rows(50)
    made_up.write(tmp_path / "log.csv", raw)
    table = {"label": "click"}
    data = prepared(tmp_path, made_up.config(table=table, split={"kind": "time", "valid": 0.2, "test": 0.1}))
    assert data.info.rows == {"train": 35, "valid": 10, "test": 5}
    assert data.split("valid").label.tolist() == [int(row["click"]) for row in raw[35:45]]


def test_given_splits_are_files_or_a_column(tmp_path: Path) -> None:
    raw = made_up.rows(90)
    for name, part in (("a", raw[:50]), ("b", raw[50:70]), ("c", raw[70:])):
        made_up.write(tmp_path / f"{name}.csv", part)
    files = prepared(tmp_path, made_up.config("a.csv", split={"kind": "given", "valid": "b.csv", "test": "c.csv"}))
    named = [{**row, "part": "0" if n < 50 else "1" if n < 70 else "2"} for n, row in enumerate(raw)]
    made_up.write(tmp_path / "log.csv", named)
    by_column = {"kind": "given", "column": "part", "train": "0", "valid": "1", "test": "2"}
    column = prepared(tmp_path, made_up.config(split=by_column), out="column")
    assert files.info.rows == {"train": 50, "valid": 20, "test": 20}
    assert files.info.files == column.info.files
    none = prepared(tmp_path, made_up.config("a.csv", split={"kind": "given", "valid": "b.csv"}), out="no_test")
    assert none.splits == ("train", "valid")


# --- labels


def test_a_rule_makes_labels_of_numbers(tmp_path: Path) -> None:
    rows = [{"rating": rating, "f": "x"} for rating in ("5", "3.5", "4", "4.0", "0", "1e1")] * 5
    made_up.write(tmp_path / "t.csv", rows)
    section = {
        "dataset": "table",
        "path": "t.csv",
        "split": {"kind": "time"},
        "table": {"label": {"column": "rating", "at_least": 4}},
        "fields": [{"name": "f", "kind": "categorical", "side": "context"}],
    }
    data = prepared(tmp_path, DataConfig.model_validate(section))
    assert data.split("train").label.tolist() == [1, 0, 1, 1, 0, 1] * 4
