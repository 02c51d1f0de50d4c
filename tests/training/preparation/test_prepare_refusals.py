"""Bad data: each refusal says file, line or row, column, expected and got, and leaves nothing behind."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import made_up
import polars as pl
import pytest
from made_up import refusal

from training.preparation.rows import DataError, DataFileError, DataValueError, MissingColumnError
from training.prepare import prepare

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = {"kind": "random", "valid": 0.3, "test": 0.2}


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REACTION_DATA_DIR", raising=False)


# --- text: every fault is in data row 57 (line 59), far enough for a second chunk to matter nowhere


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("click", "2", "column 'click': expected a label of 0 or 1 (text or integer), got '2'"),
        ("click", "", "column 'click': expected a label of 0 or 1 (text or integer), got a missing value"),
        ("click", "1.0", "column 'click': expected a label of 0 or 1 (text or integer), got '1.0'"),
        ("click", " 1", "column 'click': expected a label of 0 or 1 (text or integer), got ' 1'"),
        ("price", "cheap", "column 'price': expected a number or numeric text, got 'cheap'"),
        ("price", "nan", "column 'price': expected a number or numeric text, got 'nan'"),
        ("price", "1e999", "column 'price': expected a finite number in the float64 range, got '1e999'"),
        ("hour", "1_2", "column 'hour': expected a number or numeric text, got '1_2'"),
        ("w", "-0.5", "column 'w': expected a finite weight from 0 up, got '-0.5'"),
        ("w", "inf", "column 'w': expected a finite weight from 0 up, got 'inf'"),
        ("w", "1e39", "column 'w': expected a finite weight from 0 up, got '1e39'"),
        ("w", "", "column 'w': expected a finite weight from 0 up, got a missing value"),
        ("request", "", "column 'request': expected a group (text or integer), got a missing value"),
    ],
)
def test_a_wrong_value_in_text_is_named_by_file_line_and_column(
    column: str, value: str, message: str, tmp_path: Path
) -> None:
    raw = made_up.rows(100)
    raw[57][column] = raw[80][column] = value  # the first one is named
    path = made_up.write(tmp_path / "log.csv", raw)
    assert refusal(tmp_path, made_up.config(split=RANDOM), DataValueError) == f"{path}: line 59: {message}"


def test_a_wrong_number_in_a_later_file_is_named_by_its_own_line(tmp_path: Path) -> None:
    first, second = made_up.rows(40), made_up.rows(40)
    second[7]["price"] = "x"
    made_up.write(tmp_path / "a.csv", first)
    path = made_up.write(tmp_path / "b.csv", second)
    message = refusal(tmp_path, made_up.config("*.csv", split=RANDOM), DataValueError)
    assert message.startswith(f"{path}: line 9: column 'price'")


def test_a_wrong_number_in_the_test_split_is_found_as_well(tmp_path: Path) -> None:
    made_up.write(tmp_path / "a.csv", made_up.rows(60))
    made_up.write(tmp_path / "b.csv", made_up.rows(60))
    raw = made_up.rows(60)
    raw[3]["seen"] = "many"
    path = made_up.write(tmp_path / "c.csv", raw)
    config = made_up.config("a.csv", split={"kind": "given", "valid": "b.csv", "test": "c.csv"})
    assert refusal(tmp_path, config, DataValueError).startswith(f"{path}: line 5: column 'seen'")


def test_a_rule_for_the_label_needs_numbers(tmp_path: Path) -> None:
    raw = [{**row, "stars": row["seen"]} for row in made_up.rows(100)]
    raw[57]["stars"] = "many"
    path = made_up.write(tmp_path / "log.csv", raw)
    config = made_up.config(split=RANDOM, table={"label": {"column": "stars", "at_least": 4}})
    expected = "expected a number (label is 1 from 4 up), got 'many'"
    assert refusal(tmp_path, config, DataValueError) == f"{path}: line 59: column 'stars': {expected}"


# --- Parquet: types


def typed(root: Path, **columns: pl.Series) -> Path:
    """The log in Parquet, with columns of other types."""
    raw = made_up.rows(100)
    frame = pl.DataFrame(raw).with_columns(**columns)
    frame.write_parquet(root / "log.parquet")
    return root / "log.parquet"


MOSTLY_FINE = [None] * 57 + [1.5] + [2.5] * 42


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", pl.Series(MOSTLY_FINE), "row 57: column 'user': expected text or an integer, got the float 1.5"),
        (
            "user",
            pl.Series([None] * 57 + [True] * 43),
            "row 57: column 'user': expected text or an integer, got the boolean true",
        ),
        (
            "user",
            pl.Series([dt.date(2024, 1, 1)] * 100),
            "row 0: column 'user': expected text or an integer, got a value of type date",
        ),
        (
            "price",
            pl.Series([1.0] * 57 + [float("nan")] * 43),
            "row 57: column 'price': expected a finite number in the float64 range, got the float nan",
        ),
        (
            "price",
            pl.Series([1.0] * 57 + [float("inf")] * 43),
            "row 57: column 'price': expected a finite number in the float64 range, got the float inf",
        ),
        (
            "seen",
            pl.Series([True] * 100),
            "row 0: column 'seen': expected a number or numeric text, got the boolean true",
        ),
        (
            "tags",
            pl.Series([["a"]] * 57 + [["a", "b"]] * 43).cast(pl.List(pl.String)),
            None,
        ),
        (
            "tags",
            pl.Series([[1.0]] * 57 + [[1.0, 2.0]] * 43),
            "row 0: column 'tags': expected text or an integer, got the float 1.0 in an array of 1 elements",
        ),
        (
            "click",
            pl.Series([1.0, 0.0] * 50),
            "row 0: column 'click': expected a label of 0 or 1 (text or integer), got the float 1.0",
        ),
        (
            "click",
            pl.Series([True, False] * 50),
            "row 0: column 'click': expected a label of 0 or 1 (text or integer), got the boolean true",
        ),
        (
            "click",
            pl.Series([1, 0] * 48 + [7, 0, 1, 0]),
            "row 96: column 'click': expected a label of 0 or 1 (text or integer), got the integer 7",
        ),
        (
            "w",
            pl.Series([1.0] * 99 + [float("nan")]),
            "row 99: column 'w': expected a finite weight from 0 up, got the float nan",
        ),
        (
            "request",
            pl.Series([1.0] * 100),
            "row 0: column 'request': expected a group (text or integer), got the float 1.0",
        ),
    ],
)
def test_a_wrong_type_in_parquet_is_named_by_file_row_and_column(
    column: str, values: pl.Series, message: str | None, tmp_path: Path
) -> None:
    path = typed(tmp_path, **{column: values})
    config = made_up.config("log.parquet", split=RANDOM)
    if message is None:
        prepare(config, base=tmp_path, seed=1, name="t", out=tmp_path / "data")
        return
    assert refusal(tmp_path, config, DataValueError) == f"{path}: {message}"


def test_a_hashed_field_refuses_floats_too(tmp_path: Path) -> None:
    path = typed(tmp_path, ad_float=pl.Series([1.5] * 100))
    fields = [{"name": "h", "column": "ad_float", "kind": "categorical", "side": "context", "hash_buckets": 9}]
    message = refusal(tmp_path, made_up.config("log.parquet", split=RANDOM, fields=fields), DataValueError)
    assert message == f"{path}: row 0: column 'ad_float': expected text or an integer, got the float 1.5"


# --- columns and files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": {"label": "clicked"}}, "label: expected a column 'clicked', got the columns click, user, hour, ad,"),
        ({"table": {"label": "click", "weight": "W"}}, "weight: expected a column 'W', got the columns click, user,"),
        ({"table": {"label": "click", "group": "g"}}, "group: expected a column 'g', got the columns click, user,"),
        (
            {"fields": [{"name": "x", "column": "y", "kind": "categorical", "side": "context"}]},
            "field 'x': expected a column 'y', got the columns click, user,",
        ),
        (
            {"split": {"kind": "time", "column": "when"}},
            "data.split.column: expected one of the columns click, user,",
        ),
        ({"split": {"kind": "random", "by": "session"}}, "data.split.by: expected one of the columns click, user,"),
        ({"split": {"kind": "given", "column": "part"}}, "data.split.column: expected one of the columns click, user,"),
    ],
)
def test_a_missing_column_is_told_with_the_columns_there_are(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    made_up.write(tmp_path / "log.csv", made_up.rows(30))
    assert message in refusal(tmp_path, made_up.config(**{"split": RANDOM, **change}), MissingColumnError)


def test_a_missing_file_is_told_with_the_places_looked_in(tmp_path: Path) -> None:
    message = refusal(tmp_path, made_up.config("logs.csv"), DataFileError)
    assert f"data.path: expected a file at 'logs.csv', got none; looked for {tmp_path}/logs.csv" in message


def test_a_format_that_no_suffix_tells_must_be_given(tmp_path: Path) -> None:
    made_up.write(tmp_path / "log.txt", made_up.rows(60))
    message = refusal(tmp_path, made_up.config("log.txt"), DataError)
    assert message == "data.table.format: expected csv, tsv or parquet, for log.txt does not tell; got none"
    table = {"label": "click", "format": "csv"}
    prepare(made_up.config("log.txt", table=table), base=tmp_path, seed=1, name="t", out=tmp_path / "data")


def test_a_ragged_row_is_named_by_its_line(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "log.csv", made_up.rows(60))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[30] = lines[30].rstrip("\n").rsplit(",", 1)[0] + "\n"
    path.write_text("".join(lines), encoding="utf-8")
    message = refusal(tmp_path, made_up.config(split=RANDOM), DataFileError)
    assert message == f"{path}: line 31: expected 11 columns, got 10 columns"
