"""Requests by a grammar, each by a seed: a good one, spoilt at its values, in its text, in its bytes, or in its head.

Most stay close to what is right, for what is far from it is refused at the first look.
"""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks.reliability.fuzz.damage import KINDS, damaged
from benchmarks.reliability.fuzz.structured import change_value

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DOORS", "Sent", "good", "spoilt"]

HEADER_LENGTH: Final = "inference-header-content-length"
_CODES: Final = {"FP32": "f", "FP64": "d", "INT32": "i", "INT64": "q", "UINT8": "B"}
_TEXTS: Final = (
    *('"\\ud800"', '"\\u0000"', '"é\\u00e9"', '"\\x"', '"', '"\n"', '"a' + "b" * 3000 + '"', '"t1|t2||t3|"'),
    *("1e400", "-1e400", "01", "-0", "1.0", "1e-400", "9" * 400, "0x10", "+1", "1.", ".5", "NaN", "-Infinity"),
    *("true", "null", "nul", "{}", "[]", "[[]]", '{"":{"":[]}}', '{"user":1,"user":2}', "//", "[1,]", "{,}", ""),
    *("[" * 70 + "]" * 70, "[" * 5000, '{"a":' * 3000, "\ufeff", "  \t\r\n "),
)
_BOMB: Final = gzip.compress(bytes(1 << 23), mtime=0)
_LENGTHS: Final = ("0", "-1", "1", "999999999999999999999", "x", "", "1.5", "٣")


@dataclass(frozen=True, slots=True)
class Sent:
    """A request.

    Attributes:
        path: Where to.
        body: Its body.
        headers: Beside the length.
        kind: What was done to it.
    """

    path: str
    body: bytes
    headers: dict[str, str]
    kind: str = "good"


def _row(draw: Random) -> dict[str, Any]:
    row = {
        "ad": draw.choice(("a1", "a7", "never", 3, "", None)),
        "price": draw.choice((0, 3.5, "19", -1e9, None)),
    }
    return {name: value for name, value in row.items() if draw.random() < 0.9}  # noqa: PLR2004 - some are missing


def _document(draw: Random) -> dict[str, Any]:
    rows = [_row(draw) for _ in range(draw.choice((1, 1, 2, 7)))]
    document: dict[str, Any] = {
        "context": {
            "user": f"u{draw.randrange(30)}",
            "hour": draw.random() * 30,
            "tags": draw.choice(("t1|t9", ["t2"])),
        },
        "candidates": rows,
    }
    if draw.randrange(2):
        document["candidates"] = {name: [row.get(name) for row in rows] for name in ("ad", "price")}
    more = {"top_k": 1 + draw.randrange(9), "request_id": "r-1", "routing_key": "u"}
    return document | {name: value for name, value in more.items() if not draw.randrange(3)}


def _score_json(draw: Random) -> Sent:
    return Sent("/score", json.dumps(_document(draw)).encode(), {"content-type": "application/json"})


def _score_msgpack(draw: Random) -> Sent:
    kind = "application/msgpack"
    return Sent("/score", msgspec.msgpack.encode(_document(draw)), {"content-type": kind, "accept": kind})


def _tensors(draw: Random) -> list[tuple[str, str, list[int], list[Any]]]:
    rows = draw.choice((1, 2, 5))
    given: list[tuple[str, str, list[int], list[Any]]] = [
        ("user", "BYTES", [1], ["u3"]),
        ("ad", draw.choice(("BYTES", "INT64")), [rows], list(range(rows))),
        ("price", draw.choice(("FP32", "FP64", "INT32")), [rows, 1], list(range(rows))),
        ("tags", "BYTES", [1, 2], ["t1", "t2"]),
    ]
    draw.shuffle(given)
    return [
        (name, kind, shape, [str(value) for value in values] if kind == "BYTES" else values)
        for name, kind, shape, values in given[: draw.randrange(1, 5)]
    ]


def _packed(kind: str, values: list[Any]) -> bytes:
    if kind == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return struct.pack(f"<{len(values)}{_CODES[kind]}", *values)


def _infer(draw: Random, *, binary: bool) -> tuple[dict[str, Any], bytes]:
    """A document of the Open Inference Protocol, and what follows it."""
    inputs, data = [], b""
    for name, kind, shape, values in _tensors(draw):
        tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": kind}
        if binary and draw.randrange(4):
            piece = _packed(kind, values)
            tensor["parameters"] = {"binary_data_size": len(piece)}
            data += piece
        else:
            tensor["data"] = values
        inputs.append(tensor)
    document: dict[str, Any] = {"id": "r", "inputs": inputs}
    if draw.randrange(2):
        document["outputs"] = [{"name": "pctr", "parameters": {"binary_data": bool(draw.randrange(2))}}]
    return document, data


def _framed(document: Any, data: bytes) -> Sent:
    head = json.dumps(document).encode()
    kind = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return Sent("/v2/models/small/infer", head + data, kind)


def _infer_json(draw: Random) -> Sent:
    document, _ = _infer(draw, binary=False)
    return Sent("/v2/models/small/infer", json.dumps(document).encode(), {"content-type": "application/json"})


def _infer_binary(draw: Random) -> Sent:
    return _framed(*_infer(draw, binary=True))


