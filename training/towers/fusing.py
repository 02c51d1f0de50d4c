"""What the fused model begins from, and by whom it is taught. Validation decides, unless it is given.

A merged form begins where the towers end, and has little left to learn; but it inherits what their tables know by
heart. One that begins afresh learns from what they say alone: on MovieLens tags it ends ahead of the merged one in the
mean, on other data both end alike (ARCHITECTURE.md, 69).

Where an evidence tower teaches too, the better of both is trained once more without: a teacher that is better on
validation need not teach better (72).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

import torch

from training.dtf import Start
from training.models.reaction import FusionForm
from training.phases.phase import NonFiniteLossError
from training.towers.alignment import build_fusion_form

if TYPE_CHECKING:
    from training.models.reaction import TowerPair
    from training.towers.schedule import Schedule

STARTS: Final[tuple[Start, ...]] = get_args(Start)
"""In the order in which they are tried; of two that end alike the first one stays."""
ALONE: Final = "_alone"
"""Ends the name in the store of a phase that no evidence tower taught, where one taught another."""
DRAWN: Final = 5
"""Number of what is drawn, for its seed."""
SAYS: Final = {"towers": "from the towers: ", "afresh": "afresh: "}


def fused(schedule: Schedule, pair: TowerPair) -> FusionForm:
    """Train the fusion form of a pair; the schedule is left with what it began from and that phase's history.

    Raises:
        NonFiniteLossError: The loss became NaN or infinite, from whatever it began.
    """
    form = _begun(schedule, pair)
    return _or_without_evidence(schedule, pair, form) if schedule.evidence_share else form


def _begun(schedule: Schedule, pair: TowerPair) -> FusionForm:
    """Train from what is given, or from both, and keep the better one."""
    given = schedule.dtf.fusion_start
    if given is not None:
        return schedule.fusion(pair, start=given, stored=_stored(given))
    before, ends = schedule.history, []
    failed: list[NonFiniteLossError] = []
    for start in STARTS:
        schedule.history = list(before)
        try:
            form = schedule.fusion(pair, start=start, stored=_stored(start), prefix=SAYS[start])
        except NonFiniteLossError as error:
            failed.append(error)
            continue
        ends.append((schedule.form_loss(form), form, start, schedule.history))
    if not ends:
        raise failed[0]
    if failed:
        schedule.notes.append(f"of two beginnings of the fused model one failed and was left out: {failed[0]}")
    _, form, schedule.began, schedule.history = min(ends, key=lambda end: end[0])
    return form


def _or_without_evidence(schedule: Schedule, pair: TowerPair, form: FusionForm) -> FusionForm:
    """The form, or one of the same beginning that the pair and its council alone taught, where that is better."""
    dtf, share, taught = schedule.dtf, schedule.evidence_share, schedule.history
    schedule.history = [record for record in taught if record["phase"] != "fusion"]
    schedule.dtf = dtf.model_copy(update={"evidence": 0.0})
    start = schedule.began
    try:
        alone = schedule.fusion(pair, start=start, stored=f"{_stored(start)}{ALONE}", prefix="taught by rows alone: ")
        if schedule.form_loss(alone) < schedule.form_loss(form):
            return alone
    except NonFiniteLossError as error:
        schedule.notes.append(f"the fused model that no evidence tower taught failed and was left out: {error}")
    finally:
        schedule.dtf = dtf
    schedule.evidence_share, schedule.history = share, taught
    return form


def merged(schedule: Schedule, pair: TowerPair) -> FusionForm:
    """The fusion form of a pair as it is."""
    rows, split = schedule.sample(), schedule.train.split
    ids = [torch.from_numpy(side[rows]).to(schedule.device).long() for side in (split.context_ids, split.candidate_ids)]
    counts = [schedule.counts[slot.name] for slot in schedule.slots]
    return build_fusion_form(pair, schedule.slots, counts, *ids, dropout=schedule.dtf.fusion_dropout)


def drawn(schedule: Schedule, pair: TowerPair) -> FusionForm:
    """A fusion form of random weights, whose outputs' bias is tower A's: it predicts about the base rate."""
    torch.manual_seed(schedule.seed_of(DRAWN))
    dtf = schedule.dtf
    form = FusionForm(schedule.slots, dtf.widths, dropout=dtf.fusion_dropout).to(schedule.device)
    for branch in form.parallel:
        branch.output.bias.data.copy_(pair.a.body.output.bias.data)
    return form


def _stored(start: Start) -> str:
    """The phase's name in the store."""
    return "fusion" if start == "towers" else f"fusion_{start}"
