"""What a training does where something of it came out badly, all decided on validation.

- A tower may end far behind the other one. It is trained once more, from other random weights; where it still makes the
  pair worse than the other tower is, that one is the pair by itself.
- Towers of random weights may end behind logistic regression (`linear_start`), and so may the fused model. Then both
  begin anew as that regression, a row a value, and the fused model does so itself if need be: a phase keeps the best it
  has seen, its beginning included, so that a training ends behind its yardstick only by what fields were dropped.

What was done is noted for whoever reads the run.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from training.models.reaction import TowerPair
from training.paired import gain
from training.phases.phase import lost
from training.towers.linear_start import fit_linear
from training.towers.row_sharing import RowSharing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from training.models.reaction import FusionForm
    from training.towers.linear_start import Linear
    from training.towers.schedule import Schedule

AGAIN = 6
"""Number of a phase that trains a tower once more, for its seed; tower B's is one more."""
FAR = 2.0
"""Standard errors by which a tower alone must be ahead of the pair for the other one to be left out."""
BEHIND = 1.0
"""Likewise for the other one to be trained anew: of the old pair and the new the better is kept, so a mistake costs
time alone."""
BEGUN = "both towers ended behind logistic regression on validation and began anew as it"
SAYS = {"tower_a": "tower A", "tower_b": "tower B"}


def without_weak(schedule: Schedule, pair: TowerPair) -> TowerPair:
    """Return the pair; a tower that makes it worse than the other one is trained anew, or replaced by that one."""
    weak = _weak(schedule, pair, BEHIND)
    if weak is None:
        return pair
    said = _scores(schedule, pair)
    before, count = pair, len(schedule.history)
    number = AGAIN + (weak == "tower_b")
    tower = schedule.tower(weak, number, stored=f"{weak}_again", prefix="once more: ")
    pair = TowerPair(tower, pair.b) if weak == "tower_a" else TowerPair(pair.a, tower)
    old, new = schedule.history[:count], schedule.history[count:]
    if schedule.loss_of(pair) < schedule.loss_of(before):
        schedule.history = sorted([r for r in old if r["phase"] != weak] + new, key=lambda record: record["phase"])
    else:
        pair, schedule.history = before, old
    schedule.notes.append(f"{SAYS[weak]} ended far behind the other one on validation ({said}) and was trained again")
    weak = _weak(schedule, pair, FAR)
    if weak is None:
        return pair
    schedule.notes.append(
        f"{SAYS[weak]} stayed far behind the other on validation ({_scores(schedule, pair)}), which teaches alone"
    )
    good = pair.b if weak == "tower_a" else pair.a
    return TowerPair(good, copy.deepcopy(good))


def _weak(schedule: Schedule, pair: TowerPair, errors: float) -> str | None:
    """The tower without which the other one would be better than the pair is, by so many standard errors."""
    said = schedule.pair_logits(pair)
    valid, monitor = schedule.valid.split, schedule.tower_monitor
    for one, other in (("tower_a", "tower_b"), ("tower_b", "tower_a")):
        if gain(monitor, valid, said[other], said["pair"]).clear(errors):
            return one
    return None


def _scores(schedule: Schedule, pair: TowerPair) -> str:
    said, valid, monitor = schedule.pair_logits(pair), schedule.valid.split, schedule.tower_monitor
    one, other = (abs(lost(monitor, valid.label, said[name], valid.weight)) for name in SAYS)
    return f"{monitor.replace('_', ' ')} {one:.4f} of A, {other:.4f} of B"


def ahead_of_yardstick(schedule: Schedule, pair: TowerPair) -> TowerPair:
    """Return the pair, or one that began as logistic regression where that is ahead of it."""
    linear = regression_ahead(schedule, schedule.pair_logits(pair)["pair"])
    return pair if linear is None else _begun_pair(schedule, linear)


def regression_ahead(schedule: Schedule, logits: NDArray[np.float32]) -> Linear | None:
    """The regression that towers should begin as, where it is ahead of what they say (N,); None elsewhere.

    Where it is, the schedule is left with a row a value, all fields, and a note.
    """
    if not _can_begin(schedule) or schedule.yardstick is None:
        return None
    valid, monitor = schedule.valid.split, schedule.tower_monitor
    if gain(monitor, valid, schedule.yardstick.logits, logits).mean <= 0.0:
        return None
    schedule.notes.append(BEGUN)
    return _regression(schedule)


def recovered(schedule: Schedule, pair: TowerPair, form: FusionForm) -> tuple[TowerPair, FusionForm]:
    """Return pair and form, or those that began as logistic regression where the form ended behind that."""
    ends = [_End(schedule, pair, form)]
    if _can_begin(schedule) and ends[0].loss > _yardstick_loss(schedule):
        linear = _regression(schedule)
        if not any(note == BEGUN for note in schedule.notes):
            pair = _begun_pair(schedule, linear)
            ends.append(_End(schedule, pair, schedule.fusion(pair, stored="fusion_linear")))
        if ends[-1].loss > _yardstick_loss(schedule):
            a, b = (schedule.fresh(number, linear) for number in (0, 1))
            begun = TowerPair(a, b)
            schedule.history = [record for record in schedule.history if record["phase"] != "fusion"]
            ends.append(_End(schedule, pair, schedule.fusion(pair, begun=begun, stored="fusion_regression")))
        schedule.notes.append("the fused model ended behind logistic regression on validation and began anew as it")
    best = min(ends, key=lambda end: end.loss)
    best.restore(schedule)
    return best.pair, best.form


class _End:
    """A way to end, and the schedule as it was then."""

    def __init__(self, schedule: Schedule, pair: TowerPair, form: FusionForm) -> None:
        self.pair, self.form = pair, form
        self.loss = schedule.form_loss(form)
        self._sharing, self._slots = schedule.sharing, schedule.slots
        self._config, self._history = schedule.config, list(schedule.history)
        self._began, self._evidence_share = schedule.began, schedule.evidence_share

    def restore(self, schedule: Schedule) -> None:
        """Leave the schedule as it was."""
        if schedule.sharing is not self._sharing:
            schedule.share(self._sharing)
        schedule.slots, schedule.config, schedule.history = self._slots, self._config, self._history
        schedule.began, schedule.evidence_share = self._began, self._evidence_share


def _can_begin(schedule: Schedule) -> bool:
    """Whether there is a regression to begin as, and two units of every layer, one for each sign."""
    return schedule.yardstick is not None and min(schedule.dtf.widths) >= 2  # noqa: PLR2004


def _yardstick_loss(schedule: Schedule) -> float:
    if schedule.yardstick is None:
        return float("inf")
    logits: NDArray[Any] = schedule.yardstick.logits
    split = schedule.valid.split
    return lost(schedule.config.monitor, split.label, logits, split.weight)


def _regression(schedule: Schedule) -> Linear:
    """Leave the schedule with a row a value and all fields, and return the regression of that."""
    if not schedule.sharing.idle:
        schedule.share(RowSharing.fit(schedule.given, schedule.splits[0], 0.0))
        l2 = schedule.search.chosen_l2.get(0.0, schedule.config.first_table_l2)
        schedule.config = schedule.config.model_copy(update={"table_l2": l2})
    schedule.slots = schedule.sharing.slots
    C = 1.0 if schedule.yardstick is None else schedule.yardstick.C
    return fit_linear(schedule.slots, schedule.train.split, C, schedule.seed)


def _begun_pair(schedule: Schedule, linear: Linear) -> TowerPair:
    schedule.history = []
    a, b = (schedule.tower(name, number, linear=linear) for number, name in enumerate(SAYS))
    return TowerPair(a, b)
