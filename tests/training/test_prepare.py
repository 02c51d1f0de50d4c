"""Preparation against brute force: every row on its own, through the encoder and through plain Python."""

from __future__ import annotations

import hashlib
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
from made_up import TIME, prepared

from service.features import FeatureEncoder, HashedVocabulary, NumericField, log_squared_edges, quantile_edges
from training.datasets.base import FrameSource, Table, TableSpec
from training.datasets.config import DataConfig, FieldConfig
from training.loader import PreparedData
from training.prepare import Limits, build_table, prepare_table
from training.readers import DelimitedSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from training.loader import Split

SPLITS = ("train", "valid", "test")


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REACTION_DATA_DIR", raising=False)


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
