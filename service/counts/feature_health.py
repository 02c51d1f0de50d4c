"""What the features of live requests look like, beside what training saw.

Counting zeros and ones of an id matrix costs numpy about ten microseconds however small the matrix: more than
encoding a one-row request. So matrices are counted in batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from service.counts.stability import Stability

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.counts.cells import Cells
    from service.counts.histogram import Histogram
    from service.counts.stability import BinCounts
    from service.features.encoder import FeatureEncoder

__all__ = [
    "SAMPLED_ROWS",
    "SCORE_BOUNDS",
    "FeatureHealth",
    "FieldCounts",
    "ScoreRepeats",
    "field_ratios",
    "score_bounds",
]

# Rows of a batch that are enough to look at its fields.
SAMPLED_ROWS: Final = 256
MISSING_ID: Final = 0
OUT_OF_VOCABULARY_ID: Final = 1
# Click probabilities are small, so buckets are geometric.
SCORE_BOUNDS: Final = tuple(float(f"{10 ** (k / 4):.3g}") for k in range(-16, 1))


class FieldCounts:
    """Live counts of one field, and its ratios in training.

    Args:
        cells: Where the numbers live.
        name: What workers share them under.
        reference: Ratios in training by name (`missing`, `out_of_vocabulary`).
    """

    __slots__ = ("_cells", "first", "reference")

    def __init__(self, cells: Cells, name: str, reference: Mapping[str, float]) -> None:
        self._cells = cells
        self.first = cells.take(name, 3)
        self.reference = reference

    @property
    def values(self) -> float:
        """Values read, missing ones included: one a request for a context field, one a candidate otherwise."""
        return self._cells.totals(self.first)[0]

    @property
    def missing(self) -> float:
        """Of these, the missing ones."""
        return self._cells.totals(self.first + 1)[0]

    @property
    def out_of_vocabulary(self) -> float:
        """Of these, the ones that held at least one token without an id of its own."""
        return self._cells.totals(self.first + 2)[0]


class ScoreRepeats:
    """Counts candidates with the same score as the one counted before them: all of them, if a model says one thing.

    Args:
        cells: Where the number lives.
        name: What workers share it under.
    """

    __slots__ = ("_cells", "_last", "_place")

    def __init__(self, cells: Cells, name: str) -> None:
        self._cells = cells
        self._last = np.float32(np.nan)  # equals nothing
        self._place = cells.take(name, 1)

    def count(self, scores: NDArray[np.float32]) -> None:
        """Count them among scores (N,)."""
        repeats = np.count_nonzero(scores[1:] == scores[:-1]) + int(scores[0] == self._last)
        self._cells.values[self._place] += float(repeats)
        self._last = scores[-1]

    @property
    def total(self) -> float:
        """Such candidates of all workers."""
        return self._cells.totals(self._place)[0]


class FeatureHealth:
    """Counts values of fields, and scores.

    Args:
        cells: Where the numbers live.
        encoder: The serving encoder; its columns are those of the id matrices.
        fields: Where values of each field are counted.
        scores: Where scores are counted.
        repeats: Where those are that are as the one before.
        bins: Where values of fields are counted by bin.
    """

    def __init__(
        self,
        cells: Cells,
        encoder: FeatureEncoder,
        fields: Mapping[str, FieldCounts],
        scores: Histogram,
        *,
        repeats: ScoreRepeats,
        bins: Mapping[str, BinCounts],
    ) -> None:
        self._stability = {side: Stability(cells, encoder, side, bins) for side in ("context", "candidate")}
        self._repeats = repeats
        self._random = np.random.default_rng()
        self._columns = {side: encoder.columns(side) for side in ("context", "candidate")}
        self.fields = fields
        self._cells = np.asarray(cells.values)
        # Of each side: columns of fields that have one, and where these are counted.
        self._single = {
            side: (
                np.array([column.first for column in columns if column.width == 1], np.intp),
                np.array([self.fields[column.name].first for column in columns if column.width == 1], np.intp),
            )
            for side, columns in self._columns.items()
        }
        self._scores = scores

    def count(
        self,
        contexts: NDArray[np.int32],
        candidates: NDArray[np.int32],
        scores: NDArray[np.float32],
    ) -> None:
        """Count what requests were encoded to, (M, Cc) and (N, Ci), and their scores (N,); M is N at most.

        Of many rows a sample: what is shown of fields are shares.
        """
        self._count("context", self._sample(contexts))
        self._count("candidate", self._sample(candidates))
        self._scores.observe_array(scores)
        self._repeats.count(scores)

    def _sample(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        if len(ids) <= SAMPLED_ROWS:
            return ids
        # By chance: requests are alike in length, and every so many-th row might always be the first of one.
        return ids[self._random.integers(len(ids), size=SAMPLED_ROWS)]

    def _count(self, side: str, ids: NDArray[np.int32]) -> None:
        self._stability[side].count(ids)
        cells, rows = self._cells, len(ids)
        unknown_mask = ids == OUT_OF_VOCABULARY_ID
        missing = _down_the_columns(ids == MISSING_ID)
        columns, places = self._single[side]
        cells[places] += rows
        cells[places + 1] += missing[columns]
        cells[places + 2] += _down_the_columns(unknown_mask)[columns]
        for column in self._columns[side]:
            first, width = column.first, column.width
            if width > 1:
                place = self.fields[column.name].first
                cells[place] += rows
                # A missing multi-value is the missing id once, in its first column, and padding after it.
                cells[place + 1] += missing[first]
                cells[place + 2] += np.count_nonzero(unknown_mask[:, first : first + width].any(axis=1))


def _down_the_columns(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Set values a column; twice as fast as numpy's sum, and (unlike a product of matrices) with no thread's help."""
    counts: NDArray[np.int32] = np.einsum("ij->j", mask.view(np.int8), dtype=np.int32)
    return counts


def score_bounds(reference: Mapping[str, Any]) -> tuple[float, ...]:
    """Upper bounds for live scores: the ones training's histogram has, so that the two can be compared."""
    edges = reference.get("score_histogram", {}).get("edges", ())
    bounds = tuple(float(edge) for edge in edges[1:])
    ascending = all(low < high for low, high in itertools.pairwise(bounds))
    return bounds if bounds and ascending else SCORE_BOUNDS


def field_ratios(encoder: FeatureEncoder, reference: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of each field that the encoder reads: its ratios in training, as far as `reference.json` has them."""
    known = reference.get("fields", {})
    return {
        column.name: _ratios(known.get(column.name))
        for side in ("context", "candidate")
        for column in encoder.columns(side)
    }


def _ratios(entry: Any) -> dict[str, float]:
    if not isinstance(entry, Mapping):
        return {}
    return {name: float(entry[name]) for name in ("missing", "out_of_vocabulary") if name in entry}
