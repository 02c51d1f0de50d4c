"""Measures the fields: one pass over the training rows, then every pair on a stated sample of them.

Single-valued fields are counted over all rows, in blocks whose tables merge, so memory does not grow with the rows.
Pairs, multi-valued and clustered fields are measured on up to `pair_rows` rows.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from training.field_selection.additive import additive_expectation
from training.field_selection.field_views import View, dense, sample_rows, slot_columns, view_field
from training.field_selection.information import LabelTable, adjusted_p_values, entropy
from training.field_selection.interactions import interactions
from training.field_selection.measures import Copy, FieldMeasure, Measures
from training.field_selection.screening import (
    LARGEST_TABLE,
    Strata,
    adjusted_redundancy,
    conditional_test,
    greedy_order,
    joint_entropy,
    stratify,
)
from training.field_selection.single_fields import BITS, Sample, measure_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from training.field_selection.field_views import SlotLike

BLOCK_ROWS: Final = 1 << 18
SURE: Final = 1e-3  # adjusted p-value under which a field informs alone, for the model of all that do
ROUNDS: Final = 3  # of adding fields that are found beyond that model
REDUNDANCY_ROWS: Final = 100_000  # that entropies of pairs are counted on, at most: exact values, memory by the rows
SIMILAR: Final = 0.9  # entropies nearer than this may be those of copies


def measure(
    context_ids: NDArray[np.int32],
    candidate_ids: NDArray[np.int32],
    label: NDArray[np.uint8],
    slots: Sequence[SlotLike],
    *,
    clusters: NDArray[np.int64] | None = None,
    pair_rows: int = 500_000,
    pair_values: int = LARGEST_TABLE,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Measures:
    """Measure the fields of N encoded rows.

    Args:
        context_ids: (N, Cc) ids local to their field; may be memory-mapped.
        candidate_ids: (N, Ci) the same.
        label: (N,) 0 or 1.
        slots: the fields.
        clusters: (N,) number of each row's request, where new requests are what the model will see.
        pair_rows: rows that pairs are measured on, at most (about).
        pair_values: values a side of a pair table, at most; fewer where the rows could not fill the table.
        seed: of the sample and of shuffles.
        progress: called with steps done and their total.

    Raises:
        ValueError: Sizes that do not match, or a label of one class.
    """
    N = int(label.shape[0])
    _check(context_ids, candidate_ids, label, slots, clusters)
    rng = np.random.default_rng(seed)
    tables = _count(context_ids, candidate_ids, label, slots)
    base_rate = float(np.mean(label))
    chosen = sample_rows(N, clusters, pair_rows, rng)
    if chosen is not None:
        context_ids, candidate_ids, label = context_ids[chosen], candidate_ids[chosen], label[chosen]
        clusters = None if clusters is None else clusters[chosen]
    label = np.asarray(label)
    groups = None if clusters is None else dense(np.asarray(clusters))
    # A table with far more cells than rows tells little and costs time.
    largest = min(pair_values, LARGEST_TABLE, max(64, int(sqrt(2.0 * label.size))))
    views = tuple(view_field(s, slot_columns(s, context_ids, candidate_ids), groups, largest, rng) for s in slots)
    sample = Sample(tuple(slots), views, label, groups)

    fields = [measure_alone(sample, index, tables.get(slot.name), rng) for index, slot in enumerate(slots)]
    bits, p_values, resolved = _pairs(sample, progress)
    pairs = interactions(sample, bits, resolved)
    shuffle = rng.permutation(label.size)
    low, high = _redundancy(views, shuffle)
    copies = _copies(sample, high, shuffle)
    order, gains = greedy_order([field.information_bits for field in fields], bits)
    return Measures(
        rows=N,
        sampled_rows=int(label.size),
        base_rate=base_rate,
        fields=_beyond_all(sample, fields),
        conditional_bits=_rows(bits),
        conditional_p=_rows(p_values),
        redundancy_min=_rows(low),
        redundancy_max=_rows(high),
        copies=copies,
        order=tuple(slots[index].name for index in order),
        gains_bits=tuple(gains),
        resolved=_rows(resolved),
        interactions=pairs,
    )


def _check(
    context: NDArray[np.int32],
    candidate: NDArray[np.int32],
    label: NDArray[np.uint8],
    slots: Sequence[SlotLike],
    clusters: NDArray[np.int64] | None,
) -> None:
    N = label.shape[0]
    others = {"context_ids": context, "candidate_ids": candidate, "clusters": label if clusters is None else clusters}
    for name, array in others.items():
        if array.shape[0] != N:
            raise ValueError(f"{name}: expected {N} rows as the label has, got {array.shape[0]}")
    if not slots:
        raise ValueError("slots: expected at least one field to measure, got none")
    for slot in slots:
        columns = (context if slot.side == "context" else candidate).shape[1]
        if slot.first + slot.width > columns:
            raise ValueError(
                f"field {slot.name!r}: expected columns {slot.first} to {slot.first + slot.width - 1} in "
                f"{slot.side}_ids, got {columns} columns"
            )
    positives = int(np.count_nonzero(label))
    if positives in {0, N}:
        raise ValueError(f"label: expected rows of both classes, got {positives} ones in {N} rows")


def _count(
    context: NDArray[np.int32], candidate: NDArray[np.int32], label: NDArray[np.uint8], slots: Sequence[SlotLike]
) -> dict[str, LabelTable]:
    """Label tables of the single-valued fields, block by block."""
    single = [slot for slot in slots if slot.width == 1 and slot.pad_id is None]
    tables = {slot.name: LabelTable.empty(slot.rows) for slot in single}
    for first in range(0, label.shape[0], BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        for slot in single:
            codes = slot_columns(slot, context[rows], candidate[rows])[:, 0]
            tables[slot.name] = tables[slot.name].merge(LabelTable.count(codes, label[rows], slot.rows))
    return tables


def _beyond_all(sample: Sample, fields: Sequence[FieldMeasure]) -> tuple[FieldMeasure, ...]:
    """Test the fields that say nothing alone beyond an additive model of those that do, and of those so found."""
    everything = np.zeros(sample.label.size, np.int64)
    measured = list(fields)
    informs = adjusted_p_values([field.p_value for field in fields]) < SURE
    for _ in range(ROUNDS):
        known = [(view.exact, view.size) for view, sure in zip(sample.views, informs, strict=True) if sure]
        if not known or informs.all():
            break
        expected = additive_expectation(known, sample.label)
        for place in np.flatnonzero(~informs).tolist():
            view = sample.views[place]
            strata = stratify(everything, 1, sample.label, sample.units(view, view.pair), expected=expected)
            found = conditional_test(view.pair, view.pair_size, strata)
            measured[place] = replace(measured[place], joint_bits=found.information * BITS, joint_p_value=found.p_value)
        new = adjusted_p_values([field.joint_p_value for field in measured]) < SURE
        if not (new & ~informs).any():
            break
        informs |= new
    return tuple(measured)


def _pairs(
    sample: Sample, progress: Callable[[int, int], None] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """I(X_row; Y | X_column) in bits, p-values, and the share that is resolved (F, F)."""
    F = len(sample.views)
    bits, p_values, resolved = np.zeros((F, F)), np.ones((F, F)), np.ones((F, F))
    for column, condition in enumerate(sample.views):
        strata: dict[str, Strata] = {}
        for row, target in enumerate(sample.views):
            if row == column:
                continue
            # Units depend on the target, but are the same for all that are constant in clusters, or in none.
            key = "rows" if not target.clustered else "clusters" if target.constant else f"field {row}"
            if key not in strata:
                units = sample.units(target, target.pair)
                strata[key] = stratify(condition.pair, condition.pair_size, sample.label, units)
            found = conditional_test(target.pair, target.pair_size, strata[key])
            bits[row, column], p_values[row, column] = found.information * BITS, found.p_value
            resolved[row, column] = found.resolved
        if progress is not None:
            progress(column + 1, F)
    return bits, p_values, resolved


def _redundancy(views: Sequence[View], shuffle: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Adjusted redundancy over the smaller and over the larger entropy (F, F), on exact values of some rows."""
    F = len(views)
    low, high = np.eye(F), np.eye(F)
    # A prefix of a shuffle is a sample without replacement.
    rows, others = (
        np.sort(shuffle[:REDUNDANCY_ROWS]),
        np.random.default_rng(0).permutation(min(len(shuffle), REDUNDANCY_ROWS)),
    )
    codes = [dense(view.exact[rows]) for view in views]
    sizes = [int(code.max()) + 1 for code in codes]
    entropies = [entropy(np.bincount(code)) for code in codes]
    for i, first in enumerate(codes):
        for j, second in enumerate(codes[:i]):
            joint = _joint(first, second, sizes[i], sizes[j])
            chance = _joint(first, second[others], sizes[i], sizes[j])
            both = (entropies[i], entropies[j])
            low[i, j] = low[j, i] = adjusted_redundancy(joint, chance, both, min(both))
            high[i, j] = high[j, i] = adjusted_redundancy(joint, chance, both, max(both))
    return low, high


