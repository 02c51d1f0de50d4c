"""Refused splits, outputs and continuations; nothing is left behind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import made_up
import polars as pl
import pytest
from made_up import refusal

from training.datasets.config import DataConfig
from training.preparation.rows import DataError, DataFileError, DataValueError, SplitError
from training.prepare import prepare

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = {"kind": "random", "valid": 0.3, "test": 0.2}


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REACTION_DATA_DIR", raising=False)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    raw = [{**row, "part": "train"} for row in made_up.rows(60)]
    made_up.write(tmp_path / "log.csv", raw)
    message = refusal(tmp_path, made_up.config(split={"kind": "given", "column": "part"}), SplitError)
    assert message == f"{tmp_path / 'log.csv'}: valid split: expected rows, got none (of 60 in all)"


def test_a_file_with_a_header_alone_is_an_empty_split(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("click,user,hour,ad,price,seen,tags,position,w,request,ts\n")
    message = refusal(tmp_path, made_up.config(split=RANDOM), SplitError)
    assert message == f"{tmp_path / 'log.csv'}: train split: expected rows, got none (of 0 in all)"


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("label", ["0", "1"])
def test_a_split_of_one_class_is_refused(split: str, label: str, tmp_path: Path) -> None:
    raw = [{**row, "part": ("train", "valid", "test")[n % 3]} for n, row in enumerate(made_up.rows(90))]
    for row in raw:
        if row["part"] == split:
            row["click"] = label
    made_up.write(tmp_path / "log.csv", raw)
    config = made_up.config(split={"kind": "given", "column": "part", "test": "test"})
    message = refusal(tmp_path, config, SplitError)
    assert message == (
        f"{tmp_path / 'log.csv'}: {split} split: column 'click': expected both labels, got only {label} in all 30 rows"
    )


def test_a_value_that_names_no_split_is_refused(tmp_path: Path) -> None:
    raw = [{**row, "part": ("train", "valid")[n % 2]} for n, row in enumerate(made_up.rows(60))]
    raw[20]["part"] = "dev"
    path = made_up.write(tmp_path / "log.csv", raw)
    message = refusal(tmp_path, made_up.config(split={"kind": "given", "column": "part"}), DataValueError)
    assert message == f"{path}: line 22: column 'part': expected a split, one of 'train', 'valid', got 'dev'"


@pytest.mark.parametrize(
    ("line", "value", "message"),
    [
        (22, "", "expected a time (a number, or ISO 8601 text), got a missing value"),
        (22, "noon", "expected a number, as in other rows, got 'noon'"),
        (22, "2026-01-05", "expected a number, as in other rows, got '2026-01-05'"),
        (2, "i18", "expected a time (a number, or ISO 8601 text), got 'i18'"),
        (2, "12/31/2025 10:00", "expected a time (a number, or ISO 8601 text), got '12/31/2025 10:00'"),
    ],
)
def test_a_time_that_cannot_be_ordered_is_refused(line: int, value: str, message: str, tmp_path: Path) -> None:
    raw = made_up.rows(60)
    raw[line - 2]["ts"] = value
    path = made_up.write(tmp_path / "log.csv", raw)
    got = refusal(tmp_path, made_up.config(split={"kind": "time"}), DataValueError)
    assert got == f"{path}: line {line}: column 'ts': {message}"


def test_a_number_among_iso_times_is_refused(tmp_path: Path) -> None:
    raw = [{**row, "ts": f"2026-01-01T00:00:{n:02d}"} for n, row in enumerate(made_up.rows(60))]
    raw[20]["ts"] = "1700000000"
    path = made_up.write(tmp_path / "log.csv", raw)
    got = refusal(tmp_path, made_up.config(split={"kind": "time"}), DataValueError)
    assert got == f"{path}: line 22: column 'ts': expected ISO 8601 text, as in other rows, got '1700000000'"


@pytest.mark.parametrize("label", ["click", {"column": "click", "at_least": 1}])
def test_a_field_that_is_the_label_is_refused(label: object, tmp_path: Path) -> None:
    made_up.write(tmp_path / "log.csv", made_up.rows(60))
    config = made_up.config(table={"label": label}, split=RANDOM)
    leak = config.fields[0].model_copy(update={"name": "clicked", "column": "click"})
    config = config.model_copy(update={"fields": (*config.fields, leak)})
    expected = "field 'clicked': expected a column that is known before the label is, got the label's own, 'click'"
    assert refusal(tmp_path, config, DataError) == expected


def test_a_data_set_without_time_has_no_split_by_time(tmp_path: Path) -> None:
    pl.DataFrame({"userID": ["1"], "movieID": ["2"]}).write_parquet(tmp_path / "interactions_user_item.parquet")
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n")
    (tmp_path / "movies.dat").write_text("2::T (1999)::Drama\n")
    config = DataConfig.model_validate({"dataset": "movielens_1m", "path": ".", "split": {"kind": "time"}})
    message = refusal(tmp_path, config, DataError)
    assert message == "data.split: data set 'movielens_1m' has no time: expected a random split, got kind time"


# --- output and --init-from


def test_an_existing_output_is_refused_and_left_alone(tmp_path: Path) -> None:
    made_up.write(tmp_path / "log.csv", made_up.rows(60))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").write_text("precious")
    message = refusal(tmp_path, made_up.config(split=RANDOM), DataFileError)
    assert message == f"{tmp_path}/data: expected a path that does not exist yet, got an existing one"
    assert (tmp_path / "data" / "mine").read_text() == "precious"


def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path) -> None:
    made_up.write(tmp_path / "log.csv", made_up.rows(60))

    class Interrupt:
        def start(self, stage: str, total: int | None = None) -> None:  # noqa: ARG002 - the interface's
            if stage == "encoding":
                raise KeyboardInterrupt

        def advance(self, steps: int = 1) -> None:
            pass

    with pytest.raises(KeyboardInterrupt):
        prepare(made_up.config(), base=tmp_path, seed=1, name="t", out=tmp_path / "data", progress=Interrupt())
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_a_run_of_another_schema_is_not_continued(tmp_path: Path) -> None:
    made_up.write(tmp_path / "log.csv", made_up.rows(100))
    prepare(made_up.config(split=RANDOM), base=tmp_path, seed=1, name="t", out=tmp_path / "first")

    def changed(name: str, **keys: Any) -> list[dict[str, Any]]:
        return [{**field, **keys} if field["name"] == name else field for field in made_up.FIELDS]

    for fields, message in [
        (made_up.FIELDS[:-1], "--init-from: expected the run's fields ['user',"),
        (changed("user", side="candidate"), "--init-from: field 'user': expected the run's CategoricalField"),
        (changed("tags", max_values=2), "--init-from: field 'tags': expected the run's MultiValuedField"),
        (changed("hour", edges=[6.0]), "--init-from: field 'hour': expected the run's NumericField"),
        (changed("ad_hash", hash_buckets=8), "--init-from: field 'ad_hash': expected the run's hash_buckets 7, got 8"),
        (changed("position", serving_constant="2"), "--init-from: field 'position'"),
    ]:
        got = refusal(tmp_path, made_up.config(split=RANDOM, fields=fields), DataError, init_from=tmp_path / "first")
        assert got.startswith(message)
    got = refusal(tmp_path, made_up.config(split=RANDOM), DataError, init_from=tmp_path / "nowhere")
    assert re.match(rf"--init-from {tmp_path}/nowhere: .*expected", got)


def test_a_serving_constant_that_its_field_refuses_is_refused_at_once(tmp_path: Path) -> None:
    made_up.write(tmp_path / "log.csv", made_up.rows(30))
    fields = [{"name": "hour", "kind": "numeric", "side": "context", "serving_constant": "noon"}]
    message = refusal(tmp_path, made_up.config(fields=fields), DataError)
    assert message.startswith(
        "data.fields: field 'hour', serving_constant: expected a number or numeric text, got the text 'noon'"
    )
