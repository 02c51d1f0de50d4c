"""AFE, on the level of values: rare values of a field share table rows by what was seen of them.

A table row of a value that occurs n times in training is learnt from n labels. Where n is small it learns those labels
by heart, and says on new rows what chance said on the old ones. What n rows with c clicks can tell at all about a value
is the pair (c, n - c): all values of equal counts share one row here (frequency classes, Good, "The population
frequencies of species", Biometrika 1953). So a sparse field is projected into a compact space, whose rows are learnt
from many values, and which keeps what is known.

In training a row's own label is left out of its values' counts (leaving-one-out: Ney, Essen, Kneser, "On the
estimation of 'small' probabilities by leaving-one-out", PAMI 1995), for counts that hold it would give it away. A value
seen once reads the row of what was never seen, which is the out-of-vocabulary row, learnt on real data so. Which row
a value reads then depends on the value and the label alone; when serving on the value, so that a table with one row a
value can be written out at the end, and nobody after training knows of the sharing.

Shapes: N rows, C columns of a side's id matrix, F slots, V_f ids of slot f, R_f rows of its shared table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import torch
from torch import nn

from training.models.base import MULTI_VALUED_PAD_ID, UNKNOWN_ID, FieldSlot
from training.models.reaction import FusionForm, Tower, TowerPair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from training.phases.learner import SplitLike

    Ids = NDArray[np.int32]
    Counts = NDArray[np.int64]

_BLOCK_ROWS: Final = 1 << 18
_KEPT_CELLS: Final = 1 << 26
"""Ids of a side up to which they are translated once, and kept; more are translated as they are read."""
_EXACT: Final = 8
"""Counts below which every one is a class of its own; from it on there are two classes a doubling."""
_EVEN: Final = 4.0

Model = TypeVar("Model", bound=Tower | TowerPair | FusionForm)


@dataclass(frozen=True)
class SharedRows:
    """Which rows of its shared table a slot's ids read.

    Attributes:
        training: (2 V_f,) for id v in a row of label y, at y V_f + v: that label left out.
        serving: (V_f,).
        rows: R_f.
    """

    training: Ids
    serving: Ids
    rows: int


class RowSharing:
    """Row sharing of one data set's fields.

    Args:
        slots: The fields, one table row an id.
        shared: What is shared, by slot name; other slots stay as they are.

        below: What it was decided by (`fit`).

    Attributes:
        slots: The fields with their shared tables' numbers of rows.
    """

    def __init__(self, slots: Sequence[FieldSlot], shared: dict[str, SharedRows], below: float = 0.0) -> None:
        self.below = below
        self._given = {slot.name: slot for slot in slots}
        self._shared = shared
        self.slots = tuple(replace(s, rows=shared[s.name].rows) if s.name in shared else s for s in slots)

    @classmethod
    def fit(cls, slots: Sequence[FieldSlot], train: SplitLike, below: float) -> RowSharing:
        """Decide which values share.

        Args:
            slots: The fields, one table row an id.
            train: The training split.
            below: Values of less evidence share. A row's evidence is 4 p (1 - p) at base rate p, 1 where clicks and
                others are even; a rare click says little, a row without one next to nothing. 0: no value shares.
        """
        if not below:
            return cls(slots, {})
        rate = float(np.mean(train.label, dtype=np.float64))
        most = below / (_EVEN * rate * (1.0 - rate)) if 0.0 < rate < 1.0 else 0.0
        counts = _count(slots, train)
        found = {slot.name: _share(slot, *counts[slot.name], most) for slot in slots}
        return cls(slots, {name: shared for name, shared in found.items() if shared is not None}, below)

    @property
    def idle(self) -> bool:
        """Whether no value shares a row."""
        return not self._shared

    def training(self, split: SplitLike) -> SplitLike:
        """Return the training split with rows of shared tables for ids, each row's own label left out."""
        return self._translated(split, split.label) if self._shared else split

    def serving(self, split: SplitLike) -> SplitLike:
        """Return a split with rows of shared tables for ids, as they are read when serving."""
        return self._translated(split, None) if self._shared else split

    def expanded(self, model: Model) -> Model:
        """Give a model over shared tables one row an id, in place, if it has not: what it says stays the same."""
        return self._resized(model, self._given.values(), _by_id)

    def shrunk(self, model: Model) -> Model:
        """Give a model with one row an id shared tables, in place: a shared row is the mean of its values' rows."""
        return self._resized(model, self.slots, _means)

    def _resized(
        self, model: Model, slots: Iterable[FieldSlot], resize: Callable[[torch.Tensor, SharedRows], torch.Tensor]
    ) -> Model:
        rows = {slot.name: slot.rows for slot in slots}
        for tower in model.all if isinstance(model, TowerPair) else (model,):
            for i, slot in enumerate(tower.slots):
                if slot.rows != rows[slot.name]:
                    table = resize(tower.tables[i].detach(), self._shared[slot.name])
                    tower.tables[i] = nn.Parameter(table, requires_grad=False)
            tower.slots = tuple(replace(slot, rows=rows[slot.name]) for slot in tower.slots)
        if isinstance(model, TowerPair):
            model.slots = model.a.slots
        return model

    def _translated(self, split: SplitLike, label: NDArray[Any] | None) -> SplitLike:
        sides = {"context": split.context_ids, "candidate": split.candidate_ids}
        new = {side: self._side(side, ids, label) for side, ids in sides.items()}
        return _Translated(new["context"], new["candidate"], split.label, split.weight, split.group)

    def _side(self, side: str, ids: Ids, label: NDArray[Any] | None) -> Ids:
        slots = [s for s in self._given.values() if s.side == side and s.name in self._shared]
        if not slots:
            return ids
        lazy = _TranslatedIds(ids, label, [(s, self._shared[s.name]) for s in slots])
        return lazy[:] if ids.size <= _KEPT_CELLS else lazy  # type: ignore[return-value]


