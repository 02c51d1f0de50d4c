"""Clients that ask at a steady rate, check every answer against the scores of the version it names, and keep the times.

A request is due by the clock, whatever became of the one before: its latency counts from then, so that a service that
stands still cannot hide what it kept from being sent.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["FORMS", "Bodies", "Seen", "clients", "is_closed"]

_SECONDS: Final = 30.0
_READ_BYTES: Final = 1 << 16
_CLOSE: Final = b"connection: close"
_MSGPACK: Final = b"application/msgpack"
FORMS: Final = ("rows", "columns", "gzip", "msgpack")
"""In which a document may be sent."""


@dataclass(frozen=True, slots=True)
class Bodies:
    """Requests, and what each version answers.

    Attributes:
        documents: Bodies of `/score`.
        scores: By model id, the scores of each body: (candidates,).
    """

    documents: Sequence[Mapping[str, Any]]
    scores: Mapping[str, Sequence[NDArray[np.float32]]]


@dataclass(slots=True)
class Seen:
    """What clients have seen.

    Attributes:
        due: When each request was due (`perf_counter`, seconds).
        seconds: How long after that its answer was there.
        models: Answers by the version they are from.
        failed: Requests without an answer of scores, and why.
        failed_spans: For each of those, when it was sent and when it had failed.
        mixed: Answers whose scores are not those of the version they name.
    """

    due: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    models: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    failed_spans: list[tuple[float, float]] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        """Have seen also what others have."""
        for name in ("due", "seconds", "failed", "failed_spans", "mixed"):
            getattr(self, name).extend(getattr(other, name))
        for model, answers in other.models.items():
            self.models[model] = self.models.get(model, 0) + answers

    def latencies(self, spans: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
        """Seconds of the requests that were due within any of some spans."""
        due, seconds = np.array(self.due), np.array(self.seconds)
        inside = np.zeros(len(due), bool)
        for begin, end in spans:
            inside |= (due >= begin) & (due < end)
        found: NDArray[np.float64] = seconds[inside]
        return found


def is_closed(connection: socket.socket) -> bool:
    """Whether its other end closed a connection since the last answer: no client sends on such a one."""
    return bool(select.select([connection], [], [], 0)[0])


class _Connection:
    """One kept connection; opened again where the service took its leave."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Send, and read the whole answer: its status, its head in lower case, and its body.

        Raises:
            OSError: There is none.
        """
        if self._socket is not None and is_closed(self._socket):
            self.close()
        connection = self.open()
        try:
            connection.sendall(request)
            return self._read(connection)
        except OSError:
            self.close()
            raise

    def open(self) -> socket.socket:
        """Connect, unless that is done."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def _read(self, connection: socket.socket) -> tuple[int, bytes, bytes]:
        text = b""
        while (end := text.find(b"\r\n\r\n")) < 0:
            text += self._more(connection)
        head, body = text[:end].lower(), text[end + 4 :]
        length = int(head.partition(b"content-length:")[2].partition(b"\r")[0])
        while len(body) < length:
            body += self._more(connection)
        if _CLOSE in head:
            self.close()
        return int(head.split(b" ", 2)[1]), head, body

    @staticmethod
    def _more(connection: socket.socket) -> bytes:
        part = connection.recv(_READ_BYTES)
        if not part:
            raise ConnectionResetError("the connection ended before the answer")
        return part

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@contextlib.contextmanager
def clients(
    address: tuple[str, int],
    bodies: Bodies,
    *,
    rate: float,
    connections: int = 4,
    tolerance: float = 1e-5,
    forms: Sequence[str] = FORMS[:1],
    anew: bool = False,
) -> Iterator[Seen]:
    """Ask until the block ends.

    Args:
        address: Of the service.
        bodies: What to ask, in turns.
        rate: Requests a second, of all clients.
        connections: Clients, each with one connection.
        tolerance: Largest difference of a score.
        forms: Of `FORMS`: bodies are sent in these, in turns.
        anew: Each request goes over a connection of its own, opened right after the answer to the one before: whoever
            accepts it may be told to go before the request comes.
    """
    requests = [_request(document, forms[n % len(forms)]) for n, document in enumerate(bodies.documents)]
    seen, end, lock = Seen(), threading.Event(), threading.Lock()
    start = time.perf_counter()

    def ask(client: int) -> None:
        connection = _Connection(address)
        number, due = client, start + client / rate
        while not end.is_set():
            time.sleep(max(0.0, due - time.perf_counter()))
            place = number % len(requests)
            sent = time.perf_counter()
            try:
                status, head, body = connection.ask(requests[place])
                end_of_it = time.perf_counter()
                document = _document(head, body) if status == 200 else None  # noqa: PLR2004
                why = "" if document is not None else f"{status} {body[:200]!r}"
            except (OSError, ValueError) as error:
                end_of_it, document, why = time.perf_counter(), None, repr(error)
            with lock:
                if document is None:
                    seen.failed.append(why)
                    seen.failed_spans.append((sent, end_of_it))
                else:
                    seen.due.append(due)
                    seen.seconds.append(end_of_it - due)
                    _check(seen, document, bodies, place, tolerance)
            if anew:
                connection.close()
                with contextlib.suppress(OSError):  # the next request will tell
                    connection.open()
            number += connections
            due += connections / rate
        connection.close()

    threads = [threading.Thread(target=ask, args=(client,), daemon=True) for client in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        end.set()
        for thread in threads:
            thread.join()


def _check(seen: Seen, document: Mapping[str, Any], bodies: Bodies, place: int, tolerance: float) -> None:
    model = document["model"]
    seen.models[model] = seen.models.get(model, 0) + 1
    expected = bodies.scores.get(model)
    if expected is None or not (
        len(document["scores"]) == len(expected[place])
        and np.allclose(document["scores"], expected[place], rtol=0, atol=tolerance)
    ):
        seen.mixed.append(f"{model}: {document['scores']}")


def _document(head: bytes, body: bytes) -> Mapping[str, Any]:
    if b"content-encoding: gzip" in head:
        body = gzip.decompress(body)
    found: Mapping[str, Any] = msgspec.msgpack.decode(body) if _MSGPACK in head else json.loads(body)
    return found


def _request(document: Mapping[str, Any], form: str) -> bytes:
    if form == "columns":
        rows = document["candidates"]
        document = {**document, "candidates": {name: [row[name] for row in rows] for name in rows[0]}}
    kind, more = b"application/json", b""
    if form == "msgpack":
        body, kind, more = msgspec.msgpack.encode(document), _MSGPACK, b"accept: " + _MSGPACK + b"\r\n"
    else:
        body = json.dumps(document).encode()
    if form == "gzip":
        body, more = gzip.compress(body), b"content-encoding: gzip\r\naccept-encoding: gzip\r\n"
    head = b"POST /score HTTP/1.1\r\nhost: a\r\ncontent-type: %b\r\n%bcontent-length: %d\r\n\r\n"
    return head % (kind, more, len(body)) + body
