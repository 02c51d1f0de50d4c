"""The council: further towers, trained as tower B is. Validation's best two are the pair that becomes one; all teach.

Towers of other random weights and row orders err differently; the mean of four is a better teacher than that of two,
and its student is better than the pair that it was merged from (ensembles as teachers: Hinton et al., "Distilling the
Knowledge in a Neural Network", 2015). How good a tower is depends on its random numbers, on some data by more than all
else; the best two of four are a better beginning than the first two. What the others take is training time.

Towers that began as logistic regression hardly differ, and get no council.
"""

from __future__ import annotations

from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from training.models.reaction import TowerPair
from training.paired import gain
from training.phases.phase import lost
from training.towers.recovery import BEGUN, FAR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.models.reaction import Tower
    from training.towers.schedule import Schedule

FIRST: Final = 8
"""Number of the first one's phase, for its seed; the others' follow."""
HARMFUL: Final = "one of {towers} towers made the others' mean worse on validation and was left out"


def with_council(schedule: Schedule, pair: TowerPair) -> TowerPair:
    """Return validation's best two of the pair and as many more towers as are asked for, with the others as council.

    Where towers of one L2 of the tables differ so much that the one which was searched with could not tell, all are
    trained under the L2 next to it as well, and the better mean stays. The schedule's history names towers by their
    rank, as the pair that is returned does.
    """
    if not schedule.dtf.council or BEGUN in schedule.notes:
        return pair
    first = _Council(schedule, pair)
    found = [first]
    for l2 in schedule.search.undecided(first.losses):
        schedule.notes = list(first.notes_before)
        found.append(_Council(schedule, schedule.search.under(l2)))
    best = min(found, key=lambda council: council.loss)
    best.restore()
    return best.pair


def further_council(schedule: Schedule, pair: TowerPair) -> list[Tower]:
    """Let an earlier run's council go on, on this data."""
    named = zip(_names(len(pair.all))[2:], pair.council, strict=True)
    return [schedule.further(name, FIRST + i, tower) for i, (name, tower) in enumerate(named)]


def _names(number: int) -> list[str]:
    """Tower A and those after it."""
    return [f"tower_{letter}" for letter in ascii_lowercase[:number]]


class _Council:
    """All towers under one L2, the best on validation first, and the schedule as it was with them.

    Attributes:
        pair: Without those that make the mean of the better ones clearly worse.
        losses: Of each tower that was trained.
        loss: Of the mean of those that stayed.
        notes_before: What had been noted before.
    """

    def __init__(self, schedule: Schedule, pair: TowerPair) -> None:
        self.notes_before = tuple(schedule.notes)
        self._schedule = schedule
        names = _names(2 + schedule.dtf.council)
        trained = [
            schedule.tower(name, FIRST + i, stored=schedule.search.stored(name)) for i, name in enumerate(names[2:])
        ]
        towers = dict(zip(names, (pair.a, pair.b, *trained), strict=True))
        label, weight, monitor = schedule.valid.split.label, schedule.valid.split.weight, schedule.tower_monitor
        said = {name: schedule.tower_logits(tower) for name, tower in towers.items()}
        losses = {name: lost(monitor, label, logits, weight) for name, logits in said.items()}
        order = sorted(names, key=lambda name: losses[name])
        kept = order[:2]
        for name in order[2:]:
            without, with_it = (np.mean([said[one] for one in some], axis=0) for some in (kept, [*kept, name]))
            if gain(monitor, label, without, with_it, weight).clear(FAR):
                schedule.notes.append(HARMFUL.format(towers=len(towers)))
            else:
                kept.append(name)
        a, b, *council = (towers[name] for name in kept)
        self.pair, self.losses = TowerPair(a, b, council), list(losses.values())
        self.loss = lost(monitor, label, np.mean([said[name] for name in kept], axis=0), weight)
        schedule.history = _renamed(schedule.history, dict(zip(kept, _names(len(kept)), strict=True)))
        self._kept = schedule.config, schedule.slots, schedule.history, schedule.notes

    def restore(self) -> None:
        """Leave the schedule as it was with these."""
        schedule = self._schedule
        schedule.config, schedule.slots, schedule.history, schedule.notes = self._kept


def _renamed(history: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """The evaluations of some towers' phases under new names, in their order."""
    found = []
    for record in history:
        old = record["phase"]
        if old in names:
            new = names[old]
            found.append({key.replace(f"{old}.", f"{new}."): value for key, value in record.items()} | {"phase": new})
    return sorted(found, key=lambda record: record["phase"])
