"""What a training searches before its towers are settled: what rare values' rows are and begin as, and the tables' L2.

All depend on the data. Tower A is trained under the usual L2 with rare values sharing rows and with a row a value:
they share where that is clearly better on validation, beyond the noise of its rows and of its groups (where a few other
fields give a value away, its row's counts give the label away, and sharing does harm). Under the same L2, not each
under its own: a strong L2 makes good for one tower what sharing makes good for a pair as well. On MovieLens tags by
time, tower A with a row a value is ahead once its L2 is strong enough, and the model that comes of it is behind. By the
same rule rows of rare values begin near zero (`table_prior.near_zero`) or all alike.

Then tower A climbs (`table_prior`). Tower B is trained under what was chosen, and, where A climbed up to there, under
the L2 below as well, of which the pair decides: what a tower knows by heart is lost in the mean of two, so that a pair
bears a weaker prior than a tower. What is given is not searched for. Where towers of one L2 differ by their random
numbers by as much as A does between two, all towers are trained under the L2 next to A's choice too (council.py).

Shapes: N validation rows.
"""

from __future__ import annotations

from statistics import stdev
from typing import TYPE_CHECKING, Any, Final

from training.models.reaction import TowerPair
from training.paired import CLEARLY, gain
from training.phases.phase import lost
from training.towers.row_sharing import RowSharing
from training.towers.table_prior import STEP, climb
from training.train_config import USUAL_L2

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from training.models.base import FieldSlot
    from training.models.reaction import Tower
    from training.paired import Gain
    from training.towers.schedule import Schedule

UNSURE: Final = 2.0 * 2.0**0.5
"""Standard deviations of a tower's loss by which one may be behind another by chance: two errors of a difference."""

USUAL_HALF: Final = 30.0
"""Times seen at which a row begins at half of the tables' scale where that is clearly better, unless it is given."""

USUAL_SHARE: Final = 10.0
"""Evidence below which values share rows where that is clearly better, unless it is given."""


