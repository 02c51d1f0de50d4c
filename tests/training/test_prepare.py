"""Preparation against brute force: every row on its own, through the encoder and through plain Python."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import made_up
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.features import FeatureEncoder, HashedVocabulary, NumericField, log_squared_edges, quantile_edges
from training.datasets.base import FrameSource, Table, TableSpec
from training.datasets.config import DataConfig, FieldConfig
from training.loader import PreparedData
from training.prepare import Limits, build_table, prepare, prepare_table
from training.readers import DelimitedSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from training.loader import Split

SPLITS = ("train", "valid", "test")


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REACTION_DATA_DIR", raising=False)


def prepared(root: Path, config: DataConfig, out: str = "data", seed: int = 1, **arguments: Any) -> PreparedData:
    return prepare(config, base=root, seed=seed, name="test", out=root / out, **arguments)


def split_rows(data: PreparedData, raw: Sequence[dict[str, str]], key: str = "ts") -> dict[str, list[dict[str, str]]]:
    """The raw rows of each split, found by brute force: the order within a split is the file's."""
    return {name: [row for row in raw if split_of(data, row, key) == name] for name in data.splits}


def split_of(data: PreparedData, row: dict[str, str], key: str) -> str:
    number = int(row[key]) - 1_700_000_000
    return "train" if number < 160 else "valid" if number < 180 else "test"


def encode_row_by_row(data: PreparedData, raw: Sequence[dict[str, str]]) -> dict[str, np.ndarray[Any, Any]]:
    """Each row alone through the encoder, as the service does it."""
    sources = {field["name"]: field.get("column", field["name"]) for field in made_up.FIELDS}
    out = {}
    for side in ("context", "candidate"):
        names = [column.name for column in data.encoder.columns(side)]
        rows = [data.encoder.encode_rows(side, [{name: row[sources[name]] for name in names}]) for row in raw]
        out[side] = np.concatenate(rows)
    return out


TIME = {"kind": "time"}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]], PreparedData]:
    root = tmp_path_factory.mktemp("log")
    raw = made_up.rows()
    made_up.write(root / "log.csv", raw)
    return root, raw, prepared(root, made_up.config(split=TIME))


Log = tuple["Path", list[dict[str, str]], PreparedData]


def test_columns_encode_as_every_row_does_on_its_own(log: Log) -> None:
    _, raw, data = log
    by_split = split_rows(data, raw)
    for name in SPLITS:
        split, expected = data.split(name), encode_row_by_row(data, by_split[name])
        assert np.array_equal(split.context_ids, expected["context"])
        assert np.array_equal(split.candidate_ids, expected["candidate"])
        assert split.label.tolist() == [int(row["click"]) for row in by_split[name]]
        assert split.weight is not None
        assert np.allclose(split.weight, [float(row["w"]) for row in by_split[name]])
        assert split.group is not None
        codes = dict(zip(split.group.tolist(), [r["request"] for r in by_split[name]], strict=True))
        assert len(codes) == len({row["request"] for row in by_split[name]})
        assert [codes[group] for group in split.group.tolist()] == [row["request"] for row in by_split[name]]


def test_vocabularies_hold_the_train_splits_tokens_by_count_and_text(log: Log) -> None:
    _, raw, data = log
    train = split_rows(data, raw)["train"]
    for name, min_count in (("user", 2), ("ad", 3), ("position", 2)):
        counts = Counter(row[name] for row in train if row[name])
        expected = sorted((token for token in counts if counts[token] >= min_count), key=lambda t: (-counts[t], t))
        assert data.encoder.vocabulary(name).tokens() == expected
    counts = Counter(tag for row in train for tag in [tag for tag in row["tags"].split("|") if tag][:3])
    expected = sorted((token for token in counts if counts[token] >= 2), key=lambda t: (-counts[t], t))
    assert data.encoder.vocabulary("tags").tokens() == expected
    hashed = data.encoder.vocabulary("ad_hash")
    assert isinstance(hashed, HashedVocabulary)
    assert hashed.buckets == 7


def test_values_that_are_always_cut_off_get_no_id(tmp_path: Path) -> None:
    rows = [{"y": str(number % 2), "m": "a|b||c" if number % 3 else "c|b|a|b"} for number in range(40)]
    made_up.write(tmp_path / "t.csv", rows)
    section = {
        "dataset": "table",
        "path": "t.csv",
        "split": {"kind": "time"},
        "table": {"label": "y"},
        "fields": [{"name": "m", "kind": "multi_valued", "side": "context", "max_values": 1}],
    }
    data = prepared(tmp_path, DataConfig.model_validate(section))
    assert data.encoder.vocabulary("m").tokens() == ["a", "c"]