def _feedback(draw: Random) -> Sent:
    token = "EGrB" + "".join(draw.choices("abcXYZ019-_", k=draw.choice((0, 10, 60, 300))))
    event: dict[str, Any] = {"token": token, draw.choice(("click", "shown")): bool(draw.randrange(2))}
    document = draw.choice((event, {"events": [event, event]}))
    return Sent("/feedback", json.dumps(document).encode(), {"content-type": "application/json"})


DOORS: Final[dict[str, Callable[[Random], Sent]]] = {
    "score": _score_json,
    "score in MessagePack": _score_msgpack,
    "infer": _infer_json,
    "infer in binary": _infer_binary,
    "feedback": _feedback,
}
"""Good requests, or for feedback such as are made in good faith."""


def good(draw: Random) -> Sent:
    """A request as a client would send it."""
    return DOORS[draw.choice(list(DOORS))](draw)


def spoilt(seed: int) -> Sent:
    """The request of a seed. One in eight is left as it is."""
    draw = Random(seed)  # noqa: S311 - to be had again, not to be secret
    sent = good(draw)
    how = draw.choice(list(_SPOILERS))
    return replace(_SPOILERS[how](draw, sent), kind=how)


def _a_value(draw: Random, sent: Sent) -> Sent:
    """One or several changes of values, the form kept."""
    length = int(sent.headers.get(HEADER_LENGTH, len(sent.body)))
    packed = sent.headers["content-type"] == "application/msgpack"
    document = msgspec.msgpack.decode(sent.body) if packed else json.loads(sent.body[:length])
    for _ in range(draw.choice((1, 1, 1, 3))):
        document = change_value(draw, document)
    if packed:
        try:
            return replace(sent, body=msgspec.msgpack.encode(document))
        except (OverflowError, ValueError):  # an integer that the format does not have
            return sent
    if HEADER_LENGTH in sent.headers:
        return _framed(document, sent.body[length:])
    return replace(sent, body=json.dumps(document).encode())


def _a_text(draw: Random, sent: Sent) -> Sent:
    """A piece of JSON in the place of another, well formed or not."""
    places = [at for at, byte in enumerate(sent.body) if byte in b'{[":,]}0123456789']
    if not places:
        return sent
    first, last = sorted((draw.choice(places), draw.choice(places)))
    last = draw.choice((first, min(last, first + 8), last))
    piece = draw.choice(_TEXTS).encode("utf-8", "surrogatepass")
    body = sent.body[:first] + piece + sent.body[last:]
    if HEADER_LENGTH in sent.headers and draw.randrange(2):
        length = int(sent.headers[HEADER_LENGTH]) + len(body) - len(sent.body)
        return replace(sent, body=body, headers={**sent.headers, HEADER_LENGTH: str(length)})
    return replace(sent, body=body)


def _bytes(draw: Random, sent: Sent) -> Sent:
    return replace(sent, body=damaged(draw.choice(list(KINDS)), draw, sent.body))


def _a_header(draw: Random, sent: Sent) -> Sent:
    name, values = draw.choice(
        (
            (HEADER_LENGTH, _LENGTHS),
            (
                "content-type",
                ("application/json", "application/msgpack", "text/plain", "multipart/form-data", "", "\xff"),
            ),
            ("accept", ("application/msgpack", "*/*;q=0", ",,;q=x", "text/html")),
            ("accept-encoding", ("gzip", "gzip;q=0", "*;q=nan", "br, , gzip;q=2")),
            ("content-encoding", ("gzip", "deflate", "br", "gzip, gzip", "identity")),
            ("traceparent", ("00-" + "f" * 32 + "-" + "0" * 16 + "-01", "x")),
            ("x-request-deadline-ms", ("x", "-1", "1e9", "9" * 30, "", "60000", "٣")),
            ("x-request-priority", ("high", "low", "x", "")),
            ("authorization", ("Bearer x", "Basic eDp4", "")),
            ("x-request-id", ("r" * 5000, "a b", "\xe9")),
        )
    )
    return replace(sent, headers={**sent.headers, name: draw.choice(values)})


def _compressed(draw: Random, sent: Sent) -> Sent:
    """Compressed, and that perhaps damaged, cut off, nested, or of what takes more room than it may."""
    once = gzip.compress(sent.body, mtime=0)  # no time in it: the same again for the same seed
    packed = draw.choice((once, once, once, gzip.compress(once, mtime=0), _BOMB))
    if draw.randrange(2):
        packed = damaged(draw.choice(list(KINDS)), draw, packed)
    return replace(sent, body=packed, headers={**sent.headers, "content-encoding": "gzip"})


def _elsewhere(draw: Random, sent: Sent) -> Sent:
    """The same at another door."""
    paths = (
        *(door(draw).path for door in DOORS.values()),
        "/v2/models/other/infer",
        "/v2/models/small/versions/9/infer",
    )
    return replace(sent, path=draw.choice((*paths, "/score/", "//score", "/score?x=%ff", "/%2e%2e/score", "/metrics")))


_SPOILERS: Final[dict[str, Callable[[Random, Sent], Sent]]] = {
    "good": lambda _, sent: sent,
    "value": _a_value,
    "values": _a_value,
    "text": _a_text,
    "bytes": _bytes,
    "header": _a_header,
    "compressed": _compressed,
    "elsewhere": _elsewhere,
}
