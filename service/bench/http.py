"""The part of HTTP/1.1 a load generator needs: requests are whole before the run, answers read lightly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from service.bench.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OK", "Answer", "AnswerReader", "Target", "parse_target"]

OK: Final = 200
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\ncontent-length:[ \t]*(\d+)[ \t]*\r", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\ntransfer-encoding:[^\r]*chunked", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\nconnection:[^\r]*close", re.IGNORECASE)
_PRINTABLE: Final = re.compile(r"[!-~]+")
_STATUS: Final = slice(9, 12)


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go.

    Attributes:
        host: Name or address.
        port: TCP port.
        path: Path and query, starting with a slash.
        headers: Lines sent with every request, beside those of the body.
    """

    host: str
    port: int
    path: str = "/score"
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def url(self) -> str:
        """The target as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.path}"

    def request(
        self, content: bytes, content_type: str, headers: Iterable[tuple[str, str]] = (), method: str = "POST"
    ) -> bytes:
        """A whole request, ready to be sent."""
        lines = [
            f"{method} {self.path} HTTP/1.1",
            f"host: {self.host}:{self.port}",
            f"content-type: {content_type}",
            f"content-length: {len(content)}",
            *(f"{name}: {value}" for name, value in (*headers, *self.headers)),
        ]
        return "\r\n".join(lines).encode("latin-1") + _HEAD_END + content


def parse_target(url: str, default_path: str = "/score", headers: tuple[tuple[str, str], ...] = ()) -> Target:
    """A target from a URL; without a path, `default_path` is taken.

    Raises:
        TargetError: No plain HTTP URL with a host, or one that a request line cannot hold.
    """
    if not _PRINTABLE.fullmatch(url):
        raise TargetError(f"{url!r}: expected a URL of printable ASCII (percent-encoded, no spaces), got others")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
    except ValueError as error:
        raise TargetError(f"{url}: expected http://HOST[:PORT][/PATH], got {error}") from None
    if parts.scheme != "http" or not parts.hostname:
        raise TargetError(
            f"{url}: expected http://HOST[:PORT][/PATH], got scheme {parts.scheme!r}, host {parts.hostname!r}"
        )
    path = parts.path if parts.path not in {"", "/"} else default_path
    return Target(parts.hostname, port, path + (f"?{parts.query}" if parts.query else ""), headers)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its status, head (as sent) and body, and whether the connection ends with it."""

    status: int
    head: bytes
    body: bytes
    last: bool


class AnswerReader:
    """Reads the answers of one connection, one at a time: no request is sent before the last one is answered."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = b""

    @property
    def empty(self) -> bool:
        """Nothing of an answer has come."""
        return not self._data

    def feed(self, data: bytes, *, ended: bool = False) -> Answer | None:
        """Take what came.

        Args:
            data: The next bytes.
            ended: The server closed the connection; an answer of unstated length ends with it.

        Returns:
            The answer, once it is complete.

        Raises:
            ValueError: What came is no HTTP answer, or more than one.
        """
        if self._data:
            data = self._data + data
        end = data.find(_HEAD_END)
        if end < 0:
            self._data = data
            return None
        head = data[: end + 2]
        last = b"lose" in head and _CLOSE.search(head) is not None
        length = _LENGTH.search(head)
        if length is not None:
            size = end + len(_HEAD_END) + int(length[1])
            if len(data) < size:
                self._data = data
                return None
            if len(data) > size:
                raise ValueError("expected one answer a request, got more bytes than its content-length says")
            body = data[end + len(_HEAD_END) :]
        else:
            rest = data[end + len(_HEAD_END) :]
            chunked = _CHUNKED.search(head) is not None
            joined = _dechunk(rest) if chunked else (rest if ended else None)
            if joined is None:
                self._data = data
                return None
            body, last = joined, last or not chunked
        self._data = b""
        return Answer(int(head[_STATUS]), head, body, last)


def _dechunk(data: bytes) -> bytes | None:
    """The body of a chunked answer, None while it is not all there."""
    parts: list[bytes] = []
    place = 0
    while (end := data.find(b"\r\n", place)) >= 0:
        size = int(data[place:end].partition(b";")[0], 16)
        start = end + 2
        if len(data) < start + size + 2:
            return None
        if size == 0:
            return b"".join(parts)
        parts.append(data[start : start + size])
        place = start + size + 2
    return None
