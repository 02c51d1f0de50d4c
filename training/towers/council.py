"""The council: further towers, trained as tower B is. Validation's best two are the pair that becomes one; all teach.

Towers of other random weights and row orders err differently; the mean of four is a better teacher than that of two,
and its student is better than the pair that it was merged from (ensembles as teachers: Hinton et al., "Distilling the
Knowledge in a Neural Network", 2015). How good a tower is depends on its random numbers, on some data by more than all
else; the best two of four are a better beginning than the first two. What the others take is training time.

Shapes: N validation rows.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from training.models.reaction import TowerPair
from training.towers.recovery import FAR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.models.base import FieldSlot
    from training.paired import Gain
    from training.towers.schedule import Schedule
    from training.train_config import TrainConfig

FIRST: Final = 8
"""Number of the first further tower's phase, for its seed; the others' follow."""
LEFT_OUT: Final = "{left} of {towers} towers made the others' mean worse on validation ({worse:.4f} for {better:.4f})"
ALONE: Final = "all but one of {towers} towers stayed far behind it on validation; it teaches alone"


def with_council(schedule: Schedule, pair: TowerPair) -> TowerPair:
    """Return validation's best two of the pair and as many more towers as are asked for, with the others as council.

    Where towers of one L2 of the tables differ so much that the one which was searched with could not tell, all are
    trained under the L2 next to it as well, and the better mean stays. The schedule's history names towers by their
    rank, as the pair that is returned does.
    """
    best = _train(schedule, pair)
    for l2 in schedule.search.undecided(best.losses):
        other = _train(schedule, schedule.search.under(l2))
        if other.loss < best.loss:
            best = other
    schedule.config, schedule.slots, schedule.history = best.config, best.slots, best.history
    schedule.notes += best.notes
    return best.pair


def further(schedule: Schedule, pair: TowerPair) -> TowerPair:
    """Let an earlier run's towers go on, on this data: as many as there are."""
    named = zip(_phases(len(pair.all)), pair.all, strict=True)
    a, b, *council = (schedule.further(name, number, tower) for (name, number), tower in named)
    return TowerPair(a, b, council)


@dataclass(frozen=True)
class _Council:
    """Towers of one L2, and the schedule's state with them.

    Attributes:
        pair: The best two and the others that teach.
        losses: Of each tower that teaches.
        loss: Of the mean of those that teach.
        notes: What a reader has to know.
        config: The schedule's.
        slots: The schedule's.
        history: Of those that teach, under names by rank.
    """

    pair: TowerPair
    losses: list[float]
    loss: float
    notes: list[str]
    config: TrainConfig
    slots: tuple[FieldSlot, ...]
    history: list[dict[str, Any]]


def _train(schedule: Schedule, pair: TowerPair) -> _Council:
    """Train the towers beside a pair, rank all, and keep as many of the first as no fewer are clearly better than.

    Two at least, but where one alone is ahead of the best mean by `FAR` standard errors, it is the pair by itself.
    """
    search, phases = schedule.search, _phases(2 + schedule.dtf.council)
    towers = [pair.a, pair.b, *(search.tower(name, number) for name, number in phases[2:])]
    said = [schedule.tower_logits(tower) for tower in towers]
    losses = [search.loss(logits) for logits in said]
    order = sorted(range(len(towers)), key=losses.__getitem__)
    means = [np.mean([said[i] for i in order[:count]], axis=0) for count in range(1, len(order) + 1)]
    of_means = [search.loss(logits) for logits in means]
    best = min(range(2, len(order) + 1), key=lambda number: of_means[number - 1])

    def ahead(fewer: int, more: int) -> Gain:
        return search.gain(means[fewer - 1], means[more - 1])

    count = max(number for number in range(2, len(order) + 1) if not ahead(best, number).clear())
    notes = []
    if ahead(1, count).clear(FAR):
        count = 1
        notes.append(ALONE.format(towers=len(towers)))
    elif ahead(count, len(order)).clear(FAR):
        worse, better = abs(of_means[-1]), abs(of_means[count - 1])
        notes.append(LEFT_OUT.format(left=len(towers) - count, towers=len(towers), worse=worse, better=better))
    kept = [towers[i] for i in order[:count]]
    a, b, *council = kept if count > 1 else (kept[0], copy.deepcopy(kept[0]))
    names = {phases[i][0]: phases[rank][0] for rank, i in enumerate(order[:count])}
    return _Council(
        pair=TowerPair(a, b, council),
        losses=[losses[i] for i in order[:count]],
        loss=of_means[count - 1],
        notes=notes,
        config=schedule.config,
        slots=schedule.slots,
        history=_renamed(search.tagged(schedule.history), names),
    )


def _phases(number: int) -> list[tuple[str, int]]:
    """Name and number of the phases of so many towers, A's first."""
    return [(f"tower_{ascii_lowercase[i]}", i if i < 2 else FIRST + i - 2) for i in range(number)]  # noqa: PLR2004


def _renamed(history: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """The evaluations of some towers' phases under new names, in their order."""
    found = []
    for record in history:
        old = record["phase"]
        if old in names:
            new = names[old]
            found.append({key.replace(f"{old}.", f"{new}."): value for key, value in record.items()} | {"phase": new})
    return sorted(found, key=lambda record: record["phase"])
