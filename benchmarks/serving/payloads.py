"""Request bodies: the same rows in the form of every server, and whole HTTP requests ready to send."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from benchmarks.serving.job import CATEGORICAL, CONTEXT, NUMERIC, OWN, SIZES, Row, key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

MODEL_ID: Final = "bench"
JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"

BODIES: Final = {1: 256, 10: 64, 30: 32, 100: 16, 300: 8, 1000: 4}
"""Distinct bodies by rows a request: enough that no cache holds them all, few enough to be written at once."""

NO_NUMBER: Final = -1e30
"""Stands for a missing number where a protocol has no null, by an agreement with the servers that speak it."""

_LENGTH_DIGITS: Final = 10
_MISSING_NUMBER: Final = 0.15
_MISSING_TEXT: Final = 0.04
_UNSEEN_TEXT: Final = 0.03
_LARGEST_NUMBER: Final = 500


def random_row(generator: np.random.Generator) -> Row:
    """A row as a click log has them: few hot texts, a long tail, some missing and some never seen."""
    row: Row = {}
    for name in NUMERIC:
        missing = generator.random() < _MISSING_NUMBER
        row[name] = None if missing else int(_LARGEST_NUMBER ** generator.random()) - 1
    for field, name in enumerate(CATEGORICAL):
        draw = generator.random()
        if draw < _MISSING_TEXT:
            row[name] = None
        elif draw < _MISSING_TEXT + _UNSEEN_TEXT:
            row[name] = f"{generator.integers(2**32):08x}"
        else:
            row[name] = key(field, int((SIZES[field] + 1) ** generator.random()) - 1)
    return row


def random_batches(rows: int, count: int, *, shared: bool, seed: int = 7) -> list[list[Row]]:
    """Rows of `count` requests.

    Args:
        rows: Rows a request.
        count: Requests.
        shared: The rows of a request share the context's fields: one context, many candidates.
        seed: The same seed gives the same rows.
    """
    generator = np.random.default_rng([seed, rows, shared])
    batches = [[random_row(generator) for _ in range(rows)] for _ in range(count)]
    if shared:
        batches = [[row | {name: batch[0][name] for name in CONTEXT} for row in batch] for batch in batches]
    return batches


# ---- one batch of rows as the body of a server


def _side(row: Mapping[str, Any], names: Sequence[str]) -> Row:
    return {name: row[name] for name in names}


def _columns(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in names}


def full_rows(rows: Sequence[Row]) -> Row:
    """Every field in every row, as tutorials take them."""
    return {"rows": list(rows)}


def instances(rows: Sequence[Row]) -> Row:
    """The same in KServe's first protocol."""
    return {"instances": list(rows)}


def matrices(rows: Sequence[Row]) -> Row:
    """The same as two Open Inference Protocol tensors, numbers and texts, row by row."""
    numbers = [NO_NUMBER if row[name] is None else row[name] for row in rows for name in NUMERIC]
    texts = [row[name] or "" for row in rows for name in CATEGORICAL]
    return {
        "inputs": [
            {"name": "num", "shape": [len(rows), len(NUMERIC)], "datatype": "FP64", "data": numbers},
            {"name": "cat", "shape": [len(rows), len(CATEGORICAL)], "datatype": "BYTES", "data": texts},
        ]
    }


def ranking_rows(rows: Sequence[Row]) -> Row:
    """One context, and an object a candidate."""
    return {"context": _side(rows[0], CONTEXT), "candidates": [_side(row, OWN) for row in rows]}


def ranking_columns(rows: Sequence[Row]) -> Row:
    """One context, and an array a candidate field."""
    return {"context": _side(rows[0], CONTEXT), "candidates": _columns(rows, OWN)}


def pointwise_rows(rows: Sequence[Row]) -> Row:
    """No context: every field in every candidate."""
    return {"candidates": list(rows)}


def pointwise_columns(rows: Sequence[Row]) -> Row:
    """No context: an array a field."""
    return {"candidates": _columns(rows, (*NUMERIC, *CATEGORICAL))}


