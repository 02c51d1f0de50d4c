"""What AFE measures about the fields: one pass over the training rows, then every pair on a stated sample of them.

Single-valued fields are counted over all rows, in blocks whose tables merge, so memory does not grow with the rows.
Pairs, multi-valued and clustered fields are measured on up to `pair_rows` rows. Information is in bits, corrected for
chance: 0 on average where there is none, so small negative numbers are normal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import log, sqrt
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import TypeAdapter

from training.field_views import View, dense, sample_rows, slot_columns, view_field
from training.information import LabelTable, entropy, information_about_label, relevance
from training.screening import (
    LARGEST_TABLE,
    Strata,
    adjusted_redundancy,
    conditional_test,
    greedy_order,
    joint_entropy,
    stratify,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from training.field_views import SlotLike

BLOCK_ROWS: Final = 1 << 18
BITS: Final = 1.0 / log(2.0)
SHUFFLES: Final = 16  # for the chance level of a clustered field's information
SIMILAR: Final = 0.9  # entropies nearer than this may be those of copies


@dataclass(frozen=True)
class FieldMeasure:
    """One field alone.

    Attributes:
        name, side: of the field.
        rows: its number of ids, V_f.
        seen: different values (or sets of values) among the rows measured.
        entropy_bits: H(X).
        plug_in_bits: I(X; Y) straight from the counts: biased upwards.
        noise_bits: what noise of the same counts has on average.
        information_bits: the difference: I(X; Y), corrected.
        spread_bits: standard deviation of the estimate for noise.
        p_value: of an estimate this high, for noise.
        clustered: tested between clusters of rows (requests), not between rows.
    """

    name: str
    side: str
    rows: int
    seen: int
    entropy_bits: float
    plug_in_bits: float
    noise_bits: float
    information_bits: float
    spread_bits: float
    p_value: float
    clustered: bool


@dataclass(frozen=True)
class Copy:
    """Two fields that say nearly the same, on exact values.

    Attributes:
        first, second: their names.
        redundancy: what they share of the larger entropy, adjusted for chance: 1 for exact copies.
        first_beyond_second, second_beyond_first: p-values of one saying more about the label than the other.
    """

    first: str
    second: str
    redundancy: float
    first_beyond_second: float
    second_beyond_first: float


@dataclass(frozen=True)
class Measures:
    """All that AFE measured. Matrices are F x F, in the order of `fields`.

    Attributes:
        rows: training rows.
        sampled_rows: rows that pairs were measured on.
        base_rate: share of label 1.
        fields: each field alone.
        conditional_bits: I(X_row; Y | X_column), corrected; the smaller of both directions is the interaction
            information I(X_a, X_b; Y) - max(I(X_a; Y), I(X_b; Y)). 0 on the diagonal.
        conditional_p: its p-values if the row's field says nothing beyond the column's; 1 on the diagonal.
        redundancy_min: what two fields share of the smaller entropy, adjusted for chance (1: a function of the other).
        redundancy_max: the same of the larger entropy (1: copies).
        copies: pairs of fields that share nearly all of the larger entropy.
        order: names by greedy conditional relevance (CMIM).
        gains_bits: what each adds in that order.
    """

    rows: int
    sampled_rows: int
    base_rate: float
    fields: tuple[FieldMeasure, ...]
    conditional_bits: tuple[tuple[float, ...], ...]
    conditional_p: tuple[tuple[float, ...], ...]
    redundancy_min: tuple[tuple[float, ...], ...]
    redundancy_max: tuple[tuple[float, ...], ...]
    copies: tuple[Copy, ...]
    order: tuple[str, ...]
    gains_bits: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The fields' names."""
        return tuple(field.name for field in self.fields)

    def as_json(self) -> dict[str, Any]:
        """For `afe.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: object) -> Measures:
        """Read what `as_json` gave.

        Raises:
            pydantic.ValidationError: It is something else.
        """
        return TypeAdapter(cls).validate_python(content)


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
    sample = sample_rows(N, clusters, pair_rows, rng)
    if sample is not None:
        context_ids, candidate_ids, label = context_ids[sample], candidate_ids[sample], label[sample]
        clusters = None if clusters is None else clusters[sample]
    label = np.asarray(label)
    groups = None if clusters is None else dense(np.asarray(clusters))
    # A table with far more cells than rows tells little and costs time.
    largest = min(pair_values, LARGEST_TABLE, max(64, int(sqrt(2.0 * label.size))))
    views = [view_field(s, slot_columns(s, context_ids, candidate_ids), groups, largest, rng) for s in slots]

    fields = tuple(
        _alone(slot, view, tables.get(slot.name), label, groups, rng)
        for slot, view in zip(slots, views, strict=True)
    )
    bits, p_values = _pairs(views, label, groups, progress)
    low, high = _redundancy(views, rng.permutation(label.size))
    copies = _copies(slots, views, label, groups, high, rng.permutation(label.size))
    order, gains = greedy_order([field.information_bits for field in fields], bits)
    return Measures(
        rows=N,
        sampled_rows=int(label.size),
        base_rate=float(np.mean(label)),
        fields=fields,
        conditional_bits=_rows(bits),
        conditional_p=_rows(p_values),
        redundancy_min=_rows(low),
        redundancy_max=_rows(high),
        copies=copies,
        order=tuple(slots[index].name for index in order),
        gains_bits=tuple(gains),
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
    for slot in slots:
        columns = (context if slot.side == "context" else candidate).shape[1]
        if slot.first + slot.width > columns:
            raise ValueError(
                f"field {slot.name!r}: expected columns {slot.first} to {slot.first + slot.width - 1} in "
                f"{slot.side}_ids, got {columns} columns"
            )
    positives = int(np.count_nonzero(label))
    if positives in {0, N}:
        raise ValueError(f"label: expected rows of both classes to measure information about, got {positives} of {N} ones")


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


def _alone(
    slot: SlotLike,
    view: View,
    table: LabelTable | None,
    label: NDArray[np.uint8],
    groups: NDArray[np.int64] | None,
    rng: np.random.Generator,
) -> FieldMeasure:
    """Measure one field: on all rows if it can be, on the sample (between clusters) otherwise."""
    multi = table is None
    if table is None or view.clustered:
        table = LabelTable.count(view.exact, label, view.size)
    if view.clustered and groups is not None:
        plug_in, noise, spread, p_value = _between_clusters(view, table, label, groups, rng)
    else:
        found = relevance(table)
        plug_in, noise, spread = found.plug_in, found.null.mean, sqrt(found.null.variance)
        p_value = found.p_value
    if multi:
        units = _units(view, view.pair, groups)
        one = conditional_test(view.pair, view.pair_size, stratify(np.zeros_like(view.pair), 1, label, units))
        p_value = min(1.0, 2.0 * min(p_value, one.p_value))
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
        p_value=p_value,
        clustered=view.clustered,
    )


def _units(view: View, codes: NDArray[np.int64], groups: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Rows that are one piece of evidence about a clustered field: of one cluster and one value."""
    if groups is None or not view.clustered:
        return None
    return groups if view.constant else dense(groups * (int(codes.max()) + 1) + codes)


