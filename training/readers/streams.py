"""Bytes of text files, plain or compressed, in chunks that end where a record ends."""

from __future__ import annotations

import gzip
import lzma
import re
from typing import TYPE_CHECKING, BinaryIO, cast

import polars as pl

from training.preparation.rows import DataFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMPRESSIONS = (".gz", ".xz", ".zst")
_LONGEST_RECORD = 1 << 26  # bytes
_ZST_MAGIC = b"\x28\xb5\x2f\xfd"
_ZST_LINES = 500_000  # lines a batch: a zst file comes as lines, since the standard library cannot read it


def plain_suffix(path: Path) -> str:
    """The suffix below a compression's: `.csv` of `log.csv.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read_pieces(path: Path, size: int) -> Iterator[bytes]:
    """The decompressed file in pieces of about `size` bytes, cut anywhere.

    Raises:
        DataFileError: it cannot be read, or is not in the format that its suffix says.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".zst":
            with path.open("rb") as file:
                if file.read(len(_ZST_MAGIC)) != _ZST_MAGIC:  # polars would read it as it stands
                    raise DataFileError(f"{path}: expected zst data, got something else")
            for batch in pl.scan_lines(path).collect_batches(chunk_size=_ZST_LINES, maintain_order=True):
                yield ("\n".join(batch.to_series().to_list()) + "\n").encode()
            return
        with _open(path, suffix) as stream:
            while piece := stream.read(size):
                yield piece
    except (OSError, EOFError, lzma.LZMAError, pl.exceptions.PolarsError) as error:
        kind = f"{suffix[1:]} data" if suffix in COMPRESSIONS else "a readable file"
        raise DataFileError(f"{path}: expected {kind}, got {error}") from error


def _open(path: Path, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        return cast("BinaryIO", gzip.open(path, "rb"))
    if suffix == ".xz":
        return cast("BinaryIO", lzma.open(path, "rb"))
    return path.open("rb")


class RecordCutter:
    """Finds the end of the last whole record of a chunk.

    Args:
        separator: one byte between columns.
        quote: one byte, or empty for none. Within quotes a newline ends no record.
    """

    def __init__(self, separator: bytes, quote: bytes) -> None:
        self._quote = quote
        if quote:
            q, s = re.escape(quote), re.escape(separator)
            # A quoted value: opened at the start of a column, closed by a quote that is not doubled (or never).
            self._quoted = re.compile(b"%b(?<![^%b\n]%b)[^%b]*(?:%b%b[^%b]*)*(?:%b|\\Z)" % (q, s, q, q, q, q, q, q))

    def last_end(self, chunk: bytes) -> int:
        """Number of bytes up to and with the newline of the last whole record, 0 if there is none."""
        if not self._quote or self._quote not in chunk:
            return chunk.rfind(b"\n") + 1
        end, start = 0, 0
        for match in self._quoted.finditer(chunk):
            end = max(end, chunk.rfind(b"\n", start, match.start()) + 1)
            start = match.end()  # the chunk's end if the quote is not closed within it
        return max(end, chunk.rfind(b"\n", start) + 1)

    def without_quoted(self, chunk: bytes) -> bytes:
        """The chunk with all quoted values taken out, for counting what separates columns."""
        return self._quoted.sub(b"", chunk) if self._quote and self._quote in chunk else chunk

    def stray_quote(self, chunk: bytes) -> int | None:
        """Where a quote stands inside of a value that is not quoted, which readers take in different ways."""
        start = 0
        for match in self._quoted.finditer(chunk):
            found = chunk.find(self._quote, start, match.start())
            if found >= 0:
                return found
            start = match.end()
        found = chunk.find(self._quote, start)
        return found if found >= 0 else None


def read_chunks(path: Path, size: int, cutter: RecordCutter) -> Iterator[bytes]:
    """The decompressed file in chunks of whole records; only a record longer than `size` makes a chunk longer.

    Raises:
        DataFileError: see `read_pieces`; or a record does not end, which is what a quote without its second one does.
    """
    rest, first_line = b"", 1
    for piece in read_pieces(path, size):
        chunk = rest + piece
        end = cutter.last_end(chunk)
        if end:
            yield chunk[:end]
            first_line += chunk.count(b"\n", 0, end)
        rest = chunk[end:]
        if len(rest) > max(_LONGEST_RECORD, size):
            raise DataFileError(
                f"{path}: line {first_line} or after: expected the end of a record, got {len(rest):,} bytes "
                "without one (a quote that is never closed? no quoting: data.table.quote = '')"
            )
    if rest.strip(b"\r\n"):
        yield rest
