"""A teacher with another view: a tower that reads what was seen of each value, and not which value it is.

Towers of table rows know what a value is like where it was seen often, and little where it was not. What clicks and
rows tell of a value (`RowSharing`: values of equal counts read one row, a training row's own label left out) holds for
rare values as for others, and is learnt from all of them. A tower that reads nothing else, of any value that was seen
less than very often, is worse than the others and errs differently: where both teach, the fused model learns from its
labels and from two views of a row, and is served as it was (co-training: Blum and Mitchell, COLT 1998, is the argument
for two views; here neither is served).

One tower that reads both is no such thing: a value's own row and the counts without a row's label together give that
label away.

It is tried where rare values share rows, which says that counts tell more than rows there, and teaches where the mean
with it is clearly better on validation, and what it taught is better than what was taught without it (fusing.py). The
fused model's tables have less L2 then (`dtf.evidence_l2`): of a row that is known by two views there is more to learn.

Shapes: N training rows, M validation rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from training.dtf import mixed
from training.phases.phase import NonFiniteLossError, lost
from training.towers.row_sharing import RowSharing
from training.train_config import USUAL_L2

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from training.towers.schedule import Schedule

    Logits = NDArray[np.float32]

NUMBER: Final = 7
"""Of its phase, for its seed; a tower B that is trained again has the same, and other rows."""

SHARES: Final = (0.2, 0.35, 0.5, 0.65)
"""Weights that are tried of its logit, beside the other towers' mean."""

NOTE: Final = "a tower that reads what was seen of values, not which they are, taught with a share of {share:g}"

FAILED: Final = "the tower that reads what was seen of values failed and does not teach: "


@dataclass(frozen=True)
class Evidence:
    """What the tower says.

    Attributes:
        training: (N,) logits on the training rows, each row's own label left out of the counts that it reads.
        valid: (M,) on the validation rows.
    """

    training: Logits
    valid: Logits


def evidence_of(schedule: Schedule) -> Evidence | None:
    """Train the tower, once; None where no values share rows, or it would read the rows that the others do.

    It has no gates, and the tables' usual L2: a climb would cost several towers, and its rows are read often. The
    schedule is left as it was.
    """
    if schedule.sharing.idle or schedule.dtf.evidence <= schedule.sharing.below:
        return None
    if schedule.evidence is None and not any(note.startswith(FAILED) for note in schedule.notes):
        sharing, slots, config, history = schedule.sharing, schedule.slots, schedule.config, list(schedule.history)
        try:
            schedule.evidence = _trained(schedule)
        except NonFiniteLossError as error:  # what teaches beside others is not needed
            schedule.notes.append(f"{FAILED}{error}")
        finally:
            schedule.share(sharing)
            schedule.slots, schedule.config, schedule.history = slots, config, history
    return schedule.evidence


def _trained(schedule: Schedule) -> Evidence | None:
    """Train it, unless it would be another one of the others; the schedule is left as it needs it."""
    left = {slot.name for slot in schedule.slots}
    sharing = RowSharing.fit(schedule.given, schedule.splits[0], schedule.dtf.evidence)
    if sharing.slots == schedule.sharing.slots:
        return None
    schedule.share(sharing)
    schedule.slots = tuple(slot for slot in schedule.slots if slot.name in left)
    schedule.config = schedule.config.model_copy(update={"table_l2": USUAL_L2, "half_scale_at": 0.0})
    tower = schedule.tower("evidence", NUMBER, prefix="what was seen of values: ")
    return Evidence(schedule.tower_logits(tower, training=True), schedule.tower_logits(tower))


def taught(share: float) -> tuple[str, ...]:
    """What a reader has to know of an evidence tower with such a share in what taught; nothing without one."""
    return (NOTE.format(share=share),) if share else ()


def share_of(schedule: Schedule, said: Logits, evidence: Evidence) -> float:
    """The evidence tower's share beside towers whose mean says `said` (M,): the best one; 0 if it is no clear gain."""
    valid, monitor = schedule.valid.split, schedule.tower_monitor

    def loss(share: float) -> float:
        return lost(monitor, valid.label, mixed(said, evidence.valid, share), valid.weight)

    share = min(SHARES, key=loss)
    return share if schedule.search.gain(mixed(said, evidence.valid, share), said).clear() else 0.0
