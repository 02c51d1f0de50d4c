"""Measures one field alone: its information about the label, and whether noise could look like that."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from training.field_selection.field_views import dense
from training.field_selection.information import (
    LabelTable,
    entropy,
    information_about_label,
    mutual_information_miller_madow,
    permutation_null,
    relevance,
)
from training.field_selection.intervals import interval, pointwise_variance
from training.field_selection.measures import FieldMeasure
from training.field_selection.screening import conditional_test, stratify

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.field_selection.field_views import SlotLike, View

BITS: Final = 1.0 / log(2.0)
SHUFFLES: Final = 16  # for the chance level of a clustered field's information
HEAD: Final = 32  # frequent values that are tested apart from the tail
LEVEL_ROWS: Final = 10  # rows a cluster, on average, from which on its own level is worth a field
SAME_PARTITION: Final = 0.9  # share of the clusters' entropy that a field has which names them; rare ones share an id


@dataclass(frozen=True)
class Sample:
    """The rows that pairs are measured on.

    Attributes:
        slots: the fields.
        views: their codes.
        label: (N,) 0 or 1.
        groups: (N,) cluster of every row in 0..C-1, or None.
    """

    slots: tuple[SlotLike, ...]
    views: tuple[View, ...]
    label: NDArray[np.uint8]
    groups: NDArray[np.int64] | None

    def units(self, view: View, codes: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Rows that are one piece of evidence about a clustered field: of one cluster and one value."""
        if self.groups is None or not view.clustered:
            return None
        return self.groups if view.constant else dense(self.groups * (int(codes.max()) + 1) + codes)


def measure_alone(sample: Sample, index: int, table: LabelTable | None, rng: np.random.Generator) -> FieldMeasure:
    """Measure one field: on all rows if it can be, on the sample (between clusters) otherwise.

    Args:
        sample: the sampled rows.
        index: of the field.
        table: rows and positives of every value in all rows; None for a multi-valued field.
        rng: for shuffles of clusters.

    The p-value is the least over the field's views, times their number: all values, of a long tail also the frequent
    ones against the rest (whose few degrees of freedom a tail without evidence would drown), of sets also a value each.
    """
    slot, view = sample.slots[index], sample.views[index]
    multi_valued = table is None
    if table is None or view.clustered:
        table = LabelTable.count(view.exact, sample.label, view.size)
    head = head_codes(table.total)
    if view.clustered:
        plug_in, noise, spread, p_value = _between_clusters(sample, view, table, rng)
    else:
        found = relevance(table)
        plug_in, noise, spread, p_value = found.plug_in, found.null.mean, sqrt(found.null.variance), found.p_value
    p_values = [p_value]
    if head is not None and view.clustered:
        p_values.append(_score(sample, view, head[view.exact], HEAD + 1))
    elif head is not None:
        counts = (np.bincount(head, count, HEAD + 1).astype(np.int64) for count in (table.total, table.positive))
        p_values.append(relevance(LabelTable(*counts)).p_value)
    if multi_valued:
        p_values.append(_score(sample, view, view.pair, view.pair_size))
    first_order = pointwise_variance(table) / table.rows
    if view.clustered:
        # As many rows as the units are evidence for, by what likeness within units does to the spread for noise.
        by_rows = permutation_null(table.total, table.positives).variance
        first_order *= max(1.0, spread**2 / by_rows) if by_rows > 0.0 else 1.0
    low, high = interval(plug_in - noise, first_order / plug_in if plug_in > 0.0 else 0.0, spread**2)
    joint = np.stack([table.total - table.positive, table.positive], 1)
    return FieldMeasure(
        name=slot.name,
        side=slot.side,
        rows=slot.rows,
        seen=int(np.count_nonzero(table.total)),
        entropy_bits=entropy(table.total) * BITS,
        plug_in_bits=plug_in * BITS,
        noise_bits=noise * BITS,
        information_bits=(plug_in - noise) * BITS,
        spread_bits=spread * BITS,
        p_value=min(1.0, len(p_values) * min(p_values)),
        clustered=view.clustered,
        level_p_value=relevance(table).p_value if names_clusters(sample, view) else 1.0,
        low_bits=low * BITS,
        high_bits=high * BITS,
        miller_madow_bits=mutual_information_miller_madow(joint) * BITS,
    )


def names_clusters(sample: Sample, view: View) -> bool:
    """Whether a field is (nearly) the cluster itself, and clusters are so large that each has a measurable level."""
    if sample.groups is None or not view.constant:
        return False
    rows = np.bincount(sample.groups)
    return len(sample.label) >= LEVEL_ROWS * rows.size and view.entropy >= SAME_PARTITION * entropy(rows)


def head_codes(total: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The most frequent values' places in order, and `HEAD` for all others (V,); None where there is no long tail."""
    if np.count_nonzero(total) <= 2 * HEAD:
        return None
    place = np.empty(total.size, np.int64)
    place[np.argsort(-total, kind="stable")] = np.arange(total.size)
    return np.minimum(place, HEAD)


def _score(sample: Sample, view: View, codes: NDArray[np.int64], size: int) -> float:
    """The p-value of codes (N,) of a field, by the quadratic form."""
    strata = stratify(np.zeros_like(codes), 1, sample.label, sample.units(view, codes))
    return conditional_test(codes, size, strata).p_value


def _between_clusters(
    sample: Sample, view: View, table: LabelTable, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Plug-in information, its mean and spread for noise, and the p-value, with clusters' values shuffled (nats)."""
    units = sample.units(view, view.exact)
    strata = stratify(np.zeros_like(view.exact), 1, sample.label, units)
    test = conditional_test(view.exact, view.size, strata)
    _, row, unit, n = np.unique(np.asarray(units), return_index=True, return_inverse=True, return_counts=True)
    by_size = np.argsort(n, kind="stable")
    value, place = view.exact[row], np.empty_like(row)
    shuffled = []
    for _ in range(SHUFFLES):
        # Among units of one size: a value's number of rows may depend on it.
        place[by_size] = np.lexsort((rng.random(n.size), n))
        shuffled.append(information_about_label(LabelTable.count(value[place][unit], sample.label, view.size)))
    spread = sqrt(test.null.variance) / (2.0 * strata.variance)
    return information_about_label(table), float(np.mean(shuffled)), spread, test.p_value
