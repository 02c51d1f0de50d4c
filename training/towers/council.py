"""The council: further towers, trained as tower B is, whose mean with the pair teaches the fusion phase.

Towers of other random weights and row orders err differently; the mean of four is a better teacher than that of two,
and its student is better than the pair that it was merged from (ensembles as teachers: Hinton et al., "Distilling the
Knowledge in a Neural Network", 2015). They are merged into nothing: what they take is training time.

Towers that began as logistic regression hardly differ, and get no council.
"""

from __future__ import annotations

from string import ascii_lowercase
from typing import TYPE_CHECKING, Final

import numpy as np

from training.models.reaction import TowerPair
from training.paired import gain
from training.towers.recovery import BEGUN, FAR

if TYPE_CHECKING:
    from training.models.reaction import Tower
    from training.towers.schedule import Schedule

FIRST: Final = 8
"""Number of the first one's phase, for its seed; the others' follow."""


def with_council(schedule: Schedule, pair: TowerPair) -> TowerPair:
    """Return the pair with a council, trained as the schedule was left by the pair's search."""
    if BEGUN in schedule.notes:
        return pair
    names = _names(schedule.dtf.council)
    return _useful(schedule, pair, [schedule.tower(name, FIRST + i) for i, name in enumerate(names)])


def further_council(schedule: Schedule, pair: TowerPair) -> list[Tower]:
    """Let an earlier run's council go on, on this data."""
    named = zip(_names(len(pair.council)), pair.council, strict=True)
    return [schedule.further(name, FIRST + i, tower) for i, (name, tower) in enumerate(named)]


def _names(number: int) -> list[str]:
    """Tower C and those after it."""
    return [f"tower_{letter}" for letter in ascii_lowercase[2 : 2 + number]]


def _useful(schedule: Schedule, pair: TowerPair, towers: list[Tower]) -> TowerPair:
    """The pair with those that do not make the mean clearly worse on validation."""
    valid, monitor = schedule.valid.split, schedule.tower_monitor
    said = [schedule.tower_logits(tower) for tower in (pair.a, pair.b)]
    kept = []
    for name, tower in zip(_names(len(towers)), towers, strict=True):
        logits = schedule.tower_logits(tower)
        without, with_it = np.mean(said, axis=0), np.mean([*said, logits], axis=0)
        if gain(monitor, valid.label, without, with_it, valid.weight).clear(FAR):
            schedule.notes.append(
                f"tower {name[-1].upper()} made the towers' mean worse on validation and does not teach"
            )
            schedule.history = [record for record in schedule.history if record["phase"] != name]
            continue
        kept.append(tower)
        said.append(logits)
    return TowerPair(pair.a, pair.b, kept)
