"""CSV and TSV, plain or compressed: every value is read as text, nothing is inferred, every row has every column."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from training.preparation.rows import DataFileError, MissingColumnError, RawBatch
from training.readers.streams import RecordCutter, read_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from training.readers.paths import ReadFile

CHUNK_BYTES = 1 << 25
_HINT = "data.table.quote = '' reads quotes as they stand"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class TextFormat:
    """How the records of a text table are written.

    Attributes:
        separator: one ASCII character between columns.
        quote: one ASCII character around values that hold a separator or a newline, or empty for none.
        columns: names, where the files have no header; None where the first record of each file names them.
        null_values: texts that mean missing, beside the empty one.
    """

    separator: str = ","
    quote: str = '"'
    columns: tuple[str, ...] | None = None
    null_values: tuple[str, ...] = ()

    def rows(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Records with the line (from 0) that each begins at, by the standard library: slow, for messages."""
        lines = io.StringIO(text, newline="")
        if self.quote:
            reader = csv.reader(lines, delimiter=self.separator, quotechar=self.quote)
        else:
            reader = csv.reader(lines, delimiter=self.separator, quoting=csv.QUOTE_NONE)
        begin = 0
        for record in reader:
            yield begin, record
            begin = reader.line_num


@dataclass(frozen=True)
class DelimitedSource:
    """Text tables of one layout.

    Attributes:
        parts: the files, in order.
        format: how they are written.
        chunk_bytes: decompressed bytes a batch.
    """

    parts: tuple[ReadFile, ...]
    format: TextFormat
    chunk_bytes: int = CHUNK_BYTES

    @property
    def files(self) -> tuple[Path, ...]:
        """The files read."""
        return tuple(part.path for part in self.parts)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns: those of the first file, where files have headers.

        Raises:
            DataFileError: the first file is empty or cannot be read.
        """
        if self.format.columns is not None:
            return self.format.columns
        return self._header(self.parts[0].path, next(self._chunks(self.parts[0].path), b""))[0]

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[RawBatch]:
        """Read the files chunk by chunk.

        Raises:
            DataFileError: a file cannot be read, or a record has too few or too many columns.
            MissingColumnError: a file's header lacks a column that the first file's has.
        """
        wanted = self.columns if columns is None else tuple(columns)
        for part in self.parts:
            yield from self._read(part, wanted)

    def _chunks(self, path: Path) -> Iterator[bytes]:
        cutter = RecordCutter(self.format.separator.encode(), self.format.quote.encode())
        return read_chunks(path, self.chunk_bytes, cutter)

    def _header(self, path: Path, chunk: bytes) -> tuple[tuple[str, ...], int]:
        """Names in the first record of a file, and the number of bytes and lines it takes."""
        text = chunk.removeprefix(_BOM)
        if not text.strip():
            raise DataFileError(f"{path}: expected a header, got an empty file")
        # The header ends at the first newline after which its quotes are closed.
        end = -1
        while (end := text.find(b"\n", end + 1)) >= 0 and self.format.quote:
            if text.count(self.format.quote.encode(), 0, end) % 2 == 0:
                break
        line = text if end < 0 else text[: end + 1]
        try:
            _, names = next(self.format.rows(line.decode()))
        except UnicodeDecodeError as error:
            raise _no_utf8(path, line, 1, error) from error
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataFileError(f"{path}: line 1: expected different column names, got {twice!r} twice")
        return tuple(names), len(chunk) - len(text) + len(line)

    def _read(self, part: ReadFile, wanted: tuple[str, ...]) -> Iterator[RawBatch]:
        names, row, line = self.format.columns, 0, 1
        empty_line: int | None = None  # empty lines are let pass at the end of a file
        for chunk in self._chunks(part.path):
            body = chunk
            if names is None:
                names, skip = self._header(part.path, chunk)
                for name in wanted:
                    if name not in names:
                        raise MissingColumnError(
                            f"{part.path}: line 1: expected a column {name!r}, got {', '.join(map(repr, names))}"
                        )
                body, line = chunk[skip:], 1 + chunk.count(b"\n", 0, skip)
            elif row == 0:
                body = chunk.removeprefix(_BOM)
            lines = body.count(b"\n")
            if len(names) > 1:  # in a table of one column an empty line is a missing value
                full = body.rstrip(b"\r\n")
                if full and empty_line is not None:
                    raise DataFileError(f"{part.path}: line {empty_line}: {_expected(names)}, got an empty line")
                after = line + body.count(b"\n", 0, len(full)) + bool(full)
                if after < line + lines:
                    empty_line = after if empty_line is None else empty_line
                body = full
            if body:
                frame = self._parse(part.path, body, names, line)
                yield RawBatch(frame.select(wanted), str(part.path), row, self._placer(body, line), part.split)
                row += frame.height
            line += lines

    def _parse(self, path: Path, body: bytes, names: tuple[str, ...], line: int) -> pl.DataFrame:
        fault: Exception | None = None
        try:
            frame = pl.read_csv(
                body,
                has_header=False,
                schema=dict.fromkeys(names, pl.String),
                separator=self.format.separator,
                quote_char=self.format.quote or None,
                null_values=list(self.format.null_values),
                truncate_ragged_lines=False,
                glob=False,
            )
        except pl.exceptions.PolarsError as error:
            fault = error
        else:
            # A short record reads as one with empty values at its end: polars refuses long records only. As none is
            # too long, none is too short if the separators add up. (polars passes over empty lines at the beginning.)
            separator, quote = self.format.separator.encode(), self.format.quote.encode()
            rest = RecordCutter(separator, quote).without_quoted(body)
            whole = rest.count(separator) == (len(names) - 1) * frame.height
            if whole and not (quote and quote in rest) and not body.startswith((b"\n", b"\r")):
                return frame
        raise self._fault(path, body, names, line, fault) from fault

    def _fault(
        self, path: Path, body: bytes, names: tuple[str, ...], line: int, fault: Exception | None
    ) -> DataFileError:
        """What is wrong with a chunk that could not be read, and where."""
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            return _no_utf8(path, body, line, error)
        cutter = RecordCutter(self.format.separator.encode(), self.format.quote.encode())
        stray = cutter.stray_quote(body) if self.format.quote else None
        if stray is not None:
            at = line + body.count(b"\n", 0, stray)
            return DataFileError(f"{path}: line {at}: expected no quote inside a value ({_HINT}), got one")
        for begin, record in self.format.rows(text):
            if len(record) != len(names):
                found = f"{len(record)} columns" if record else "an empty line"
                return DataFileError(f"{path}: line {line + begin}: {_expected(names)}, got {found}")
        return DataFileError(f"{path}: line {line} or after: {_expected(names)}, got {fault} ({_HINT})")

    def _placer(self, body: bytes, line: int) -> Callable[[int], str]:
        """Row of the chunk -> its line in the file; where quoted values may hold newlines, by reading again."""
        if not self.format.quote or self.format.quote.encode() not in body:
            return lambda row: f"line {line + row}"

        def place(row: int) -> str:
            records = enumerate(self.format.rows(body.decode()))
            begin = next(begin for number, (begin, _) in records if number == row)
            return f"line {line + begin}"

        return place


def _no_utf8(path: Path, text: bytes, line: int, error: UnicodeDecodeError) -> DataFileError:
    """What is wrong with text that begins at a line of a file."""
    at = line + text.count(b"\n", 0, error.start)
    return DataFileError(f"{path}: line {at}: expected UTF-8 text, got byte {text[error.start]:#04x}")


def _expected(names: tuple[str, ...]) -> str:
    return f"expected {len(names)} columns"