class TowerSearch:
    """The search of one schedule.

    Attributes:
        chosen_l2: `RowSharing.below` -> the L2 that suits tower A with it.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._given_l2 = schedule.config.table_l2  # as long as this is being searched, the config has what is tried
        self._given_half = schedule.config.half_scale_at  # likewise
        if self._given_half is None:
            self._set_half(0.0)
        self._tried: dict[tuple[float, float, float], NDArray[np.float32]] = {}  # logits (N,) of tower A
        self.chosen_l2: dict[float, float] = {}

    def pair(self) -> TowerPair:
        """Train the towers; the schedule is left with what was chosen, its history that of the towers alone."""
        schedule = self._schedule
        sharing = self._sharing()
        found = self.chosen_l2[sharing.below]
        pairs = [self._together(sharing, l2) for l2 in self._candidates(sharing, found)]
        losses = [schedule.loss_of(pair) for pair, *_ in pairs]
        pair, l2, slots, history = pairs[losses.index(min(losses))]
        self._set(sharing, l2)
        schedule.slots = slots
        schedule.history = self.tagged(history)
        return pair

    def undecided(self, losses: Sequence[float]) -> list[float]:
        """L2 beside the chosen one, of which tower A alone cannot tell that they are worse.

        Args:
            losses: What towers of other random numbers come to under the chosen L2, those that failed left out: by as
                much as two of these may differ, two of different L2 may, too.
        """
        if self._given_l2 is not None or len(losses) == 1 or (spread := stdev(losses)) <= CLEARLY:
            return []
        chosen = self._schedule.config.first_table_l2
        settled = self._schedule.sharing.below, self._half
        losses_a = {l2: self.loss(logits) for (*others, l2), logits in self._tried.items() if tuple(others) == settled}
        bound = losses_a[chosen] + UNSURE * spread
        return [l2 for l2 in (chosen * STEP, chosen / STEP) if losses_a.get(l2, bound) < bound]

    def under(self, l2: float) -> TowerPair:
        """Train the pair under another L2; the schedule is left with that."""
        schedule = self._schedule
        pair, _, schedule.slots, schedule.history = self._together(schedule.sharing, l2)
        return pair

    def tower(self, name: str, number: int) -> Tower:
        """Train a further tower under what is chosen now; arguments as of `Schedule.tower`."""
        sharing = self._schedule.sharing
        return self._schedule.tower(name, number, stored=self._name(name, sharing), prefix=self._says(sharing))

    def tagged(self, history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """A history that says under which L2 the towers were trained, where that was searched for."""
        l2 = self._schedule.config.first_table_l2
        return [{**record, "table_l2": l2} if self._given_l2 is None else record for record in history]

    def alone(self) -> None:
        """Leave the schedule with what suits a model of one tower."""
        sharing = self._sharing()
        self._set(sharing, self.chosen_l2[sharing.below])

    def _sharing(self) -> RowSharing:
        """Which rows values share: as it was given, or what is better."""
        schedule = self._schedule
        plain = schedule.sharing
        if schedule.share_below is not None:
            return self._climbed(plain)
        shared = RowSharing.fit(schedule.given, schedule.splits[0], USUAL_SHARE)
        if shared.idle:
            return self._climbed(plain)
        one, other = (self._alone(sharing, self._usual_l2) for sharing in (shared, plain))
        return self._climbed(shared if self.gain(one, other).clear() else plain)

    def _climbed(self, sharing: RowSharing) -> RowSharing:
        """Find out whether rare values begin near zero, and the L2 that suits tower A."""
        self._begin(sharing)

        def better(one: float, other: float) -> bool:
            before, after = self._alone(sharing, other), self._alone(sharing, one)
            return self.gain(after, before).mean > CLEARLY

        if self._given_l2 is None:
            self.chosen_l2[sharing.below] = climb(better)
        else:
            self._alone(sharing, self._given_l2)
            self.chosen_l2[sharing.below] = self._given_l2
        return sharing

    def _begin(self, sharing: RowSharing) -> None:
        """Leave the schedule with where rare values begin: as it was given, or near zero if that is clearly better."""
        if self._given_half is not None:
            return
        found = []
        for half in (0.0, USUAL_HALF):
            self._set_half(half)
            found.append(self._alone(sharing, self._usual_l2))
        alike, near_zero = found
        if not self.gain(near_zero, alike).clear():
            self._set_half(0.0)

    def loss(self, logits: NDArray[np.float32]) -> float:
        """What logits (N,) come to on validation by the towers' monitor; negative where more is better."""
        valid = self._schedule.valid.split
        return lost(self._schedule.tower_monitor, valid.label, logits, valid.weight)

    def gain(self, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Gain:
        """How far logits (N,) are ahead of others on validation by the towers' monitor."""
        valid = self._schedule.valid.split
        return gain(self._schedule.tower_monitor, valid, ours, theirs)

    def _candidates(self, sharing: RowSharing, l2: float) -> list[float]:
        """The L2 that the pair decides about: tower A's choice, and the one below if it climbed up from there."""
        climbed = l2 > USUAL_L2 and (sharing.below, self._half, l2 / STEP) in self._tried
        return [l2, l2 / STEP] if climbed else [l2]

    def _alone(self, sharing: RowSharing, l2: float) -> NDArray[np.float32]:
        """What tower A says of the validation split, trained under one setting; its weights are in the store."""
        key = sharing.below, self._half, l2
        if key not in self._tried:
            self._tried[key] = self._schedule.tower_logits(self._tower_a(sharing, l2))
        return self._tried[key]

    def _together(
        self, sharing: RowSharing, l2: float
    ) -> tuple[TowerPair, float, tuple[FieldSlot, ...], list[dict[str, Any]]]:
        """Train tower B beside a tower A that the store has."""
        schedule = self._schedule
        a = self._tower_a(sharing, l2)
        b = schedule.tower("tower_b", 1, stored=self._name("tower_b", sharing), prefix=self._says(sharing))
        return TowerPair(a, b), l2, schedule.slots, schedule.history

    def _tower_a(self, sharing: RowSharing, l2: float) -> Tower:
        self._set(sharing, l2)
        return self._schedule.gated_tower(self._name("tower_a", sharing), self._says(sharing))

    def _set(self, sharing: RowSharing, l2: float) -> None:
        schedule = self._schedule
        if schedule.sharing is not sharing:
            schedule.share(sharing)
        schedule.slots, schedule.history = sharing.slots, []
        schedule.config = schedule.config.model_copy(update={"table_l2": l2})

    def _set_half(self, half: float) -> None:
        schedule = self._schedule
        schedule.config = schedule.config.model_copy(update={"half_scale_at": half})

    @property
    def _half(self) -> float:
        return self._schedule.config.first_half_scale_at

    @property
    def _usual_l2(self) -> float:
        return USUAL_L2 if self._given_l2 is None else self._given_l2

    def _name(self, tower: str, sharing: RowSharing) -> str:
        """A tower's name in the store, which tells apart what it was trained with."""
        schedule = self._schedule
        if self._given_l2 is not None and schedule.share_below is not None and self._given_half is not None:
            return tower
        kind = ("" if sharing.below else "_unshared") + ("_near_zero" if self._half else "")
        return f"{tower}_{schedule.config.first_table_l2:g}{kind}"

    def _says(self, sharing: RowSharing) -> str:
        """What is told before each evaluation."""
        schedule = self._schedule
        parts = []
        if schedule.share_below is None:
            parts.append("rare values share rows" if sharing.below else "a row a value")
        if self._given_half is None:
            parts.append("rare values begin near zero" if self._half else "all rows begin alike")
        if self._given_l2 is None:
            parts.append(f"L2 {schedule.config.first_table_l2:g} of the tables")
        return f"{', '.join(parts)}: " if parts else ""
