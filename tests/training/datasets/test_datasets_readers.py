"""Readers against the standard library's csv module, and what they say of files that are not as described."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import ExperimentConfig, with_absolute_paths
from training.datasets.base import BuildContext
from training.datasets.config import DataConfig
from training.preparation.rows import DataFileError, MissingColumnError
from training.readers import DelimitedSource, ParquetSource, ReadFile, TextFormat, resolve, split_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ROWS = [["0", "ab", "3.5"], ["1", "", "007"], ["0", "ünï\u2603", "-1"]]
TEXT = "label,name,value\n" + "".join(",".join(row) + "\n" for row in ROWS)


def read(source: DelimitedSource | ParquetSource) -> list[list[str]]:
    """All rows, missing values as empty text."""
    frames = [batch.frame for batch in source.batches()]
    return [["" if value is None else str(value) for value in row] for frame in frames for row in frame.rows()]


def text_source(path: Path, chunk_bytes: int = 1 << 20, **form: object) -> DelimitedSource:
    return DelimitedSource((ReadFile(path),), TextFormat(**form), chunk_bytes)  # type: ignore[arg-type]


def fault_of(source: DelimitedSource | ParquetSource) -> str:
    with pytest.raises(DataFileError) as caught:
        read(source)
    return str(caught.value)


def write_zst(path: Path) -> None:
    frame = pl.read_csv(TEXT.encode(), infer_schema=False)
    frame.lazy().sink_csv(path, compression="zstd")


WRITERS: dict[str, Callable[[Path], object]] = {
    "t.csv": lambda path: path.write_text(TEXT, encoding="utf-8"),
    "t.csv.gz": lambda path: path.write_bytes(gzip.compress(TEXT.encode())),
    "t.csv.xz": lambda path: path.write_bytes(lzma.compress(TEXT.encode())),
    "t.csv.zst": write_zst,
    "bom.csv": lambda path: path.write_text(TEXT, encoding="utf-8-sig"),
    "crlf.csv": lambda path: path.write_bytes(TEXT.replace("\n", "\r\n").encode()),
    "no_last_newline.csv": lambda path: path.write_bytes(TEXT.rstrip("\n").encode()),
    "empty_lines_at_the_end.csv": lambda path: path.write_bytes(TEXT.encode() + b"\n\n"),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("chunk_bytes", [7, 1 << 20])
def test_a_text_table_reads_the_same_however_it_is_stored(name: str, chunk_bytes: int, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    source = text_source(tmp_path / name, chunk_bytes)
    assert source.columns == ("label", "name", "value")
    assert read(source) == ROWS
    assert read(source) == ROWS, "a second pass sees the same rows"


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6) | st.sampled_from(
    ['"', '""', ",", "\n", '",\n"', 'a"b', "\t"]
)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=8),
    chunk_bytes=st.integers(1, 40),
    separator=st.sampled_from([",", "\t", ";"]),
)
def test_any_quoted_table_reads_as_csv_reads_it_whatever_the_chunks(
    rows: list[list[str]], chunk_bytes: int, separator: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("quoted") / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    source = text_source(path, chunk_bytes, separator=separator, columns=("a", "b", "c"))
    assert read(source) == rows
    lines = list(_lines_of(path, separator))
    batches = list(source.batches())
    heights = [batch.frame.height for batch in batches]
    assert [batch.first for batch in batches] == [sum(heights[:number]) for number in range(len(heights))]
    places = [batch.where(row) for batch in batches for row in range(batch.frame.height)]
    assert places == [f"{path}: line {line}" for line in lines], "every row knows its line"


def _lines_of(path: Path, separator: str) -> Sequence[int]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter=separator)
        begins = [1]
        begins.extend(reader.line_num + 1 for _ in reader)
        return begins[:-1]


def test_text_without_quoting_keeps_its_quotes(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('5" disk\t"x\n"\ty\n')
    source = text_source(tmp_path / "t.tsv", 5, separator="\t", quote="", columns=("a", "b"))
    assert read(source) == [['5" disk', '"x'], ['"', "y"]]


def test_null_values_are_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\nNULL,1\nx,NA\n")
    assert read(text_source(tmp_path / "t.csv", null_values=("NULL", "NA"))) == [["", "1"], ["x", ""]]


@pytest.mark.parametrize("chunk_bytes", [4, 1 << 20])
@pytest.mark.parametrize(
    ("text", "place", "got"),
    [
        ("a,b,c\n1,2,3\n4,5\n6,7,8\n", "line 3", "expected 3 columns, got 2 columns"),
        ("a,b,c\n1,2,3\n4,5,6,7\n6,7,8\n", "line 3", "expected 3 columns, got 4 columns"),
        ("a,b,c\n1,2,3,4\n4,5\n", "line 2", "expected 3 columns, got 4 columns"),
        ("a,b,c\n1,2,3\n\n4,5,6\n", "line 3", "expected 3 columns, got an empty line"),
        ("a,b,c\n\n1,2,3\n", "line 2", "expected 3 columns, got an empty line"),
        ('a,b,c\n"x\ny",2,3\n4,5\n', "line 4", "expected 3 columns, got 2 columns"),
        ('a,b,c\n"x,y",2\n', "line 2", "expected 3 columns, got 2 columns"),
        ('a,b,c\n1,5" disk,3\n4,5,6\n', "line 2", "expected no quote inside a value"),
        ('a,b,c\n1,5" disk,3\n4,6" disk,6\n', "line 2", "expected no quote inside a value"),
        ('a,b,c\n1,"5"x,3\n', "line 2", "line 2"),
    ],
)
def test_a_row_of_the_wrong_width_is_named_by_its_line(
    text: str, place: str, got: str, chunk_bytes: int, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    message = fault_of(text_source(path, chunk_bytes))
    assert message.startswith(f"{path}: {place}")
    assert got in message


def test_bytes_that_are_no_utf8_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n1,2\n3,\xff\n")
    assert fault_of(text_source(path)) == f"{path}: line 3: expected UTF-8 text, got byte 0xff"


@pytest.mark.parametrize(
    ("content", "byte"),
    [("a,b\n1,2\n".encode("utf-16"), "0xff"), ("a,prénom\n1,2\n".encode("latin-1"), "0xe9")],
    ids=["utf-16", "latin-1"],
)
def test_a_header_that_is_no_utf8_is_named_as_a_row_is(content: bytes, byte: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    source = text_source(path)
    told = f"{path}: line 1: expected UTF-8 text, got byte {byte}"
    assert fault_of(source) == told
    with pytest.raises(DataFileError, match="line 1: expected UTF-8 text"):
        _ = source.columns


def test_a_quote_that_is_never_closed_does_not_take_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.readers.streams._LONGEST_RECORD", 1000)
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,2\n3,"open\n' + "5,6\n" * 2000)
    message = fault_of(text_source(path, 64))
    assert f"{path}: line 3 or after: expected the end of a record" in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.csv.gz", b"no gzip at all", "expected gz data"),
        ("t.csv.gz", gzip.compress(TEXT.encode() * 50, mtime=0)[:-20], "expected gz data"),
        ("t.csv.xz", lzma.compress(TEXT.encode() * 50)[:-20], "expected xz data"),
        ("t.csv.zst", b"no zstd", "expected zst data"),
        ("t.csv", b"", "expected a header, got an empty file"),
        ("t.csv", b"a,b,a\n1,2,3\n", "line 1: expected different column names, got 'a' twice"),
    ],
)
def test_a_broken_file_is_named(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    message = fault_of(text_source(tmp_path / name))
    assert message.startswith(str(tmp_path / name))
    assert expected in message


def test_files_may_order_their_columns_differently_but_not_lack_one(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("b,extra,a\n4,x,3\n")
    parts = (ReadFile(tmp_path / "1.csv"), ReadFile(tmp_path / "2.csv"))
    assert read(DelimitedSource(parts, TextFormat())) == [["1", "2"], ["3", "4"]]
    (tmp_path / "2.csv").write_text("a,c\n3,4\n")
    with pytest.raises(MissingColumnError, match=r"2\.csv: line 1: expected a column 'b', got 'a', 'c'"):
        read(DelimitedSource(parts, TextFormat()))


def test_parquet_is_read_in_batches_of_its_own_types(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": range(10), "b": ["x", "NA"] * 5, "c": [[1, 2], None] * 5})
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=3)
    source = ParquetSource((ReadFile(tmp_path / "t.parquet"),), ("NA",), batch_rows=4)
    batches = list(source.batches(["b", "a"]))
    assert [batch.first for batch in batches] == [0, 4, 8]
    assert batches[1].where(1) == f"{tmp_path / 't.parquet'}: row 5"
    whole = pl.concat([batch.frame for batch in batches])
    assert whole.get_column("a").to_list() == list(range(10))
    assert whole.get_column("b").to_list() == ["x", None] * 5
    assert whole.columns == ["b", "a"]


def test_what_is_no_parquet_or_lacks_a_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_bytes(b"PAR1 but not really")
    assert "no.parquet: expected Parquet, got" in fault_of(ParquetSource((ReadFile(tmp_path / "no.parquet"),)))
    for number, name in enumerate(("a", "b")):
        pl.DataFrame({name: [1]}).write_parquet(tmp_path / f"{number}.parquet")
    parts = tuple(ReadFile(tmp_path / f"{number}.parquet") for number in range(2))
    with pytest.raises(MissingColumnError, match=r"1\.parquet: expected a column 'a', got 'b'"):
        read(ParquetSource(parts))


@pytest.mark.usefixtures("_no_data_dir")
class TestPaths:
    def test_a_relative_path_is_found_beside_the_experiment(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").touch()
        assert resolve("t.csv", tmp_path) == [tmp_path / "t.csv"]

    def test_the_data_directory_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for folder in ("base", "data"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "t.csv").touch()
        (tmp_path / "base" / "only.csv").touch()
        monkeypatch.setenv("REACTION_DATA_DIR", str(tmp_path / "data"))
        assert resolve("t.csv", tmp_path / "base") == [tmp_path / "data" / "t.csv"]
        assert resolve("only.csv", tmp_path / "base") == [tmp_path / "base" / "only.csv"]

    def test_a_missing_file_says_where_it_was_looked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(DataFileError) as caught:
            resolve("no/t.csv", tmp_path)
        assert str(caught.value) == (
            f"data.path: expected a file at 'no/t.csv', got none; looked for {tmp_path}/no/t.csv "
            "(REACTION_DATA_DIR is not set)"
        )
        monkeypatch.setenv("REACTION_DATA_DIR", "/elsewhere")
        with pytest.raises(
            DataFileError,
            match=rf"looked for /elsewhere/no/t\.csv, {tmp_path}/no/t\.csv \(REACTION_DATA_DIR is '/elsewhere'\)$",
        ):
            resolve("no/t.csv", tmp_path)

    def test_a_pinned_path_that_is_missing_names_the_data_directory_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data, base = tmp_path / "data", tmp_path / "base"
        monkeypatch.setenv("REACTION_DATA_DIR", str(data))
        config = ExperimentConfig.model_validate(
            {"format": 1, "name": "x", "data": {"dataset": "criteo", "path": "sub/t*.csv"}}
        )
        pinned = with_absolute_paths(config, base).data.path
        assert pinned == f"{base}/sub/t*.csv"

        def looked(path: str) -> str:
            with pytest.raises(DataFileError) as caught:
                resolve(path, base, what="files")
            assert f"expected files at {path!r}, got none" in str(caught.value)
            return str(caught.value).partition("looked for ")[2].partition(" (")[0]

        assert looked(pinned) == f"{data}/sub/t*.csv, {base}/sub/t*.csv"
        assert looked("/other/t.csv") == "/other/t.csv"
        (data / "sub").mkdir(parents=True)
        (data / "sub" / "t1.csv").touch()
        assert looked(pinned) == pinned, "an absolute path is read from nowhere else"

    def test_globs_and_lists_keep_their_order(self, tmp_path: Path) -> None:
        for name in ("b.csv", "a.csv", "c.txt"):
            (tmp_path / name).touch()
        assert [path.name for path in resolve("*.csv", tmp_path)] == ["a.csv", "b.csv"]
        assert [path.name for path in resolve(("c.txt", "*.csv"), tmp_path)] == ["c.txt", "a.csv", "b.csv"]

    def test_files_of_given_splits_know_their_split_and_faults_their_key(self, tmp_path: Path) -> None:
        for name in ("1.csv", "2.csv", "v.csv"):
            (tmp_path / name).touch()
        given_split = {"kind": "given", "valid": "v.csv"}
        config = DataConfig.model_validate({"dataset": "criteo", "path": ["1.csv", "2.csv"], "split": given_split})
        parts = split_files(config, BuildContext(tmp_path, 0))
        assert [(part.path.name, part.split) for part in parts] == [
            ("1.csv", "train"),
            ("2.csv", "train"),
            ("v.csv", "valid"),
        ]
        (tmp_path / "v.csv").unlink()
        with pytest.raises(DataFileError, match=r"^data\.split\.valid: expected a file at 'v\.csv'"):
            split_files(config, BuildContext(tmp_path, 0))

    def test_a_directory_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataFileError, match="expected files, got a directory"):
            split_files(DataConfig(dataset="criteo", path=str(tmp_path)), BuildContext(tmp_path, 0))


@pytest.fixture
def _no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REACTION_DATA_DIR", raising=False)


def test_records_of_a_text_are_found_where_csv_finds_them() -> None:
    records = list(TextFormat().rows('a,b\n"x\ny",2\n3,4\n'))
    assert records == [(0, ["a", "b"]), (1, ["x\ny", "2"]), (3, ["3", "4"])]
    assert next(csv.reader(io.StringIO("a,b"))) == records[0][1]
