"""How live values of fields are spread, beside how they were in training: what a population stability index is made of.

Ids of a field fall into few bins: missing, unknown, the ids that training saw most in groups of about the same share,
and the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from service.features import MISSING, OUT_OF_VOCABULARY, PAD, MultiValuedField

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.counts.cells import Cells
    from service.features.encoder import FeatureEncoder

__all__ = ["BinCounts", "FieldBins", "Stability", "field_bins", "score_shares"]

_GROUPS: Final = 8
# Named ids of hashed fields may be large; these stay apart, the others count as the rest.
_LARGEST_ID: Final = 1 << 16


class FieldBins(msgspec.Struct, frozen=True):
    """Bins of one field.

    Attributes:
        names: Values of the label `bin`.
        shares: Of training's values, one a bin.
        ids: Of each bin; the last holds all that no other does.
    """

    names: tuple[str, ...]
    shares: tuple[float, ...]
    ids: tuple[tuple[int, ...], ...]


def field_bins(encoder: FeatureEncoder, reference: Mapping[str, Any]) -> dict[str, FieldBins]:
    """Bins of each field that is read and of which `reference.json` has a histogram."""
    entries = reference.get("fields", {})
    found = {}
    for side in ("context", "candidate"):
        for column in encoder.columns(side):
            entry = entries.get(column.name)
            several = isinstance(encoder.field(column.name), MultiValuedField)
            bins = _bins(entry, int(reference.get("rows", 0)), several=several) if isinstance(entry, Mapping) else None
            if bins is not None:
                found[column.name] = bins
    return found


def _bins(entry: Mapping[str, Any], rows: int, *, several: bool) -> FieldBins | None:
    histogram = entry.get("histogram")
    if not isinstance(histogram, Mapping):
        return None
    named = dict(zip(histogram.get("ids", ()), histogram.get("counts", ()), strict=True))
    total = sum(named.values()) + histogram.get("other", 0)
    if not total:
        return None
    # Those two need not be among the most frequent.
    missing = named.pop(MISSING, None)
    if missing is None:
        missing = min(total, round(entry.get("missing", 0.0) * rows))
    unknown = named.pop(OUT_OF_VOCABULARY, None)
    if unknown is None:  # where a row has several values, rows do not say how many: few, and among the rest
        unknown = 0 if several else min(total, round(entry.get("out_of_vocabulary", 0.0) * total))
    groups = _groups({number: count for number, count in named.items() if number < _LARGEST_ID})
    counts = [missing, unknown, *(sum(named[number] for number in group) for group in groups)]
    names = ("missing", "unknown", *(str(place) for place in range(1, len(groups) + 1)), "rest")
    shares = tuple(count / total for count in (*counts, max(0, total - sum(counts))))
    return FieldBins(names, shares, ((MISSING,), (OUT_OF_VOCABULARY,), *groups, ()))


def _groups(named: Mapping[int, int]) -> list[tuple[int, ...]]:
    """Ids, the most frequent first, in groups of an eighth of all of them or more."""
    least = sum(named.values()) / _GROUPS
    groups: list[tuple[int, ...]] = []
    group: list[int] = []
    held = 0
    for number, count in sorted(named.items(), key=lambda item: (-item[1], item[0])):
        group.append(number)
        held += count
        if held >= least:
            groups.append(tuple(group))
            group, held = [], 0
    return [*groups, tuple(group)] if group else groups


def score_shares(reference: Mapping[str, Any], bounds: Sequence[float]) -> tuple[float, ...]:
    """Share of training's scores at or under each bound; empty where `reference.json` has other ones, or none."""
    histogram = reference.get("score_histogram", {})
    counts = histogram.get("counts", ())
    if tuple(histogram.get("edges", ())[1:]) != tuple(bounds) or not sum(counts):
        return ()
    shares: list[float] = (np.cumsum(counts) / sum(counts)).tolist()
    return tuple(shares)


class BinCounts:
    """Live counts of one field, a cell a bin.

    Args:
        cells: Where the numbers live.
        name: What workers share them under.
        bins: The field's bins.
    """

    __slots__ = ("_cells", "bins", "first")

    def __init__(self, cells: Cells, name: str, bins: FieldBins) -> None:
        self._cells = cells
        self.bins = bins
        self.first = cells.take(name, len(bins.names))

    @property
    def counts(self) -> list[float]:
        """Values of all workers, a bin each."""
        return self._cells.totals(self.first, len(self.bins.names))


class Stability:
    """Counts values of fields by bin, of one side.

    Args:
        cells: Where the numbers live.
        encoder: The serving encoder; its columns are those of the id matrices.
        side: Whose fields.
        fields: Where values of each field are counted.
    """

    def __init__(self, cells: Cells, encoder: FeatureEncoder, side: str, fields: Mapping[str, BinCounts]) -> None:
        self._cells = np.asarray(cells.values)
        columns = [column for column in encoder.columns(side) if column.name in fields]  # type: ignore[arg-type]
        tables = [self._table(fields[c.name].bins, several=c.width > 1) for c in columns]
        # One table after the other, of bins numbered through; a column begins where its field's table does.
        starts = np.concatenate(([0], np.cumsum([len(table) for table in tables])))[:-1].astype(np.intp)
        numbers = np.concatenate(([0], np.cumsum([len(fields[c.name].bins.names) + 1 for c in columns])))
        self._table_of_all = np.concatenate(
            [table + number for table, number in zip(tables, numbers, strict=False)] or [np.zeros(0, np.intp)]
        )
        self._bins = int(numbers[-1])
        places = [(column.first + n, place) for place, column in enumerate(columns) for n in range(column.width)]
        self._columns = np.array([column for column, _ in places], np.intp)
        self._starts = np.array([starts[place] for _, place in places], np.intp)
        self._last = np.array([len(tables[place]) - 1 for _, place in places], np.intp)
        # The last number of a field is for what is no value: its cell is a bin's of nobody.
        kept = [
            (numbers[place] + n, fields[c.name].first + n)
            for place, c in enumerate(columns)
            for n in range(len(fields[c.name].bins.names))
        ]
        self._kept = np.array([number for number, _ in kept], np.intp)
        self._places = np.array([place for _, place in kept], np.intp)

    @staticmethod
    def _table(bins: FieldBins, *, several: bool) -> NDArray[np.intp]:
        """The bin of each id up to one more than the largest that has one of its own; further ones are as that."""
        largest = max((number for group in bins.ids for number in group), default=0)
        table = np.full(max(largest, PAD) + 2, len(bins.names) - 1, np.intp)
        for place, group in enumerate(bins.ids):
            table[list(group)] = place
        if several:
            table[PAD] = len(bins.names)
        return table

    def count(self, ids: NDArray[np.int32]) -> None:
        """Count rows of ids (N, C)."""
        if not len(self._columns):
            return
        numbers = self._table_of_all[np.minimum(ids[:, self._columns], self._last) + self._starts]
        counts = np.bincount(numbers.ravel(), minlength=self._bins)
        self._cells[self._places] += counts[self._kept]
