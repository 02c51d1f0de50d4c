"""Before any load: bodies are sent once, and their answers read in full. Fast nonsense is no success."""

from __future__ import annotations

import math
import socket
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from service.bench.errors import TargetError
from service.bench.http import OK, Answer, AnswerReader, Target
from service.bench.rows import FieldInfo
from service.wire import MSGPACK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.bench.load import Body

__all__ = ["check_answer", "fetch", "probe", "served_model"]

_READ_BYTES: Final = 1 << 18
_SHOWN: Final = 600
_LEAST_PROBED: Final = 64
_PROBE_SECONDS: Final = 10.0


def probe(
    target: Target, bodies: Sequence[Body], timeout: float = 10.0, *, most_seconds: float = _PROBE_SECONDS
) -> list[float]:
    """Send every body once, one after the other, and check the answers.

    Args:
        target: Where to.
        bodies: What is sent; the first are spread over all of them.
        timeout: Seconds until an answer has to be there.
        most_seconds: After so many seconds no more than 64 are sent, for there may be thousands.

    Returns:
        Seconds that each took; the first of them opened the connection.

    Raises:
        TargetError: Nobody listens, an answer is no 200 (its problem document is shown), or does not hold as many
            scores as the body has candidates.
    """
    seconds: list[float] = []
    stride = -(-len(bodies) // _LEAST_PROBED)
    end = time.perf_counter() + most_seconds
    connection = _connect(target, timeout)
    try:
        for number in sorted(range(len(bodies)), key=lambda place: (place % stride, place)):
            if len(seconds) >= _LEAST_PROBED and time.perf_counter() > end:
                break
            body = bodies[number]
            begin = time.perf_counter()
            request = target.request(body.content, body.content_type, body.headers)
            answer = _exchange(target, connection, request)
            seconds.append(time.perf_counter() - begin)
            complaint = check_answer(answer, body.candidates)
            if complaint is not None:
                raise TargetError(f"{target.url}, body {number}: {complaint}")
            if answer.last:
                connection.close()
                connection = _connect(target, timeout)
    finally:
        connection.close()
    return seconds


def fetch(target: Target, timeout: float = 10.0) -> bytes:
    """The body of a GET.

    Raises:
        TargetError: Nobody listens, or the answer is no 200.
    """
    with _connect(target, timeout) as connection:
        answer = _exchange(target, connection, target.request(b"", "application/json", method="GET"))
    if answer.status != OK:
        raise TargetError(f"{target.url}: {_refusal(answer)}")
    return answer.body


def served_model(target: Target, timeout: float = 10.0) -> tuple[str, list[FieldInfo]]:
    """Id and fields of the model that a service serves, from its `/model`.

    Raises:
        TargetError: There is no such route, or it answers something else.
    """
    place = Target(target.host, target.port, "/model", target.headers)
    content = fetch(place, timeout)
    try:
        document = msgspec.json.decode(content)
        fields = [
            FieldInfo(field["name"], field["side"], field["kind"])
            for field in document["fields"]
            if field["use"] != "training only"
        ]
        return str(document["id"]), fields
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise TargetError(f"{place.url}: expected a model's description, got {_shown(content)}") from error


def check_answer(answer: Answer, candidates: int | None) -> str | None:
    """What is wrong with an answer, None if nothing is.

    Args:
        answer: Of any form this service or the Open Inference Protocol gives.
        candidates: Scores it must hold; None asks for the status alone.
    """
    if answer.status != OK:
        return _refusal(answer)
    if candidates is None:
        return None
    try:
        scores = _scores(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, IndexError, TypeError, ValueError):
        return f"expected {candidates} scores, got {_shown(answer.body)}"
    if len(scores) != candidates:
        return f"expected {candidates} scores, got {len(scores)}"
    if not all(isinstance(score, (int, float)) and math.isfinite(score) for score in scores):
        return "expected scores that are finite numbers, got others"
    return None


def _scores(answer: Answer) -> list[Any]:
    head = answer.head.lower()
    if MSGPACK.encode() in head:
        return _listed(msgspec.msgpack.decode(answer.body)["scores"])
    mark = b"\ninference-header-content-length:"
    if mark in head:
        size = int(head.partition(mark)[2].partition(b"\r")[0])
        output = msgspec.json.decode(answer.body[:size])["outputs"][0]
        if "data" not in output:
            kind = {"FP32": "<f4", "FP64": "<f8"}[output["datatype"]]
            return np.frombuffer(answer.body, dtype=kind, offset=size).tolist()  # type: ignore[no-any-return]
        return _listed(output["data"])
    document = msgspec.json.decode(answer.body)
    return _listed(document["scores"] if "scores" in document else document["outputs"][0]["data"])


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no array")
    return value


def _refusal(answer: Answer) -> str:
    return f"expected status 200, got {answer.status}: {_shown(answer.body)}"


def _shown(content: bytes) -> str:
    text = content.decode("utf-8", "replace")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _connect(target: Target, timeout: float) -> socket.socket:
    try:
        connection = socket.create_connection((target.host, target.port), timeout)
    except (OSError, UnicodeError) as error:  # the latter of a name that no domain can have
        raise TargetError(f"{target.url}: expected a server that listens, got: {error}") from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _exchange(target: Target, connection: socket.socket, request: bytes) -> Answer:
    reader = AnswerReader()
    try:
        connection.sendall(request)
        while True:
            data = connection.recv(_READ_BYTES)
            answer = reader.feed(data, ended=not data)
            if answer is not None:
                return answer
            if not data:
                raise TargetError(f"{target.url}: expected an answer, got a closed connection")
    except TimeoutError as error:
        raise TargetError(f"{target.url}: expected an answer in time, got none") from error
    except (OSError, ValueError) as error:
        raise TargetError(f"{target.url}: expected an HTTP answer, got {error}") from error
