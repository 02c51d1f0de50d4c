"""Real requests to measure with: a bundle's golden rows, as many as a request needs, round and round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from service.bench.bodies import make_bodies
from service.bench.rows import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from service.bundle_format.golden import GoldenRow
    from service.features import FeatureEncoder, Side

__all__ = ["FORMS", "Feed", "bodies", "golden_feeds", "spread_feeds"]

Feed = tuple["NDArray[np.int32]", "NDArray[np.int32]"]
"""Context ids (1, Cc) and candidate ids (N, Ci) of one request."""

DISTINCT: Final = 32
FORMS: Final = ("rows", "columns")


def bodies(golden: Sequence[GoldenRow], candidates: int, form: str = "rows", count: int = DISTINCT) -> list[bytes]:
    """JSON bodies of `/score`, as the load tool makes them: each begins at another row, whose context it takes.

    Args:
        golden: Real raw rows.
        candidates: Candidates a request.
        form: One of `FORMS`.
        count: Most bodies.
    """
    rows = [Row(row.context, row.candidate) for row in golden]
    return [body.content for body in make_bodies(rows, candidates=candidates, form=form, count=count)]


def golden_feeds(golden: Sequence[GoldenRow], candidates: int) -> list[Feed]:
    """Ids of the same requests. Few distinct rows: whatever they read of the tables is in the processor's caches."""
    distinct = min(DISTINCT, len(golden))
    starts = [place * len(golden) // distinct for place in range(distinct)]
    requests = [[golden[(start + step) % len(golden)] for step in range(candidates)] for start in starts]
    return [
        (
            np.array([rows[0].context_ids], np.int32).reshape(1, -1),
            np.array([row.candidate_ids for row in rows], np.int32).reshape(candidates, -1),
        )
        for rows in requests
    ]


def spread_feeds(encoder: FeatureEncoder, candidates: int, seed: int = 1) -> list[Feed]:
    """Ids drawn evenly from each field's whole table: what they read is in no cache. Real traffic lies between."""
    rng = np.random.default_rng(seed)

    def ids(side: Side, rows: int) -> NDArray[np.int32]:
        parts = []
        for column in encoder.columns(side):
            vocabulary = encoder.vocabulary(column.name)
            parts.append(rng.integers(0, len(vocabulary), (rows, column.width)))
        return np.concatenate(parts, axis=1).astype(np.int32) if parts else np.zeros((rows, 0), np.int32)

    return [(ids("context", 1), ids("candidate", candidates)) for _ in range(DISTINCT)]
