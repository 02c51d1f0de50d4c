"""What a training searches before its towers are settled: whether rare values share rows, and the tables' L2.

Both depend on the data and are found on validation. First one tower is trained with rare values sharing rows and one
without (`row_sharing`; where a few other fields give a value away, its row's counts give the label away, and sharing
does harm); then pairs of towers under several L2 (`table_prior`). What is given is not searched for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from training.models.reaction import Tower, TowerPair
from training.towers.row_sharing import RowSharing
from training.towers.table_prior import CLEARLY, climb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.models.base import FieldSlot
    from training.phases.phase import Monitor
    from training.towers.schedule import Schedule

USUAL_SHARE: Final = 10.0
"""Evidence below which values share rows where that is clearly better, unless it is given."""


def choose_sharing(schedule: Schedule) -> None:
    """Leave the schedule with rare values sharing rows where tower A is clearly better by it on validation.

    Both towers' phases are in the store, for the next one to take up. The slots and the history are as at first.
    """
    plain = schedule.sharing
    shared = RowSharing.fit(schedule.given, schedule.splits[0], USUAL_SHARE)
    if shared.idle:
        return
    losses = []
    for sharing, says in ((shared, "rare values share rows: "), (plain, "a row a value: ")):
        schedule.share(sharing)
        schedule.gated_tower(alone_name(schedule), says)
        losses.append(best_of(schedule.history, schedule.tower_monitor))
        schedule.history = []
    schedule.share(shared if losses[0] < losses[1] - CLEARLY else plain)


def searched_towers(schedule: Schedule) -> tuple[Tower, Tower]:
    """Train both towers under several L2 of their tables, of which the pair's score on validation chooses one.

    All later phases take the one that was chosen, and the history holds the records of that one alone.
    """
    given = schedule.slots

    def attempt(l2: float) -> tuple[float, tuple[Tower, Tower]]:
        schedule.history, schedule.slots = [], given
        schedule.config = schedule.config.model_copy(update={"table_l2": l2})
        prefix = f"L2 {l2:g} of the tables: "
        a = schedule.gated_tower(alone_name(schedule), prefix)
        b = schedule.tower("tower_b", 1, stored=f"tower_b_{l2:g}", prefix=prefix)
        histories[l2], slots[l2] = schedule.history, schedule.slots
        return schedule.loss_of(TowerPair(a, b)), (a, b)

    histories: dict[float, list[dict[str, Any]]] = {}
    slots: dict[float, tuple[FieldSlot, ...]] = {}
    best, towers = climb(attempt)
    schedule.config = schedule.config.model_copy(update={"table_l2": best})
    schedule.history = [{**record, "table_l2": best} for record in histories[best]]
    schedule.slots = slots[best]
    return towers


def alone_name(schedule: Schedule) -> str:
    """Tower A's name in the store, which tells apart what it was trained with."""
    kind = "" if schedule.sharing.below else "_unshared"
    return f"tower_a_{schedule.config.first_table_l2:g}{kind}"


def best_of(history: Sequence[Mapping[str, Any]], monitor: Monitor) -> float:
    """The least of a metric in tower A's records; negative where more is better."""
    found = [float(record[f"tower_a.{monitor}"]) for record in history if record["phase"] == "tower_a"]
    return -max(found) if monitor == "auc" else min(found)