def test_edges_are_fitted_on_the_train_split(log: Log) -> None:
    _, raw, data = log
    train = split_rows(data, raw)["train"]
    fields = {name: data.encoder.field(name) for name in ("hour", "price", "seen")}
    edges = {name: field.edges for name, field in fields.items() if isinstance(field, NumericField)}
    assert edges["hour"] == (6.0, 12.0, 18.0)
    assert edges["price"] == quantile_edges([float(row["price"]) for row in train if row["price"]], 4)
    assert edges["seen"] == log_squared_edges(max(float(row["seen"]) for row in train))
    buckets = Counter(sum(float(row["seen"]) >= edge for edge in edges["seen"]) for row in train)
    expected = sorted((str(bucket) for bucket in buckets if buckets[bucket] >= 2), key=lambda t: (-buckets[int(t)], t))
    assert data.encoder.vocabulary("seen").tokens() == expected


def test_the_record_says_what_was_made_of_what(log: Log) -> None:
    root, raw, data = log
    info = data.info
    assert info.rows == {"train": 320, "valid": 40, "test": 40}
    by_split = split_rows(data, raw)
    assert info.base_rate == {
        name: pytest.approx(np.mean([int(row["click"]) for row in by_split[name]])) for name in SPLITS
    }
    assert [source.path for source in info.sources] == ["log.csv"]
    assert info.sources[0].sha256 == hashlib.sha256((root / "log.csv").read_bytes()).hexdigest()
    assert info.features_digest == data.encoder.digest == FeatureEncoder.open(root / "data").digest
    assert info.columns["candidate"][4].model_dump() == {"name": "tags", "first": 4, "width": 3}
    assert (info.has_weight, info.has_group, info.group) == (True, True, "request")
    for name, file in info.files.items():
        assert hashlib.sha256((root / "data" / name).read_bytes()).hexdigest() == file.sha256
    written = {path.relative_to(root / "data").as_posix() for path in (root / "data").rglob("*") if path.is_file()}
    assert {name for name in written if not name.startswith("vocabularies/")} == {
        *info.files,
        "dataset.json",
        "features.json",
    }
    assert not [path for path in root.iterdir() if path.name.startswith(".")], "nothing is left beside it"


@pytest.mark.parametrize("split", [TIME, {"kind": "random", "valid": 0.2}, {"kind": "random", "by": "request"}])
def test_the_result_does_not_depend_on_chunks_or_limits(split: dict[str, Any], log: Log, tmp_path: Path) -> None:
    root, _, _ = log
    config = made_up.config(split=split)
    results = []
    for number, (chunk, kept, counted) in enumerate([(1 << 20, 1 << 29, 1 << 20), (900, 0, 40), (3000, 20_000, 10)]):
        table = build_table(config, root, seed=1)
        assert isinstance(table.source, DelimitedSource)
        table = replace(table, source=replace(table.source, chunk_bytes=chunk))
        limits = Limits(kept_bytes=kept, counted_rows=counted)
        out = tmp_path / str(number)
        results.append(prepare_table(table, config, base=root, seed=1, name="test", out=out, limits=limits))
    assert results[0].digest == results[1].digest == results[2].digest


def test_the_result_does_not_depend_on_the_format(log: Log) -> None:
    root, raw, data = log
    for name in ("log.tsv", "log.parquet"):
        made_up.write(root / name, raw)
        other = prepared(root, made_up.config(name, split=TIME), out=f"from_{name}")
        assert other.info.files == data.info.files
        assert other.encoder.digest == data.encoder.digest


def test_several_files_are_one_log(log: Log) -> None:
    root, raw, data = log
    (root / "parts").mkdir(exist_ok=True)
    for number, part in enumerate((raw[:150], raw[150:151], raw[151:])):
        made_up.write(root / "parts" / f"{number}.csv", part)
    other = prepared(root, made_up.config("parts/*.csv", split=TIME), out="from_parts")
    assert other.info.files == data.info.files
    assert [source.path for source in other.info.sources] == [f"parts/{number}.csv" for number in range(3)]


# --- one value, one token, whatever it came in


