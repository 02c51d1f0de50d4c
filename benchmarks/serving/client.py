"""Single exchanges with a server: is it up, does it answer what the model says, what has it counted."""

from __future__ import annotations

import json
import re
import socket
import struct
from http.client import HTTPException, HTTPResponse
from typing import Any, Final

import msgspec

from benchmarks.serving.payloads import MSGPACK

_TIMEOUT_SECONDS: Final = 20
_OK: Final = 200
_STAGE: Final = re.compile(r"^reaction_stage_seconds_(sum|count)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


class AnswerError(RuntimeError):
    """An answer that is none."""


def exchange(port: int, request: bytes) -> tuple[str, bytes]:
    """Send a whole request over a connection of its own.

    Returns:
        The answer's media type and body.

    Raises:
        AnswerError: No connection, no HTTP, or a status other than 200.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS) as connection:
            connection.sendall(request)
            answer = HTTPResponse(connection)
            answer.begin()
            body = answer.read()
    except (OSError, HTTPException) as error:
        raise AnswerError(f"port {port}: {error!r}") from error
    if answer.status != _OK:
        raise AnswerError(f"port {port}: expected status 200, got {answer.status}: {body[:300]!r}")
    return answer.getheader("content-type", ""), body


def scores_of(media_type: str, body: bytes) -> list[float]:
    """Scores in an answer of any server.

    Raises:
        AnswerError: There are none.
    """
    try:
        return _scores_of(media_type, body)
    except (ValueError, LookupError, TypeError, struct.error, msgspec.MsgspecError) as error:
        raise AnswerError(f"expected scores, got {body[:300]!r}") from error


def _scores_of(media_type: str, body: bytes) -> list[float]:
    if media_type.startswith("application/octet-stream"):  # Open Inference Protocol: one tensor after its description
        end = json.JSONDecoder().raw_decode(body.decode("latin-1"))[1]
        return [value for (value,) in struct.iter_unpack("<f", body[end:])]
    document: Any = msgspec.msgpack.decode(body) if media_type.startswith(MSGPACK) else json.loads(body)
    if isinstance(document, dict) and "outputs" in document:
        return [float(value) for value in document["outputs"][0]["data"]]
    for name in ("scores", "predictions"):
        if isinstance(document, dict) and name in document:
            return [float(value[0] if isinstance(value, list) else value) for value in document[name]]
    raise AnswerError(f"expected scores, got {body[:300]!r}")


def stage_sums(port: int) -> dict[str, tuple[float, float]]:
    """What the service has counted for good answers: seconds and requests by stage."""
    _, body = exchange(port, b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    sums: dict[str, dict[str, float]] = {}
    for kind, labels, value in _STAGE.findall(body.decode()):
        named = dict(_LABEL.findall(labels))
        if named.get("outcome") == "ok":
            sums.setdefault(named["stage"], {})[kind] = float(value)
    return {stage: (found["sum"], found["count"]) for stage, found in sums.items()}


def stages_between(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Microseconds a request spent in each stage between two readings."""
    found = {}
    for stage, (seconds, count) in after.items():
        earlier = before.get(stage, (0.0, 0.0))
        if count > earlier[1]:
            found[stage] = (seconds - earlier[0]) / (count - earlier[1]) * 1e6
    return found
