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

    The schedule's history names towers by their rank, as the pair that is returned does.
    """
    if not schedule.dtf.council or BEGUN in schedule.notes:
        return pair
    names = _names(2 + schedule.dtf.council)
    trained = [schedule.tower(name, FIRST + i) for i, name in enumerate(names[2:])]
    return _ranked(schedule, dict(zip(names, (pair.a, pair.b, *trained), strict=True)))


def further_council(schedule: Schedule, pair: TowerPair) -> list[Tower]:
    """Let an earlier run's council go on, on this data."""
    named = zip(_names(len(pair.all))[2:], pair.council, strict=True)
    return [schedule.further(name, FIRST + i, tower) for i, (name, tower) in enumerate(named)]


def _names(number: int) -> list[str]:
    """Tower A and those after it."""
    return [f"tower_{letter}" for letter in ascii_lowercase[:number]]


def _ranked(schedule: Schedule, towers: Mapping[str, Tower]) -> TowerPair:
    """The towers, the best on validation first, without those that make the mean of the better ones clearly worse."""
    label, weight, monitor = schedule.valid.split.label, schedule.valid.split.weight, schedule.tower_monitor
    said = {name: schedule.tower_logits(tower) for name, tower in towers.items()}
    order = sorted(said, key=lambda name: lost(monitor, label, said[name], weight))
    kept = order[:2]
    for name in order[2:]:
        without, with_it = (np.mean([said[one] for one in some], axis=0) for some in (kept, [*kept, name]))
        if gain(monitor, label, without, with_it, weight).clear(FAR):
            schedule.notes.append(HARMFUL.format(towers=len(towers)))
        else:
            kept.append(name)
    schedule.history = _renamed(schedule.history, dict(zip(kept, _names(len(kept)), strict=True)))
    a, b, *council = (towers[name] for name in kept)
    return TowerPair(a, b, council)


def _renamed(history: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """The evaluations of some towers' phases under new names, in their order."""
    found = []
    for record in history:
        old = record["phase"]
        if old in names:
            new = names[old]
            found.append({key.replace(f"{old}.", f"{new}."): value for key, value in record.items()} | {"phase": new})
    return sorted(found, key=lambda record: record["phase"])
