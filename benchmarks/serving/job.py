"""The job that every server does: a raw row of 39 fields, its ids, one ONNX model, a score.

13 numbers `I1..I13` go into buckets, 26 texts `C1..C26` into vocabularies that are a formula, so that servers and
bodies need no data file. Ids are global: field after field, each with one row for "missing or never seen" first.

This is what a careful newcomer writes by hand. The service does not use it: the benchmark compares the two.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

NUMERIC: Final = tuple(f"I{number}" for number in range(1, 14))
CATEGORICAL: Final = tuple(f"C{number}" for number in range(1, 27))
FIELDS: Final = NUMERIC + CATEGORICAL
CONTEXT: Final = NUMERIC[:7] + CATEGORICAL[:19]
"""The 26 fields that the candidates of one request share; the other 13 are a candidate's own."""
OWN: Final = tuple(name for name in FIELDS if name not in CONTEXT)

EDGES: Final = tuple(round(0.5 * 1.12**k, 4) for k in range(62))
SIZES: Final = tuple(min(20_000, int(4 * 1.6**k)) for k in range(len(CATEGORICAL)))
"""Known texts a categorical field."""

_BUCKETS: Final = len(EDGES) + 1

Row = dict[str, Any]


def key(field: int, number: int) -> str:
    """The `number`-th known text of categorical field `field`; a bijection on 32 bits, so no two are alike."""
    return f"{(number * 2654435761 + field * 40503 + 12345) & 0xFFFFFFFF:08x}"


def rows_of_fields() -> dict[str, int]:
    """Rows of each field's table: missing or unseen, then buckets or texts."""
    return dict.fromkeys(NUMERIC, 1 + _BUCKETS) | {name: 1 + n for name, n in zip(CATEGORICAL, SIZES, strict=True)}


def _starts() -> dict[str, int]:
    starts: dict[str, int] = {}
    at = 0
    for name, rows in rows_of_fields().items():
        starts[name] = at
        at += rows
    return starts


_STARTS: Final = _starts()


class Job:
    """Scores rows.

    Args:
        model: An ONNX graph, `ids` int64 (N, 39) to `p` float (N, 1).
    """

    def __init__(self, model: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._texts = [
            {key(field, number): _STARTS[name] + 1 + number for number in range(SIZES[field])}
            for field, name in enumerate(CATEGORICAL)
        ]

    def ids(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
        """Ids (N, 39)."""
        ids = np.empty((len(FIELDS), len(rows)), np.int64)
        for place, name in enumerate(NUMERIC):
            start = _STARTS[name]
            ids[place] = [
                start if (value := row[name]) is None else start + 1 + bisect_right(EDGES, value) for row in rows
            ]
        for place, name in enumerate(CATEGORICAL):
            find, start = self._texts[place].get, _STARTS[name]
            ids[len(NUMERIC) + place] = [find(row[name], start) for row in rows]
        return np.ascontiguousarray(ids.T)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[float]:
        """Scores, one a row."""
        scores: list[float] = self._session.run(None, {"ids": self.ids(rows)})[0][:, 0].tolist()
        return scores
