"""A file of recorded requests: format "reaction-requests", version 1.

JSON lines: a header, then a line a request. The body is what was scored, inflated where it came compressed, so that it
can be sent or scored again as it is. Nothing else of a request is kept: no header, so no key and no cookie. A process
may die while it writes, so the last line may lack its end; every other line must be whole.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from service.wire import JSON, MSGPACK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["FORMAT", "JSON", "MSGPACK", "VERSION", "Recorded", "RecordsError", "encode_header", "files_of", "read_file"]

FORMAT: Final = "reaction-requests"
VERSION: Final = 1
NAME: Final = re.compile(r"requests-\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}\.jsonl").fullmatch
_LONGEST_QUOTE: Final = 200


class RecordsError(ValueError):
    """A file that is no file of recorded requests, or a line of it that is none."""


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    version: int
    process: int


class Recorded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One request as it was scored.

    Attributes:
        time: When its answer was handed over, seconds since 1970.
        request_id: The client's id, or the one made for it.
        path: Its path.
        content_type: Of its body.
        model, manifest_sha256, precision: What scored it.
        scores: What was answered, (N,).
        seconds: From its last byte to its answer.
        text: The body, where it is UTF-8.
        data: The body, where it is not.
        header_length: Its `Inference-Header-Content-Length`, if it had one.
        compressed: It came compressed; the body here is not.
    """

    time: float
    request_id: str
    path: str
    content_type: str
    model: str
    manifest_sha256: str
    precision: str
    scores: list[float]
    seconds: float = 0.0
    text: str | None = None
    data: bytes | None = None
    header_length: int | None = None
    compressed: bool = False

    @property
    def body(self) -> bytes:
        """The bytes that were scored."""
        return self.data if self.data is not None else (self.text or "").encode()


_decode = msgspec.json.Decoder(Recorded).decode
_decode_header = msgspec.json.Decoder(_Header).decode


def encode_header(process: int) -> bytes:
    """The first line of a file that a process writes."""
    return msgspec.json.encode(_Header(FORMAT, VERSION, process)) + b"\n"


def files_of(place: Path) -> list[Path]:
    """The files at a path: itself, or those in a directory, oldest first.

    Raises:
        RecordsError: There is none.
    """
    if not place.is_dir():
        return [place]
    found = sorted(path for path in place.iterdir() if NAME(path.name))
    if not found:
        raise RecordsError(f"{place}: expected files of recorded requests, got none")
    return found


def read_file(path: Path) -> Iterator[tuple[int, Recorded | None]]:
    """Requests of a file, each with the number of its line; None for a last line that lacks its end.

    Raises:
        RecordsError: Another format or version, or a line that is no recorded request.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.readline()
        if head and not head.endswith(b"\n") and len(head) < len(encode_header(2**63 - 1)):
            yield 1, None
            return
        _check_header(path, head)
        for number, line in enumerate(file, 2):
            if not line.endswith(b"\n"):
                yield number, None
                return
            try:
                yield number, _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise RecordsError(f"{path}, line {number}: expected a recorded request, got {error}") from None


def _check_header(path: Path, line: bytes) -> None:
    try:
        header = _decode_header(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        got = repr(line[:_LONGEST_QUOTE].decode("utf-8", "replace"))
        raise RecordsError(f"{path}, line 1: expected the header of {FORMAT} {VERSION}, got {got}") from None
    if (header.format, header.version) != (FORMAT, VERSION):
        raise RecordsError(f"{path}: expected {FORMAT} {VERSION}, got {header.format[:60]!a} {header.version}")
