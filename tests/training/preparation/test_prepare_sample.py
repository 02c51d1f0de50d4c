"""The raw sample of the validation split, and data that continues a run."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import made_up
import numpy as np
import polars as pl
import pytest
from made_up import TIME, prepared

from training.datasets.base import FrameSource, Table, TableSpec
from training.datasets.config import DataConfig, FieldConfig
from training.prepare import prepare, prepare_table

if TYPE_CHECKING:
    from pathlib import Path

    from training.loader import PreparedData


Log = tuple["Path", "PreparedData"]


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REACTION_DATA_DIR", raising=False)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    root = tmp_path_factory.mktemp("sample")
    made_up.write(root / "log.csv", made_up.rows())
    return root, prepared(root, made_up.config(str(root / "log.csv"), split=TIME))


# --- the raw sample


def test_the_sample_holds_seldom_cases_and_encodes_to_the_splits_ids(log: Log, tmp_path: Path) -> None:
    _, data = log
    sample = [json.loads(line) for line in data.raw_sample.read_text(encoding="utf-8").splitlines()]
    assert [row["row"] for row in sample] == sorted({row["row"] for row in sample})
    valid = data.split("valid")
    places = [row["row"] for row in sample]
    for side, ids in (("context", valid.context_ids), ("candidate", valid.candidate_ids)):
        assert np.array_equal(data.encoder.encode_rows(side, [row[side] for row in sample]), ids[places])  # type: ignore[arg-type]
    first = sample[0]
    assert isinstance(first["candidate"]["tags"], list | None)
    assert all(isinstance(row["candidate"]["seen"], int) for row in sample), "numbers as numbers"
    assert all(isinstance(row["context"]["user"], str | None) for row in sample)


def test_a_small_sample_of_a_large_split_still_has_the_seldom_rows(tmp_path: Path) -> None:
    count = 60_000
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "y": pl.Series(rng.integers(0, 2, count)).cast(pl.String),
            "c": ["a"] * count,
            "n": pl.Series(rng.uniform(1, 2, count).round(6)).cast(pl.String),
            "s": ["train"] * 100 + ["valid"] * (count - 100),
        }
    )
    odd = {
        30_000: ("c", None),
        40_000: ("c", "never seen"),
        50_000: ("n", None),
        51_000: ("n", "2.0"),
        52_000: ("n", "1.9999999"),
    }
    for row, (name, value) in odd.items():
        frame[row, name] = value
    fields = (
        FieldConfig(name="c", kind="categorical", side="context"),
        FieldConfig(name="n", kind="numeric", side="candidate", edges=(2.0,)),
    )
    config = DataConfig.model_validate({"dataset": "synthetic", "split": {"kind": "given", "column": "s"}})
    found = []
    for seed in (1, 1, 2):
        table = Table(TableSpec("large", fields, "y"), FrameSource(frame, "large"))
        out = tmp_path / str(len(found))
        data = prepare_table(table, config, base=tmp_path, seed=seed, name="large", out=out)
        sample = [json.loads(line) for line in data.raw_sample.read_text().splitlines()]
        found.append([row["row"] for row in sample])
        assert len(sample) <= 2000
        assert len(sample) > 1990
        assert {row - 100 for row in odd} <= set(found[-1])
    assert found[0] == found[1] != found[2]


# --- continuing a run


def test_new_tokens_follow_the_old_ones_and_edges_stay(tmp_path: Path) -> None:
    old, new = made_up.rows(300, seed=0), made_up.rows(300, seed=1)
    for number, row in enumerate(new):
        row["ad"] = f"new{number % 5}" if number % 3 else row["ad"]
        row["price"] = str(float(row["price"] or 1.0) * 100)
    made_up.write(tmp_path / "old.csv", old)
    made_up.write(tmp_path / "new.csv", new)
    first = prepared(tmp_path, made_up.config("old.csv", split=TIME), out="first")
    second = prepared(tmp_path, made_up.config("new.csv", split=TIME), out="second", init_from=tmp_path / "first")
    for name in ("user", "ad", "tags", "position", "price"):
        before, after = first.encoder.vocabulary(name).tokens(), second.encoder.vocabulary(name).tokens()
        assert after[: len(before)] == before
    train = [row for row in new if int(row["ts"]) < 1_700_000_000 + 120]
    counts = Counter(row["ad"] for row in train)
    old_ads = first.encoder.vocabulary("ad").tokens()
    fresh = [token for token in counts if counts[token] >= 3 and token not in old_ads]
    assert second.encoder.vocabulary("ad").tokens()[len(old_ads) :] == sorted(fresh, key=lambda t: (-counts[t], t))
    assert second.encoder.field("price") == first.encoder.field("price")
    assert second.info.continued_digest == first.encoder.digest
    alone = prepared(tmp_path, made_up.config("new.csv", split=TIME), out="alone")
    assert alone.encoder.field("price") != first.encoder.field("price")


def test_progress_is_reported_stage_by_stage(log: Log, tmp_path: Path) -> None:
    root, _ = log
    stages: list[tuple[str, int | None]] = []
    steps: Counter[str] = Counter()

    class Listener:
        def start(self, stage: str, total: int | None = None) -> None:
            stages.append((stage, total))

        def advance(self, steps_: int = 1) -> None:
            steps[stages[-1][0]] += steps_

    prepare(made_up.config(split=TIME), base=root, seed=1, name="t", out=tmp_path / "data", progress=Listener())
    assert stages == [("reading ts", None), ("counting values", None), ("fitting vocabularies", 8), ("encoding", 400)]
    assert steps == {"reading ts": 400, "counting values": 400, "fitting vocabularies": 8, "encoding": 400}


def test_the_library_prints_nothing(log: Log, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root, _ = log
    prepare(made_up.config(split=TIME), base=root, seed=1, name="t", out=tmp_path / "data")
    assert capfd.readouterr() == ("", "")
