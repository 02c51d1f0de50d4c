"""Who teaches the fused model, and how sure of themselves: a pair and its council, and beside them an evidence tower.

Shapes: M validation rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.calibration import IDENTITY
from training.dtf import Teacher, calibrated, mixed
from training.towers.evidence import evidence_of, share_of

if TYPE_CHECKING:
    from training.models.reaction import TowerPair
    from training.towers.schedule import Schedule


def teacher_of(schedule: Schedule, pair: TowerPair) -> Teacher:
    """Freeze what teaches, calibrated on validation as far as that is beyond noise.

    Training rows carry what an evidence tower says of them from here on, where one teaches.
    """
    evidence, share, calibration = evidence_of(schedule), 0.0, IDENTITY
    if evidence is not None or schedule.dtf.calibrate_teacher:
        said = np.mean([schedule.tower_logits(tower) for tower in pair.all], axis=0)
        if evidence is not None:
            share = share_of(schedule, said, evidence)
            said = mixed(said, evidence.valid, share)
        if schedule.dtf.calibrate_teacher:
            calibration = calibrated(said, schedule.valid.split, schedule.seed)
    schedule.train.evidence = evidence.training if evidence is not None and share else None
    schedule.evidence_share = share
    return Teacher(pair.all, [schedule.bank(tower) for tower in pair.all], calibration, share)
