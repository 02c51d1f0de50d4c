"""The published data sets' real files, read independently with the standard library."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import lzma
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from training.datasets._negatives import NegativeOptions, with_negatives
from training.datasets.config import DataConfig
from training.datasets.criteo import COLUMNS, COUNTS
from training.datasets.movielens_1m import read_pairs
from training.prepare import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from training.loader import PreparedData

pytestmark = pytest.mark.data


def prepared(tmp_path: Path, **section: Any) -> PreparedData:
    return prepare(DataConfig.model_validate(section), base=tmp_path, seed=1, name="t", out=tmp_path / "data")


def check_sample(data: PreparedData) -> list[dict[str, Any]]:
    """The sample's raw rows encode, one by one, to the ids of their rows."""
    sample = [json.loads(line) for line in data.raw_sample.read_text(encoding="utf-8").splitlines()]
    valid = data.split("valid")
    for row in sample[::10]:
        context = data.encoder.encode_rows("context", [row["context"]])
        candidate = data.encoder.encode_rows("candidate", [row["candidate"]])
        assert np.array_equal(context[0], valid.context_ids[row["row"]])
        assert np.array_equal(candidate[0], valid.candidate_ids[row["row"]])
    return sample


def test_criteo_encodes_as_its_rows_do(data_dir: Path, tmp_path: Path) -> None:
    with lzma.open(data_dir / "criteo" / "train.tsv.xz", "rt") as file:
        lines = list(itertools.islice(file, 4000))
    (tmp_path / "part.tsv.xz").write_bytes(lzma.compress("".join(lines).encode(), preset=0))
    data = prepared(tmp_path, dataset="criteo", path=str(tmp_path / "part.tsv.xz"), split={"kind": "time"})
    rows = [dict(zip(COLUMNS, line.rstrip("\n").split("\t"), strict=True)) for line in lines]
    train = data.split("train")
    assert train.rows == 3200
    assert train.label.tolist() == [int(row["label"]) for row in rows[:3200]]
    names = {side: [column.name for column in data.encoder.columns(side)] for side in ("context", "candidate")}  # type: ignore[arg-type]
    for side, ids in (("context", train.context_ids), ("candidate", train.candidate_ids)):
        picked = [{name: row[name] for name in names[side]} for row in rows[:3200:16]]
        assert np.array_equal(data.encoder.encode_rows(side, picked), ids[:3200:16])  # type: ignore[arg-type]
    counts = Counter(row["C14"] for row in rows[:3200] if row["C14"])
    expected = sorted((token for token in counts if counts[token] >= 2), key=lambda t: (-counts[t], t))
    assert data.encoder.vocabulary("C14").tokens() == expected
    sample = check_sample(data)
    assert {type(row["context"][COUNTS[0]]) for row in sample} == {int, type(None)}


def test_avazu_is_read_whole_and_split_by_the_hour(data_dir: Path, tmp_path: Path) -> None:
    data = prepared(tmp_path, dataset="avazu", path="avazu/train.csv.gz", split={"kind": "time"})
    with gzip.open(data_dir / "avazu" / "train.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(data.info.rows.values()) == len(rows)
    assert sum(data.info.rows[s] * data.info.base_rate[s] for s in data.splits) == pytest.approx(
        sum(int(row["click"]) for row in rows)
    )
    cut = rows[data.info.rows["train"]]["hour"]  # the file is in the order of time
    train = [row for row in rows if row["hour"] < cut]
    assert data.info.rows["train"] == len(train), "no hour is cut"
    counts = Counter(row["app_id"] for row in train)
    expected = sorted((token for token in counts if counts[token] >= 2), key=lambda t: (-counts[t], t))
    assert data.encoder.vocabulary("app_id").tokens() == expected
    check_sample(data)


def test_movielens_100k_is_read_whole(data_dir: Path, tmp_path: Path) -> None:
    data = prepared(tmp_path, dataset="movielens_100k", path="movielens_100k")
    lines = (data_dir / "movielens_100k" / "u.data").read_text().splitlines()
    assert sum(data.info.rows.values()) == len(lines) == 100_000
    positives = sum(int(line.split("\t")[2]) >= 4 for line in lines)
    assert sum(data.info.rows[s] * data.info.base_rate[s] for s in data.splits) == pytest.approx(positives)
    genres = {line.split("|")[0] for line in (data_dir / "movielens_100k" / "u.genre").read_text().splitlines() if line}
    assert set(data.encoder.vocabulary("genres").tokens()) <= genres
    assert len(data.encoder.vocabulary("genres")) > 18
    sample = check_sample(data)
    assert all(isinstance(row["context"]["age"], int) for row in sample)
    assert all(isinstance(row["candidate"]["genres"], list) for row in sample)


def test_movielens_latest_is_split_by_time(data_dir: Path, tmp_path: Path) -> None:
    data = prepared(tmp_path, dataset="movielens_latest", path="movielens_latest", split={"kind": "time"})
    ratings = pl.read_parquet(data_dir / "movielens_latest" / "ratings.parquet")
    newest = ratings.sort("timestamp", descending=True).head(data.info.rows["test"])
    assert data.info.base_rate["test"] == pytest.approx((newest.get_column("rating") >= 4).mean())
    check_sample(data)


def test_movielens_tags_have_two_negatives_each(data_dir: Path, tmp_path: Path) -> None:
    data = prepared(tmp_path, dataset="movielens_latest_tags", path="movielens_latest")
    tags = pl.read_parquet(data_dir / "movielens_latest" / "tags.parquet")
    distinct = tags.select("userId", "movieId", "tag").filter(pl.col("tag") != "").n_unique()
    assert sum(data.info.rows.values()) == 3 * distinct
    check_sample(data)


def test_movielens_1m_negatives_are_movies_the_user_never_saw(data_dir: Path) -> None:
    pairs = read_pairs(data_dir / "movielens_1m" / "interactions_user_item.parquet")
    assert pairs.height == 1_000_209
    some = pairs.filter(pl.col("user_id").str.len_chars() <= 2)
    rows = with_negatives(some, ["user_id"], "item_id", NegativeOptions())
    assert rows.height == 3 * some.height
    assert rows.n_unique() == rows.height
    seen = set(some.rows())
    assert not any(row[:2] in seen for row in rows.filter(pl.col("label") == "0").rows())
