"""Encoded columns as AFE measures them: one code a row for every field, and which rows are evidence of their own.

A multi-valued field is measured in two views: the *set* of its values as one code (all it can say, but sparse), and
*one value* drawn at random a row (coarser, with cells that fill). Both are functions of the field and of chance alone,
so whatever either says about the label, the field says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from training.field_selection.information import entropy
from training.field_selection.screening import bounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLUSTERED: Final = 0.02
"""Agreement of a field within clusters, beyond chance, from which on its rows are no independent evidence."""


class SlotLike(Protocol):
    """Where a field's ids are: what `models.base.FieldSlot` and `MeasuredSlot` have in common."""

    @property
    def name(self) -> str:
        """The field's name."""

    @property
    def side(self) -> str:
        """Which id matrix: context or candidate."""

    @property
    def first(self) -> int:
        """First column in its side's id matrix."""

    @property
    def width(self) -> int:
        """Number of columns."""

    @property
    def rows(self) -> int:
        """Number of ids, V_f."""

    @property
    def pad_id(self) -> int | None:
        """The id that fills a multi-valued field's unused columns."""


@dataclass(frozen=True)
class MeasuredSlot:
    """A field of prepared data, before a model has given it a dimension. Attributes: see `SlotLike`."""

    name: str
    side: str
    first: int
    width: int
    rows: int
    pad_id: int | None = None


@dataclass(frozen=True)
class View:
    """One field's codes in the sampled rows.

    Attributes:
        exact: (N,) codes in 0..size-1, one for every different value (or set of values).
        size: number of those codes.
        pair: (N,) codes in 0..pair_size-1 for pair tables (bounded; one value drawn from a set).
        pair_size: number of those codes.
        entropy: of the exact codes, nats.
        seen: different exact codes that occur.
        constant: one value a cluster.
        clustered: rows of one cluster resemble each other, or share their value.
    """

    exact: NDArray[np.int64]
    size: int
    pair: NDArray[np.int64]
    pair_size: int
    entropy: float
    seen: int
    constant: bool
    clustered: bool


def slot_columns(slot: SlotLike, context: NDArray[np.int32], candidate: NDArray[np.int32]) -> NDArray[np.int32]:
    """The field's columns (N, width)."""
    ids = context if slot.side == "context" else candidate
    return ids[:, slot.first : slot.first + slot.width]


def view_field(
    slot: SlotLike,
    ids: NDArray[np.int32],
    clusters: NDArray[np.int64] | None,
    largest: int,
    rng: np.random.Generator,
) -> View:
    """Make a field's view.

    Args:
        slot: the field.
        ids: (N, width) its ids.
        clusters: (N,) cluster of every row in 0..C-1, or None.
        largest: most codes a side of a pair table.
        rng: for drawing one of several values.
    """
    if slot.width == 1 and slot.pad_id is None:
        # Renumbered, so that what is held for every value goes by the rows, however many ids there are.
        exact = dense(ids[:, 0].astype(np.int64))
        size = int(exact.max()) + 1
        single, single_size = exact, size
    else:
        exact, size = set_codes(ids)
        single, single_size = drawn_value(ids, slot.pad_id, rng), slot.rows
    pair, pair_size = bounded(single, single_size, largest)
    count = np.bincount(exact, minlength=size)
    agreement = 0.0 if clusters is None else agreement_within(exact, count, clusters)
    return View(
        exact=exact,
        size=size,
        pair=pair,
        pair_size=pair_size,
        entropy=entropy(count),
        seen=int(np.count_nonzero(count)),
        constant=agreement >= 1.0,
        clustered=agreement > CLUSTERED,
    )


def set_codes(ids: NDArray[np.int32]) -> tuple[NDArray[np.int64], int]:
    """One code a row (N,) for the set of its ids (N, width), whatever their order, and the number of codes."""
    codes = np.zeros(ids.shape[0], np.int64)
    size = 1
    for column in np.sort(ids, axis=1).T:
        seen, code = np.unique(column, return_inverse=True)
        prefixes, codes = np.unique(codes * seen.size + code, return_inverse=True)
        size = prefixes.size
    return codes, size


def drawn_value(ids: NDArray[np.int32], pad_id: int | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """One id a row (N,), drawn from its ids (N, width) other than the pad id; the pad id if there are none."""
    keys = rng.random(ids.shape)
    if pad_id is not None:
        keys[ids == pad_id] = 2.0
    picked = np.argmin(keys, axis=1)
    return np.take_along_axis(ids, picked[:, None], axis=1)[:, 0].astype(np.int64)


def agreement_within(codes: NDArray[np.int64], count: NDArray[np.int64], clusters: NDArray[np.int64]) -> float:
    """How much more often two rows of one cluster agree than two rows of any: 0 by chance, 1 always (kappa)."""
    order = np.argsort(clusters, kind="stable")
    mates = clusters[order][1:] == clusters[order][:-1]
    if not mates.any():
        return 0.0
    observed = float((codes[order][1:] == codes[order][:-1])[mates].mean())
    expected = float(((count / codes.size) ** 2).sum())
    return (observed - expected) / (1.0 - expected) if expected < 1.0 else 0.0


def dense(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same partition, renumbered 0, 1, ..."""
    return np.unique(codes, return_inverse=True)[1]


def sample_rows(
    rows: int, clusters: NDArray[np.int64] | None, most: int, rng: np.random.Generator
) -> NDArray[np.int64] | None:
    """Rows to measure pairs on, ascending: about `most` at random, whole clusters if there are any; None for all."""
    if rows <= most:
        return None
    if clusters is None:
        return np.sort(rng.choice(rows, most, replace=False))
    numbers = dense(clusters)
    kept = rng.random(int(numbers.max()) + 1) < most / rows
    return np.flatnonzero(kept[numbers])
