"""Towers on another layout of fields: without those whose gates closed, or with vocabularies that have grown."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from training.models.base import UNKNOWN_ID, FieldSlot
from training.models.reaction import Tower, TowerPair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.towers.gates import FieldGates


@torch.no_grad()
def without_closed(tower: Tower, gates: FieldGates) -> Tower:
    """Return the tower with the open gates' multipliers, without the tables and projections of closed ones."""
    fixed = gates.fixed()
    names = gates.closed()
    kept = [i for i, slot in enumerate(tower.slots) if slot.name not in names]
    kept = kept or [int(gates.log_odds.argmax())]  # a model needs a field
    small = Tower([tower.slots[i] for i in kept], tower.widths, dropout=tower.dropout)
    state = tower.state_dict()
    for key, target in small.state_dict().items():
        target.copy_(fixed[kept] if key.endswith(".gates") else state[_renumbered(key, kept)])
    return small


def extended_pair(pair: TowerPair, slots: Sequence[FieldSlot]) -> TowerPair:
    """Return the pair on a grown layout: appended ids begin as copies of the out-of-vocabulary row.

    Args:
        pair: A pair of an earlier run.
        slots: The new layout's slots; each names a slot of the pair.
    """
    old = {slot.name: (i, slot) for i, slot in enumerate(pair.slots)}
    order = [old[slot.name][0] for slot in slots]
    fresh = [replace(slot, dim=old[slot.name][1].dim) for slot in slots]
    a, b, *council = (Tower(fresh, pair.widths) for _ in pair.all)
    grown = TowerPair(a, b, council)
    state = pair.state_dict()
    for key, target in grown.state_dict().items():
        value = state[_renumbered(key, order)]
        if key.endswith(".gates"):
            value = value[torch.tensor(order)]
        if ".tables." in key:
            target[: len(value)] = value
            target[len(value) :] = value[UNKNOWN_ID]
        else:
            target.copy_(value)
    return grown


def _renumbered(key: str, numbers: Sequence[int]) -> str:
    """Return the state's key of slot numbers[i] for a key of slot i's table or projection, other keys as they are."""
    head, _, last = key.rpartition(".")
    return f"{head}.{numbers[int(last)]}" if head.endswith(("tables", "projections")) else key