def _between_clusters(
    view: View, table: LabelTable, label: NDArray[np.uint8], groups: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Plug-in information, its mean and spread for noise, and the p-value, with clusters' values shuffled (nats)."""
    units = _units(view, view.exact, groups)
    strata = stratify(np.zeros_like(view.exact), 1, label, units)
    test = conditional_test(view.exact, view.size, strata)
    _, row, unit = np.unique(units, return_index=True, return_inverse=True)
    value = view.exact[row]
    shuffled = [
        information_about_label(LabelTable.count(rng.permutation(value)[unit], label, view.size))
        for _ in range(SHUFFLES)
    ]
    spread = sqrt(test.null.variance) / (2.0 * strata.variance)
    return information_about_label(table), float(np.mean(shuffled)), spread, test.p_value


def _pairs(
    views: Sequence[View],
    label: NDArray[np.uint8],
    groups: NDArray[np.int64] | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """I(X_row; Y | X_column) in bits and p-values (F, F)."""
    F = len(views)
    bits, p_values = np.zeros((F, F)), np.ones((F, F))
    for column, condition in enumerate(views):
        strata: dict[str, Strata] = {}
        for row, target in enumerate(views):
            if row == column:
                continue
            # Units depend on the target, but are the same for all that are constant in clusters, or in none.
            key = "rows" if not target.clustered else "clusters" if target.constant else f"field {row}"
            if key not in strata:
                strata[key] = stratify(condition.pair, condition.pair_size, label, _units(target, target.pair, groups))
            found = conditional_test(target.pair, target.pair_size, strata[key])
            bits[row, column], p_values[row, column] = found.information * BITS, found.p_value
        if progress is not None:
            progress(column + 1, F)
    return bits, p_values


def _redundancy(
    views: Sequence[View], shuffle: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Adjusted redundancy over the smaller and over the larger entropy (F, F), on the codes of pair tables."""
    F = len(views)
    low, high = np.eye(F), np.eye(F)
    entropies = [entropy(np.bincount(view.pair)) for view in views]
    for i, first in enumerate(views):
        for j, second in enumerate(views[:i]):
            cells = first.pair * second.pair_size
            size = first.pair_size * second.pair_size
            joint = entropy(np.bincount(cells + second.pair, minlength=size))
            chance = entropy(np.bincount(cells + second.pair[shuffle], minlength=size))
            both = (entropies[i], entropies[j])
            low[i, j] = low[j, i] = adjusted_redundancy(joint, chance, both, min(both))
            high[i, j] = high[j, i] = adjusted_redundancy(joint, chance, both, max(both))
    return low, high


def _copies(
    slots: Sequence[SlotLike],
    views: Sequence[View],
    label: NDArray[np.uint8],
    groups: NDArray[np.int64] | None,
    high: NDArray[np.float64],
    shuffle: NDArray[np.int64],
) -> tuple[Copy, ...]:
    """Pairs that may be copies, on exact codes; writes their redundancy into the matrix as well."""
    found = []
    for i, first in enumerate(views):
        for j, second in enumerate(views[:i]):
            both = (first.entropy, second.entropy)
            if min(both) <= SIMILAR * max(both) or min(both) <= 0.0:
                continue
            joint = joint_entropy(first.exact, second.exact, second.size)
            chance = joint_entropy(first.exact, second.exact[shuffle], second.size)
            high[i, j] = high[j, i] = redundancy = adjusted_redundancy(joint, chance, both, max(both))
            if redundancy < SIMILAR:
                continue
            p_values = [
                conditional_test(
                    target.exact,
                    target.size,
                    stratify(condition.exact, condition.size, label, _units(target, target.exact, groups)),
                ).p_value
                for target, condition in ((second, first), (first, second))
            ]
            found.append(Copy(slots[j].name, slots[i].name, redundancy, *p_values))
    return tuple(found)


def _rows(matrix: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