def _joint(a: NDArray[np.int64], b: NDArray[np.int64], size_a: int, size_b: int) -> float:
    """Plug-in H(A, B): by a table where that is small, else by the cells in use."""
    if size_a * size_b <= LARGEST_TABLE**2:
        return entropy(np.bincount(a * size_b + b, minlength=size_a * size_b))
    return joint_entropy(a, b, size_b)


def _copies(sample: Sample, high: NDArray[np.float64], shuffle: NDArray[np.int64]) -> tuple[Copy, ...]:
    """Pairs that may be copies, on exact codes; writes their redundancy into the matrix as well."""
    found = []
    for i, second in enumerate(sample.views):
        for j, first in enumerate(sample.views[:i]):
            both = (first.entropy, second.entropy)
            if min(both) <= max(SIMILAR * max(both), 0.0):
                continue
            joint = joint_entropy(first.exact, second.exact, second.size)
            chance = joint_entropy(first.exact, second.exact[shuffle], second.size)
            redundancy = adjusted_redundancy(joint, chance, both, max(both))
            high[i, j] = high[j, i] = redundancy
            if redundancy >= SIMILAR:
                p_values = (_beyond(sample, first, second), _beyond(sample, second, first))
                found.append(Copy(sample.slots[j].name, sample.slots[i].name, redundancy, *p_values))
    return tuple(found)


def _beyond(sample: Sample, target: View, condition: View) -> float:
    """The p-value of a field saying more about the label than another, on exact codes."""
    strata = stratify(condition.exact, condition.size, sample.label, sample.units(target, target.exact))
    return conditional_test(target.exact, target.size, strata).p_value


def _rows(matrix: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
