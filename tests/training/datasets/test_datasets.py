"""Published data sets on small made-up files of their formats, and the [data] section."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from training.datasets import DATASETS
from training.datasets._negatives import NegativeOptions, sample_negatives
from training.datasets.base import BuildContext, FrameSource, Table
from training.datasets.config import DataConfig, FieldConfig
from training.preparation.rows import DataError, DataFileError, DataValueError
from training.prepare import build_table

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REACTION_DATA_DIR", raising=False)


def build(root: Path, **section: Any) -> Table:
    return build_table(DataConfig.model_validate(section), root, seed=0)


def rows_of(table: Table, *columns: str) -> list[tuple[Any, ...]]:
    names = columns or table.source.columns
    return [row for batch in table.source.batches(names) for row in batch.frame.rows()]


def sides(table: Table) -> dict[str, str]:
    return {field.name: field.side for field in table.spec.fields}


# --- the [data] section

FIELD = {"name": "f", "kind": "categorical", "side": "context"}
TABLE = {"dataset": "table", "path": "t.csv", "table": {"label": "y"}, "fields": [FIELD]}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({**TABLE, "pth": "x"}, "pth"),
        ({**TABLE, "fields": [{**FIELD, "kind": "text"}]}, "'categorical', 'numeric' or 'multi_valued'"),
        ({**TABLE, "fields": [{**FIELD, "edges": [1.0]}]}, "edges is for numeric fields, got kind 'categorical'"),
        ({**TABLE, "fields": [FIELD, FIELD]}, r"expected different field names, got \['f', 'f'\]"),
        ({**TABLE, "fields": [{**FIELD, "kind": "numeric", "edges": [2.0, 1.0]}]}, "expected ascending edges"),
        ({**TABLE, "fields": [{**FIELD, "kind": "numeric", "edges": [float("nan")]}]}, "expected finite edges"),
        ({**TABLE, "fields": [{**FIELD, "kind": "numeric", "edges": [1.0], "buckets": 3}]}, "got both"),
        ({**TABLE, "fields": [{**FIELD, "hash_buckets": 8, "min_count": 2}]}, "no meaning for a hashed field"),
        ({**TABLE, "min_count": 0}, "greater than or equal to 1"),
        ({**TABLE, "negative_sampling_rate": 0.0}, "greater than 0"),
        ({**TABLE, "split": {"kind": "random", "valid": 0.6, "test": 0.4}}, "expected valid [+] test below 1"),
        ({**TABLE, "split": {"kind": "random", "valid": 0.0}}, "expected a validation share above 0"),
        ({**TABLE, "split": {"kind": "given"}}, "expected split.column, or files in split.valid"),
        ({**TABLE, "split": {"kind": "given", "train": "a", "valid": "b"}}, "the train split's files are data.path"),
        ({**TABLE, "split": {"kind": "given", "column": "s", "valid": ["a", "b"]}}, "one value a split"),
        ({**TABLE, "table": {"label": "y", "columns": ["a"]}}, "names are for files without a header"),
        ({**TABLE, "table": {"label": "y", "header": False}}, "a file without a header needs their names"),
        ({**TABLE, "path": None}, "needs path"),
        ({"dataset": "criteo", "path": "x", "table": {"label": "y"}}, r"\[data.table\] is for dataset = \"table\""),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate(section)


def test_an_unknown_data_set_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.dataset: expected one of synthetic, table, criteo.*got 'kriteo'"):
        build(tmp_path, dataset="kriteo")


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.options: expected none for 'criteo', got rows"):
        build(tmp_path, dataset="criteo", path="x", options={"rows": 3})
    with pytest.raises(DataError, match=r"data\.options\.negative"):
        build(tmp_path, dataset="movielens_1m", path="x", options={"negative": 3})


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in {"synthetic", "table"}])
def test_a_published_data_set_needs_its_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path: expected .*, got no path"):
        build(tmp_path, dataset=name)
    what = "a folder" if name.startswith("movielens") else "a file"
    with pytest.raises(DataFileError, match=f"expected {what} at 'nowhere', got none; looked for"):
        build(tmp_path, dataset=name, path="nowhere")


# --- the synthetic generator comes in by the same door


def test_a_frame_is_sliced_and_derived_batch_by_batch() -> None:
    frame = pl.DataFrame({"a": [str(number) for number in range(7)]})
    source = FrameSource(frame, "made up", batch_rows=3, derive=lambda part: part.with_columns(b=pl.col("a") + "!"))
    batches = list(source.batches(["b"]))
    assert source.columns == ("a", "b")
    assert [batch.frame.get_column("b").to_list() for batch in batches] == [
        ["0!", "1!", "2!"],
        ["3!", "4!", "5!"],
        ["6!"],
    ]
    assert batches[1].where(2) == "made up: row 5"


# --- Criteo and Avazu


def test_criteo_reads_its_forty_columns_and_keeps_the_published_sides(tmp_path: Path) -> None:
    row = ["1", *(str(number) for number in range(13)), *(f"{number:08x}" for number in range(26))]
    empty = ["0", *[""] * 39]
    content = "".join("\t".join(cells) + "\n" for cells in (row, empty))
    (tmp_path / "train.tsv.gz").write_bytes(gzip.compress(content.encode()))
    table = build(tmp_path, dataset="criteo", path="train.tsv.gz")
    assert rows_of(table) == [tuple(row), ("0", *[None] * 39)]
    kinds = {field.name: field.kind for field in table.spec.fields}
    assert [kinds[f"I{number}"] for number in range(1, 14)] == ["numeric"] * 13
    assert [kinds[f"C{number}"] for number in range(1, 27)] == ["categorical"] * 26
    shared = {f"I{number}" for number in range(1, 8)} | {f"C{number}" for number in range(1, 20)}
    assert {name for name, side in sides(table).items() if side == "context"} == shared
    assert table.spec.ordered


def test_avazu_takes_hour_and_weekday_out_of_its_hour(tmp_path: Path) -> None:
    names = (
        "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
        "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
    )
    lines = [names, *(f"7,0,{hour}," + ",".join(["x"] * 21) for hour in ("14102100", "14102623"))]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    table = build(tmp_path, dataset="avazu", path="train.csv")
    # 21 October 2014 was a Tuesday, 26 October a Sunday.
    assert rows_of(table, "weekday", "hour_of_day") == [("2", "00"), ("7", "23")]
    assert rows_of(table, "C14", "hour") == [("x", "14102100"), ("x", "14102623")]
    assert table.spec.time == "hour"
    assert {name for name, side in sides(table).items() if side == "candidate"} == {f"C{n}" for n in range(14, 22)}
    assert sides(table)["site_id"] == sides(table)["hour_of_day"] == "context"
    (tmp_path / "train.csv").write_text("\n".join([*lines, lines[1].replace("14102100", "1410210")]) + "\n")
    with pytest.raises(DataValueError, match=r"train\.csv: line 4: column 'hour': expected an hour as YYMMDDHH"):
        rows_of(table, "weekday")


def test_an_experiment_may_replace_a_published_field(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("\t".join(["0"] * 40) + "\n")
    changed = {"name": "I1", "kind": "numeric", "side": "context", "buckets": 5}
    added = {"name": "I1_exact", "column": "I1", "kind": "categorical", "side": "context"}
    table = build(tmp_path, dataset="criteo", path="t.tsv", fields=[changed, added])
    assert table.spec.fields[0] == FieldConfig.model_validate(changed)
    assert table.spec.fields[-1].source == "I1"
    assert len(table.spec.fields) == 40


# --- MovieLens


def write_100k(root: Path) -> None:
    (root / "u.data").write_text("1\t2\t4\t100\n2\t1\t3\t50\n1\t9\t5\t70\n")
    (root / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n")
    genres = [f"g{number}" for number in range(19)]
    (root / "u.genre").write_text("".join(f"{name}|{number}\n" for number, name in enumerate(genres)) + "\n")
    flags = [["1", "1"] + ["0"] * 17, ["0"] * 18 + ["1"]]
    items = [("1", "Amélie (1995)", "01-Jan-1995"), ("2", "No date", "")]
    lines = ["|".join([*item, "", "url", *flag]) for item, flag in zip(items, flags, strict=True)]
    (root / "u.item").write_bytes(("\n".join(lines) + "\n").encode("latin-1"))


def test_movielens_100k_joins_users_and_movies(tmp_path: Path) -> None:
    write_100k(tmp_path)
    table = build(tmp_path, dataset="movielens_100k", path=".")
    assert rows_of(table, "user_id", "age", "occupation", "item_id", "year", "genres", "rating") == [
        ("1", "24", "technician", "2", None, "g18", "4"),
        ("2", "53", "other", "1", "1995", "g0|g1", "3"),
        ("1", "24", "technician", "9", None, None, "5"),  # a movie that is not listed
    ]
    assert table.spec.label_column == "rating"
    assert sides(table)["zip"] == "context"
    assert sides(table)["genres"] == sides(table)["item_id"] == "candidate"


def test_a_movielens_file_of_another_layout_is_named(tmp_path: Path) -> None:
    write_100k(tmp_path)
    (tmp_path / "u.user").write_text("1|24|M|technician|85711\n2|53|F\n")
    with pytest.raises(DataFileError, match=r"u\.user: line 2: expected 5 columns, got 3"):
        build(tmp_path, dataset="movielens_100k", path=".")
    (tmp_path / "u.user").unlink()
    with pytest.raises(DataFileError, match=r"expected a file named u\.user, got none"):
        build(tmp_path, dataset="movielens_100k", path=".")


def write_1m(root: Path, *, ratings: bool) -> set[tuple[str, str]]:
    rng = np.random.default_rng(3)
    seen = {(str(user), str(item)) for user in range(1, 9) for item in rng.choice(40, 6, replace=False)}
    pairs = sorted(seen)
    if ratings:
        (root / "ratings.dat").write_text(
            "".join(f"{user}::{item}::5::{7 * n}\n" for n, (user, item) in enumerate(pairs))
        )
    else:
        frame = pl.DataFrame(pairs, schema=["userID", "movieID"], orient="row")
        frame.write_parquet(root / "interactions_user_item.parquet")
    (root / "users.dat").write_text("".join(f"{user}::F::25::10::48067\n" for user in range(1, 9)))
    (root / "movies.dat").write_bytes(
        "".join(f"{n}::Café {n} (19{60 + n})::Drama|War\n" for n in range(40)).encode("latin-1")
    )
    return seen


@pytest.mark.parametrize("ratings", [True, False])
def test_movielens_1m_adds_two_unseen_movies_a_positive(ratings: bool, tmp_path: Path) -> None:
    seen = write_1m(tmp_path, ratings=ratings)
    table = build(tmp_path, dataset="movielens_1m", path=".")
    names = ("user_id", "item_id", "label", "year", "genres", "gender")
    rows = rows_of(table, *names)
    positives = [row[:2] for row in rows if row[2] == "1"]
    negatives = [row[:2] for row in rows if row[2] == "0"]
    assert set(positives) == seen
    assert len(positives) == len(seen)
    assert len(negatives) == 2 * len(seen)
    assert len(set(negatives)) == len(negatives), "without replacement"
    assert not set(negatives) & seen
    for user in {pair[0] for pair in seen}:
        assert sum(pair[0] == user for pair in negatives) == 12
    assert all(row[3] == str(1960 + int(row[1])) and row[4:] == ("Drama|War", "F") for row in rows)
    assert rows == rows_of(
        build(tmp_path, dataset="movielens_1m", path="."), *["user_id", "item_id", "label", "year", "genres", "gender"]
    )
    other = build(tmp_path, dataset="movielens_1m", path=".", options={"seed": 1})
    assert rows_of(other, "item_id") != [row[1:2] for row in rows]
    assert table.spec.time == ("timestamp" if ratings else None)


def write_latest(root: Path, form: str) -> None:
    tables = {
        "ratings": pl.DataFrame(
            {"userId": [1, 1, 2], "movieId": [7, 8, 7], "rating": [4.0, 3.5, 5.0], "timestamp": [30, 20, 10]}
        ),
        "movies": pl.DataFrame(
            {"movieId": [7, 8], "title": ["A (1999)", "B"], "genres": ["Comedy|Drama", "(no genres listed)"]}
        ),
        "tags": pl.DataFrame(
            {
                "userId": [1, 1, 2, 2, 2],
                "movieId": [7, 7, 7, 8, 8],
                "tag": ["x", "y", "x", "z", "z"],
                "timestamp": [1, 2, 3, 4, 5],
            }
        ),
    }
    for name, frame in tables.items():
        path = root / f"{name}.{form}"
        frame.write_parquet(path) if form == "parquet" else frame.write_csv(path)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_movielens_latest_reads_the_release_and_its_parquet_form_alike(form: str, tmp_path: Path) -> None:
    write_latest(tmp_path, form)
    table = build(tmp_path, dataset="movielens_latest", path=".")
    rows = [tuple(map(str, row)) for row in rows_of(table, "userId", "movieId", "year", "genres", "rating")]
    assert rows == [
        ("1", "7", "1999", "Comedy|Drama", "4.0"),
        ("1", "8", "None", "None", "3.5"),
        ("2", "7", "1999", "Comedy|Drama", "5.0"),
    ]
    assert [field.source for field in table.spec.fields] == ["userId", "movieId", "year", "genres"]


def test_movielens_tags_adds_two_tags_that_the_user_did_not_give_the_movie(tmp_path: Path) -> None:
    write_latest(tmp_path, "parquet")
    table = build(tmp_path, dataset="movielens_latest_tags", path=".")
    rows = rows_of(table, "user_id", "item_id", "tag", "label", "timestamp")
    # User 1 gave movie 7 two of the three tags: one is left. The others have two left each.
    assert [row for row in rows if row[3] == "1"] == [
        ("1", "7", "x", "1", 1),
        ("1", "7", "y", "1", 2),
        ("2", "7", "x", "1", 3),
        ("2", "8", "z", "1", 4),
    ]
    assert sorted(row for row in rows if row[3] == "0") == [
        ("1", "7", "z", "0", 1),
        ("2", "7", "y", "0", 3),
        ("2", "7", "z", "0", 3),
        ("2", "8", "x", "0", 4),
        ("2", "8", "y", "0", 4),
    ]


@pytest.mark.parametrize("name", ["movielens_1m", "movielens_latest_tags"])
def test_sampled_positives_have_no_order_in_time_of_their_rows(name: str, tmp_path: Path) -> None:
    write_1m(tmp_path, ratings=False)
    write_latest(tmp_path, "csv")
    assert not build(tmp_path, dataset=name, path=".").spec.ordered


@settings(max_examples=60, deadline=None)
@given(
    had=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 29)), max_size=60),
    negatives=st.integers(1, 4),
    seed=st.integers(0, 3),
    spare=st.integers(0, 400),
)
def test_negatives_are_distinct_unseen_and_as_many_as_there_can_be(
    had: set[tuple[int, int]], negatives: int, seed: int, spare: int
) -> None:
    universe = 30 + spare
    pairs = sorted(had, key=lambda pair: (pair[1], pair[0]))  # owners mixed
    owners, items = (np.array([pair[place] for pair in pairs], dtype=np.int64) for place in (0, 1))
    options = NegativeOptions(negatives=negatives, seed=seed)
    place, drawn = sample_negatives(owners, items, universe, options)
    found = list(zip(owners[place].tolist(), drawn.tolist(), strict=True))
    assert len(set(found)) == len(found)
    assert not set(found) & had
    assert drawn.size == 0 or (drawn.min() >= 0 and drawn.max() < universe)
    assert np.bincount(place, minlength=len(pairs)).max(initial=0) <= negatives
    for owner in set(owners.tolist()):
        owned = int((owners == owner).sum())
        assert sum(pair[0] == owner for pair in found) == min(negatives * owned, universe - owned)
    again = sample_negatives(owners, items, universe, options)
    assert np.array_equal(again[0], place)
    assert np.array_equal(again[1], drawn)


@pytest.mark.parametrize("universe", [12, 200])
def test_every_unseen_item_is_equally_likely(universe: int) -> None:
    # One owner with 2 items, 2 negatives each: 4 of the unseen ones a draw.
    counts = np.zeros(universe)
    for seed in range(1500):
        _, drawn = sample_negatives(np.zeros(2, dtype=np.int64), np.array([0, 5]), universe, NegativeOptions(seed=seed))
        counts[drawn] += 1
    assert counts[0] == counts[5] == 0
    expected = 1500 * 4 / (universe - 2)
    unseen = np.delete(counts, [0, 5])
    chi_square = ((unseen - expected) ** 2 / expected).sum()
    degrees = universe - 3
    assert chi_square < degrees + 4 * np.sqrt(2 * degrees)


def test_build_context_is_all_a_builder_needs(tmp_path: Path) -> None:
    write_100k(tmp_path)
    config = DataConfig(dataset="movielens_100k", path=str(tmp_path))
    assert isinstance(DATASETS["movielens_100k"](config, BuildContext(tmp_path, 0)), Table)