@dataclass(frozen=True)
class _Translated:
    """A split whose ids are rows of shared tables."""

    context_ids: Ids
    candidate_ids: Ids
    label: NDArray[Any]
    weight: NDArray[Any] | None
    group: NDArray[Any] | None


class _TranslatedIds:
    """An id matrix that is translated as it is read; of an array it has what training reads of one."""

    def __init__(self, ids: Ids, label: NDArray[Any] | None, shared: Sequence[tuple[FieldSlot, SharedRows]]) -> None:
        self._ids, self._label, self._shared = ids, label, shared
        self.shape = ids.shape

    def __getitem__(self, index: Any) -> Ids:
        ids = np.array(self._ids[index])
        label = None if self._label is None else np.asarray(self._label[index], np.int64)[:, None]
        for slot, rows in self._shared:
            columns = slice(slot.first, slot.first + slot.width)
            found = ids[:, columns]
            ids[:, columns] = rows.serving[found] if label is None else rows.training[found + label * slot.rows]
        return ids


def _count(slots: Sequence[FieldSlot], train: SplitLike) -> dict[str, tuple[Counts, Counts]]:
    """Rows and clicks (V_f,), (V_f,) of each slot's ids, in one pass."""
    found = {slot.name: (np.zeros(slot.rows, np.int64), np.zeros(slot.rows, np.int64)) for slot in slots}
    for first in range(0, len(train.label), _BLOCK_ROWS):
        block = slice(first, first + _BLOCK_ROWS)
        clicked = np.asarray(train.label[block]) > 0
        sides = {"context": np.asarray(train.context_ids[block]), "candidate": np.asarray(train.candidate_ids[block])}
        for slot in slots:
            ids = np.sort(sides[slot.side][:, slot.first : slot.first + slot.width], axis=1)
            once = np.ones(ids.shape, bool)  # a value twice in a row's set is one row of it
            once[:, 1:] = ids[:, 1:] != ids[:, :-1]
            seen, clicks = found[slot.name]
            seen += np.bincount(ids[once], minlength=slot.rows)
            clicks += np.bincount(ids[once & clicked[:, None]], minlength=slot.rows)
    return found


def _share(slot: FieldSlot, seen: Counts, clicks: Counts, most: float) -> SharedRows | None:
    """Which rows a slot's ids read; None where that would not save a row.

    Args:
        slot: The slot.
        seen: (V,) training rows of each id.
        clicks: (V,) of them with label 1.
        most: Ids of fewer rows share.
    """
    rare = seen < most
    rare[: UNKNOWN_ID + 1 if slot.pad_id is None else MULTI_VALUED_PAD_ID + 1] = False
    values = np.flatnonzero(rare)
    if not len(values):
        return None
    own = np.full(slot.rows, -1, np.int32)
    own[~rare] = np.arange(slot.rows - len(values))
    n, c = seen[values], clicks[values]
    # What is left of a value's counts without a row of label 0, without one of label 1, and all that was seen.
    left = (_state(c, n - c - 1), _state(c - 1, n - c), _state(c, n - c))
    states, place = np.unique(np.concatenate([np.zeros(1, np.int64), *left]), return_inverse=True)
    row_of = np.arange(len(states), dtype=np.int32) + (slot.rows - len(values) - 1)
    row_of[0] = UNKNOWN_ID  # nothing seen
    parts = row_of[place[1:]].reshape(3, len(values))
    maps = [own.copy() for _ in parts]
    for found, part in zip(maps, parts, strict=True):
        found[values] = part
    rows = slot.rows - len(values) + len(states) - 1
    return SharedRows(np.concatenate(maps[:2]), maps[2], rows) if rows < slot.rows else None


def _state(clicks: Counts, others: Counts) -> Counts:
    """A number for each pair of counts' classes; 0 of (0, 0). A count of -1, of what does not occur, is as 0."""
    return (_class(clicks) << 32) + _class(others)


def _class(count: Counts) -> Counts:
    exact = np.clip(count, 0, _EXACT)
    doublings = np.log2(np.maximum(count, _EXACT) / _EXACT)
    return exact + np.floor(2.0 * doublings).astype(np.int64)


def _by_id(table: torch.Tensor, shared: SharedRows) -> torch.Tensor:
    return table.index_select(0, torch.from_numpy(shared.serving).to(table.device))


def _means(table: torch.Tensor, shared: SharedRows) -> torch.Tensor:
    index = torch.from_numpy(shared.serving).to(table.device).long()
    total = torch.zeros(shared.rows, table.shape[1], dtype=table.dtype, device=table.device)
    total.index_add_(0, index, table)
    count = torch.bincount(index, minlength=shared.rows)
    # Some classes are read in training only, with a label left out.
    return torch.where(count[:, None] > 0, total / count[:, None].clamp(min=1), table[UNKNOWN_ID])
