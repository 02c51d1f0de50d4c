"""All tables of a tower as a few stacks, one a dimension: a batch is read by one gather a stack.

Shapes: B rows, C columns of both id matrices side by side (context first), F slots, D = sum of d_f; in a stack of
dimension d: R rows of all its tables, c columns read.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.models.base import FieldSlot, embedding_order
from training.phases.optim import AdamSettings, LazyAdam

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class _Stack:
    """Where a stack's slots lie: all slots of one dimension, single-valued first."""

    members: tuple[int, ...]  # slot numbers, in embedding order
    columns: Tensor | None  # (c,) columns of the side-by-side id matrix; None: all, as they are
    offsets: Tensor  # (c,) int64: what to add to a local id to get a row of the stack
    starts: tuple[int, ...]  # first row of each member
    singles: int  # how many members are single-valued
    rows: int
    dim: int


class TableBank:
    """The tables of one tower or form, stacked by dimension and trained by `LazyAdam`.

    Args:
        slots: The fields.
        tables: (V_f, d_f) initial values, one a slot.
        settings: The optimiser's constants.
        context_columns: Cc, columns of the context side's id matrix.
        total_columns: C, columns of both.

    Attributes:
        owners: (C,) number of the slot that a column belongs to.
        pads: (C,) pad id of a column's slot, -1 where there is none.
    """

    def __init__(
        self,
        slots: Sequence[FieldSlot],
        tables: Sequence[Tensor],
        settings: AdamSettings,
        *,
        context_columns: int,
        total_columns: int,
    ) -> None:
        self.slots = tuple(slots)
        device = tables[0].device
        order = embedding_order(slots)
        self._stacks = tuple(
            _stack(self.slots, tuple(group), (context_columns, total_columns), device)
            for _, group in groupby(order, key=lambda i: slots[i].dim)
        )
        self.optimisers = tuple(
            LazyAdam(torch.cat([tables[i].detach() for i in stack.members]), settings) for stack in self._stacks
        )
        self._leaves: list[Tensor] = []
        columns = {c: i for i, slot in enumerate(slots) for c in _columns(slot, context_columns)}
        # Columns of dropped fields belong to no slot; whose they seem to be does not matter, nobody reads them.
        self.owners = torch.tensor([columns.get(c, 0) for c in range(total_columns)], device=device)
        pads = [slots[i].pad_id if i is not None else None for i in map(columns.get, range(total_columns))]
        self.pads = torch.tensor([-1 if pad is None else pad for pad in pads], dtype=torch.int32, device=device)

    def read(self, ids: Tensor) -> Tensor:
        """Start a step: return the embedded rows (B, D) of ids (B, C), in embedding order, ready for a backward."""
        self._leaves = []
        parts = []
        for stack, optimiser in zip(self._stacks, self.optimisers, strict=True):
            local = _local(stack, ids)
            leaf = optimiser.read((local + stack.offsets).reshape(-1)).requires_grad_()
            self._leaves.append(leaf)
            parts.append(self._pool(stack, leaf, local))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def step(self, rate: float) -> None:
        """End a step, after the backward."""
        for leaf, optimiser in zip(self._leaves, self.optimisers, strict=True):
            if leaf.grad is None:
                raise RuntimeError("step() before a backward reached the embedded rows")
            optimiser.step(leaf.grad, rate)
        self._leaves = []

    def look_up(self, stacks: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the embedded rows (B, D) of ids (B, C) from given stacks (as `averages`), without a gradient."""
        parts = []
        for stack, weights in zip(self._stacks, stacks, strict=True):
            local = _local(stack, ids)
            parts.append(self._pool(stack, weights.index_select(0, (local + stack.offsets).reshape(-1)), local))
        return torch.cat(parts, 1)

    def averages(self) -> list[Tensor]:
        """Return the averaged stacks, each (R, d)."""
        return [optimiser.averages() for optimiser in self.optimisers]

    def frozen(self) -> list[Tensor]:
        """Return the averaged stacks and forget what training needs, five times as much: `look_up` is what is left."""
        stacks = self.averages()
        self.optimisers = ()
        return stacks

    def tables(self, stacks: Sequence[Tensor]) -> list[Tensor]:
        """Return the tables (V_f, d_f), one a slot, that are views of the given stacks."""
        found: dict[int, Tensor] = {}
        for stack, weights in zip(self._stacks, stacks, strict=True):
            for i, start in zip(stack.members, stack.starts, strict=True):
                found[i] = weights[start : start + self.slots[i].rows]
        return [found[i] for i in range(len(self.slots))]

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs, by name."""
        return {f"{i}.{k}": v for i, optimiser in enumerate(self.optimisers) for k, v in optimiser.state().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`."""
        for i, optimiser in enumerate(self.optimisers):
            optimiser.load({k: state[f"{i}.{k}"] for k in optimiser.state()})

    def _pool(self, stack: _Stack, looked_up: Tensor, local: Tensor) -> Tensor:
        B, c = local.shape
        S, d = stack.singles, stack.dim
        if c == S:
            return looked_up.view(B, c * d)
        cells = looked_up.view(B, c, d)
        parts = [cells[:, :S].reshape(B, S * d)]
        first = S
        for i in stack.members[S:]:
            slot = self.slots[i]
            span = slice(first, first + slot.width)
            used = torch.ne(local[:, span], slot.pad_id or 0).unsqueeze(-1).to(cells.dtype)
            total = (cells[:, span] * used).sum(1)
            parts.append(total / used.sum(1).clamp(min=1.0) if slot.pooling == "mean" else total)
            first += slot.width
        return torch.cat(parts, 1)


def _local(stack: _Stack, ids: Tensor) -> Tensor:
    """Return the ids (B, c) that a stack reads."""
    return (ids if stack.columns is None else ids.index_select(1, stack.columns)).long()


def _columns(slot: FieldSlot, context_columns: int) -> range:
    first = slot.first + (0 if slot.side == "context" else context_columns)
    return range(first, first + slot.width)


def _stack(
    slots: Sequence[FieldSlot], members: tuple[int, ...], widths: tuple[int, int], device: torch.device
) -> _Stack:
    columns: list[int] = []
    offsets: list[int] = []
    starts: list[int] = []
    rows = 0
    for i in members:
        slot = slots[i]
        columns += _columns(slot, widths[0])
        offsets += [rows] * slot.width
        starts.append(rows)
        rows += slot.rows
    return _Stack(
        members=members,
        columns=None if columns == list(range(widths[1])) else torch.tensor(columns, device=device),
        offsets=torch.tensor(offsets, device=device),
        starts=tuple(starts),
        singles=sum(slots[i].pooling is None for i in members),
        rows=rows,
        dim=slots[members[0]].dim,
    )