def binary_tensors(rows: Sequence[Row]) -> tuple[bytes, bytes]:
    """Open Inference Protocol with binary tensors, one a field: the JSON head, and the bytes after it.

    A context field is a tensor of one element. Numbers are FP32, a missing one NaN; a missing text is empty.
    """
    tensors, parts = [], []
    for name in (*CONTEXT, *OWN):
        values = [row[name] for row in (rows[:1] if name in CONTEXT else rows)]
        if name in NUMERIC:
            content = np.array([np.nan if value is None else value for value in values], "<f4").tobytes()
        else:
            texts = [(value or "").encode() for value in values]
            content = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
        kind = "FP32" if name in NUMERIC else "BYTES"
        size = {"binary_data_size": len(content)}
        tensors.append({"name": name, "shape": [len(values)], "datatype": kind, "parameters": size})
        parts.append(content)
    return to_json({"inputs": tensors, "parameters": {"binary_data_output": True}}), b"".join(parts)


def to_json(document: Row) -> bytes:
    """Compact JSON."""
    return json.dumps(document, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Schema:
    """A way to write a batch.

    Attributes:
        document: Rows to a document.
        encode: A document to bytes.
        media_type: What the bytes are.
        path: Where they go, if not to the contestant's own path.
    """

    document: Callable[[Sequence[Row]], Row]
    encode: Callable[[Row], bytes] = to_json
    media_type: str = JSON
    path: str | None = None

    def body(self, rows: Sequence[Row]) -> bytes:
        """The bytes of a batch."""
        return self.encode(self.document(rows))

    def request(self, path: str, rows: Sequence[Row]) -> bytes:
        """A whole HTTP/1.1 request for a batch."""
        return http_post(self.path or path, self.media_type, self.body(rows))


class BinarySchema(Schema):
    """Tensors as bytes after their description."""

    def body(self, rows: Sequence[Row]) -> bytes:
        """The bytes of a batch."""
        return b"".join(binary_tensors(rows))

    def request(self, path: str, rows: Sequence[Row]) -> bytes:
        """A whole HTTP/1.1 request for a batch, with the length of its JSON part."""
        head, tail = binary_tensors(rows)
        length = f"Inference-Header-Content-Length: {len(head)}\r\n"
        return http_post(self.path or path, self.media_type, head + tail, length)


SCHEMAS: Final[dict[str, Schema]] = {
    "rows": Schema(full_rows),
    "instances": Schema(instances),
    "oip": Schema(matrices),
    "listwise": Schema(ranking_rows),
    "columns": Schema(ranking_columns),
    "msgpack": Schema(ranking_columns, msgspec.msgpack.encode, MSGPACK),
    "binary": BinarySchema(ranking_columns, media_type="application/octet-stream", path=f"/v2/models/{MODEL_ID}/infer"),
    "pointwise": Schema(pointwise_rows),
    "pointwise_columns": Schema(pointwise_columns),
    "pointwise_msgpack": Schema(pointwise_columns, msgspec.msgpack.encode, MSGPACK),
}


def http_post(path: str, media_type: str, body: bytes, lines: str = "") -> bytes:
    """A whole HTTP/1.1 request with a body, and further header lines."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {media_type}\r\n{lines}"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def write_requests(path: Path, requests: Sequence[bytes]) -> None:
    """Write requests as `post.lua` reads them: ten digits of length, then the request, and so on."""
    path.write_bytes(b"".join(b"%0*d" % (_LENGTH_DIGITS, len(request)) + request for request in requests))


def read_requests(path: Path) -> list[bytes]:
    """Read them again."""
    content = path.read_bytes()
    requests: list[bytes] = []
    at = 0
    while at < len(content):
        length = int(content[at : at + _LENGTH_DIGITS])
        requests.append(content[at + _LENGTH_DIGITS : at + _LENGTH_DIGITS + length])
        at += _LENGTH_DIGITS + length
    return requests