def test_a_value_has_the_same_id_from_csv_parquet_and_json(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "y": [0, 1] * 6,
            "text": ["007", "7", "14", "x"] * 3,
            "whole": [7, 14, 7, 2**62] * 3,
            "number": [1.5, 2.0, 1e-7, 12345678.0] * 3,
            "tags": [["a", "b"], ["b"], [], None] * 3,
            "codes": [[7, 14], [7], None, []] * 3,
            "split": ["train"] * 8 + ["valid"] * 4,
        },
        schema_overrides={"whole": pl.Int64, "codes": pl.List(pl.Int32)},
    )
    frame.write_parquet(tmp_path / "t.parquet")
    joined = [pl.col(name).cast(pl.List(pl.String)).list.join("|").fill_null("") for name in ("tags", "codes")]
    frame.with_columns(joined).write_csv(tmp_path / "t.csv")
    kinds = {"text": "categorical", "whole": "categorical", "number": "numeric"}
    fields = [{"name": name, "kind": kind, "side": "candidate"} for name, kind in kinds.items()]
    fields += [
        {"name": name, "kind": "multi_valued", "side": "candidate", "max_values": 2} for name in ("tags", "codes")
    ]
    made = {}
    for form in ("csv", "parquet"):
        config = DataConfig.model_validate(
            {
                "dataset": "table",
                "path": f"t.{form}",
                "min_count": 1,
                "split": {"kind": "given", "column": "split"},
                "table": {"label": "y"},
                "fields": fields,
            }
        )
        made[form] = prepared(tmp_path, config, out=form)
    csv, parquet = made["csv"], made["parquet"]
    assert csv.encoder.digest == parquet.encoder.digest
    for name in ("train", "valid"):
        assert np.array_equal(csv.split(name).candidate_ids, parquet.split(name).candidate_ids)
    # JSON as a client sends it, from each file's own sample
    for data in made.values():
        sample = [json.loads(line) for line in data.raw_sample.read_text(encoding="utf-8").splitlines()]
        ids = data.encoder.encode_rows("candidate", [row["candidate"] for row in sample])
        assert np.array_equal(ids, data.split("valid").candidate_ids[[row["row"] for row in sample]])
    text = csv.encoder.vocabulary("text")
    assert len({text.id("007"), text.id("7"), text.id("14")}) == 3
    rows = csv.encoder.encode_rows("candidate", [{"text": 14}, {"text": "14"}, {"text": "014"}])
    assert rows[0, 0] == rows[1, 0] != rows[2, 0] == 1


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=5)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(
        st.tuples(
            st.none() | texts,
            st.none() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False),
            st.none() | st.lists(texts.filter(lambda text: "|" not in text), max_size=4),
        ),
        min_size=4,
        max_size=12,
    ),
    batch_rows=st.integers(1, 7),
)
def test_any_values_encode_as_every_row_does_on_its_own(
    values: list[tuple[str | None, float | None, list[str] | None]],
    batch_rows: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("any")
    rows = [
        {"c": text, "n": None if number is None else repr(number), "m": None if tags is None else "|".join(tags)}
        for text, number, tags in values
    ]
    frame = pl.DataFrame(rows, schema=dict.fromkeys("cnm", pl.String)).with_columns(
        y=pl.Series([str(number % 2) for number in range(len(rows))]),
        s=pl.Series(["train", "train", "valid", "valid"] + ["train"] * (len(rows) - 4)),
    )
    fields = (
        FieldConfig(name="c", kind="categorical", side="context"),
        FieldConfig(name="n", kind="numeric", side="candidate", buckets=3),
        FieldConfig(name="m", kind="multi_valued", side="candidate", max_values=2),
    )
    table = Table(TableSpec("any", fields, "y"), FrameSource(frame, "any", batch_rows=batch_rows))
    config = DataConfig.model_validate(
        {"dataset": "synthetic", "min_count": 1, "split": {"kind": "given", "column": "s"}}
    )
    data = prepare_table(table, config, base=root, seed=0, name="any", out=root / "data")
    for name, here in (("train", [0, 1, *range(4, len(rows))]), ("valid", [2, 3])):
        split: Split = data.split(name)  # type: ignore[arg-type]
        picked = [rows[number] for number in here]
        context = data.encoder.encode_rows("context", [{"c": row["c"]} for row in picked])
        candidate = data.encoder.encode_rows("candidate", [{"n": row["n"], "m": row["m"]} for row in picked])
        assert np.array_equal(split.context_ids, context)
        assert np.array_equal(split.candidate_ids, candidate)


# --- splits


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


# --- the raw sample


def test_the_sample_holds_seldom_cases_and_encodes_to_the_splits_ids(log: Log, tmp_path: Path) -> None:
    _, _, data = log
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
    root, _, _ = log
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
    root, _, _ = log
    prepare(made_up.config(split=TIME), base=root, seed=1, name="t", out=tmp_path / "data")
    assert capfd.readouterr() == ("", "")
