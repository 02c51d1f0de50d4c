"""Request bodies, made of raw rows in every form that the service takes, or read from a file."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from service.bench.errors import BodyError
from service.bench.load import Body
from service.wire import JSON, MSGPACK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from service.bench.rows import Row

__all__ = ["BODY_BYTES", "FORMS", "INFER_FORMS", "body_file", "distinct_rows", "make_bodies"]

BODY_BYTES: Final = 64 << 20  # of all bodies: beyond every cache of a processor, and little enough to hold
_WEIGHED_BODIES: Final = 8
_WEIGHED_CANDIDATES: Final = 256
_INT64: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class _Ranking:
    """One ranking decision: the context of the first row, and the candidates of all.

    `separators` split the text form of multi-valued fields, by name, as far as they are known.
    """

    rows: Sequence[Row]
    top_k: int | None
    separators: Mapping[str, str]

    @property
    def context(self) -> dict[str, Any]:
        return self.rows[0].context

    @property
    def columns(self) -> dict[str, list[Any]]:
        names = {name: None for row in self.rows for name in row.candidate}
        return {name: [row.candidate.get(name) for row in self.rows] for name in names}

    def document(self, candidates: Any, *, context: bool = True) -> dict[str, Any]:
        document: dict[str, Any] = {"context": self.context} if context and self.context else {}
        document["candidates"] = candidates
        if self.top_k is not None:
            document["top_k"] = self.top_k
        return document


def _json(document: Any) -> bytes:
    # The standard library's: integers of any size.
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _rows(ranking: _Ranking) -> Body:
    return Body(_json(ranking.document([row.candidate for row in ranking.rows])), JSON, len(ranking.rows))


def _columns(ranking: _Ranking) -> Body:
    return Body(_json(ranking.document(ranking.columns)), JSON, len(ranking.rows))


def _pointwise(ranking: _Ranking) -> Body:
    full = [row.context | row.candidate for row in ranking.rows]
    return Body(_json(ranking.document(full, context=False)), JSON, len(full))


def _msgpack(ranking: _Ranking) -> Body:
    return Body(msgspec.msgpack.encode(ranking.document(ranking.columns)), MSGPACK, len(ranking.rows))


@dataclass(frozen=True, slots=True)
class _Column:
    """A tensor: its elements in row-major order."""

    name: str
    datatype: str
    shape: list[int]
    elements: list[Any]


def _tensors(ranking: _Ranking) -> list[_Column]:
    """A tensor a field: reals as FP64, integers as INT64, all else as text; where there are lists, [N, K]."""
    columns = {name: [value] for name, value in ranking.context.items()} | ranking.columns
    found: list[_Column] = []
    for name, values in columns.items():
        kinds = set(map(type, values))
        if list in kinds:
            found.append(_matrix(name, values, ranking.separators.get(name)))
        elif float in kinds and kinds <= {int, float, type(None)}:
            found.append(_Column(name, "FP64", [len(values)], values))
        elif kinds == {int} and all(-_INT64 <= value < _INT64 for value in values):
            found.append(_Column(name, "INT64", [len(values)], values))
        else:
            found.append(_Column(name, "BYTES", [len(values)], [_text(value) for value in values]))
    return found


def _matrix(name: str, values: list[Any], separator: str | None) -> _Column:
    """Elements one by one, which needs no separator: the service skips the empty ones that make rows equally long."""
    rows = []
    for value in values:
        if isinstance(value, list):
            rows.append([_text(element) for element in value])
        elif not isinstance(value, str):
            rows.append([_text(value)])
        elif separator is not None or not value:
            rows.append(value.split(separator) if value else [])
        else:
            raise BodyError(
                f"field {name}: expected arrays alone, or --bundle, which says what separates several values in text; "
                f"got arrays beside the text {value[:40]!r}"
            )
    width = max(1, *map(len, rows))
    elements = [element for row in rows for element in (*row, *[""] * (width - len(row)))]
    return _Column(name, "BYTES", [len(rows), width], elements)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _oip(ranking: _Ranking) -> Body:
    inputs = [
        {"name": column.name, "shape": column.shape, "datatype": column.datatype, "data": column.elements}
        for column in _tensors(ranking)
    ]
    return Body(_json({"inputs": inputs}), JSON, len(ranking.rows))


def _oip_binary(ranking: _Ranking) -> Body:
    inputs, parts = [], []
    for column in _tensors(ranking):
        if column.datatype == "BYTES":
            texts = [value.encode() for value in column.elements]
            part = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        elif column.datatype == "FP64":
            part = np.array(column.elements, dtype="<f8").tobytes()  # None becomes NaN, which stands for missing
        else:
            part = np.array(column.elements, dtype="<i8").tobytes()
        size = {"binary_data_size": len(part)}
        inputs.append({"name": column.name, "shape": column.shape, "datatype": column.datatype, "parameters": size})
        parts.append(part)
    head = _json({"inputs": inputs, "parameters": {"binary_data_output": True}})
    return Body(
        head + b"".join(parts),
        "application/octet-stream",
        len(ranking.rows),
        (("inference-header-content-length", str(len(head))),),
    )


# Each: how a client may write one ranking decision.
FORMS: Final[dict[str, Callable[[_Ranking], Body]]] = {
    "rows": _rows,
    "columns": _columns,
    "pointwise": _pointwise,
    "msgpack": _msgpack,
    "oip": _oip,
    "oip-binary": _oip_binary,
}
INFER_FORMS: Final = frozenset({"oip", "oip-binary"})


def make_bodies(
    rows: Sequence[Row],
    *,
    candidates: int,
    form: str = "rows",
    top_k: int | None = None,
    count: int | None = None,
    separators: Mapping[str, str] | None = None,
) -> list[Body]:
    """Bodies that differ: each begins at another row, and takes as many as it needs in their order, round and round.

    Args:
        rows: Raw rows.
        candidates: Candidates a request.
        form: One of `FORMS`; `msgpack` is the columns as MessagePack, `oip` the Open Inference Protocol.
        top_k: Ask for so many places of the ranking.
        count: Most distinct bodies; None: one a row, and in any case no more than come to some `BODY_BYTES`.
        separators: Of multi-valued fields by name. Only tensors need them, and only where some rows hold arrays and
            others text.

    Raises:
        BodyError: No rows, a value that the form cannot hold, or a body of more than `BODY_BYTES`.
    """
    if not rows:
        raise BodyError("rows: expected one row or more, got none")
    if form not in FORMS:
        raise BodyError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")

    def body(start: int, length: int) -> Body:
        chosen = [rows[(start + step) % len(rows)] for step in range(length)]
        return FORMS[form](_Ranking(chosen, top_k, separators or {}))

    try:
        # Weighed by short ones: a wrong number of candidates must not fill the memory.
        length = min(candidates, _WEIGHED_CANDIDATES)
        weighed = [len(body(start, length).content) for start in _starts(len(rows), _WEIGHED_BODIES)]
        size = sum(weighed) / len(weighed) * (candidates / length)
        if size > BODY_BYTES:
            raise BodyError(
                f"candidates: expected a body of at most {BODY_BYTES >> 20} MiB, "
                f"got {candidates} candidates, some {size / (1 << 20):,.0f} MiB"
            )
        most = min(len(rows) if count is None else count, max(1, int(BODY_BYTES / size)))
        return [body(start, candidates) for start in _starts(len(rows), most)]
    except (TypeError, ValueError, OverflowError) as error:
        raise BodyError(f"form {form}: expected values that it can hold, got {error}") from error


def _starts(rows: int, bodies: int) -> list[int]:
    """The row at which each body begins, evenly spread."""
    bodies = min(bodies, rows)
    return [place * rows // bodies for place in range(bodies)]


def distinct_rows(rows: Sequence[Row], *, candidates: int, bodies: int, sent: int) -> int:
    """How many rows of different content were in what was sent.

    Args:
        rows: As given to `make_bodies`.
        candidates: Candidates a request.
        bodies: Bodies that it made.
        sent: Bodies that were sent, the first of them.
    """
    reach = min(candidates, len(rows))
    places = {(start + step) % len(rows) for start in _starts(len(rows), bodies)[:sent] for step in range(reach)}
    return len({repr(rows[place]) for place in places})


def body_file(path: Path) -> list[Body]:
    """Bodies from a file, one JSON document a line; sent as they are.

    Raises:
        BodyError: No such file, or a line that is no JSON.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BodyError(f"{path}: expected a file of bodies, got {error.strerror}") from error
    bodies = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            bodies.append(Body(line, JSON, _candidates(json.loads(line))))
        except (ValueError, RecursionError) as error:
            raise BodyError(f"{path}, line {number}: expected a JSON document, got {error}") from error
    if not bodies:
        raise BodyError(f"{path}: expected one body or more, got none")
    return bodies


def _candidates(document: Any) -> int | None:
    """Candidates of a `/score` body, None if it is none."""
    found = document.get("candidates") if isinstance(document, dict) else None
    if isinstance(found, dict):
        found = next(iter(found.values()), None)
    return len(found) if isinstance(found, list) else None
