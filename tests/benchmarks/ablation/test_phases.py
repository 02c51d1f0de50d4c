"""What a stored phase is known by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from ablated import TRAIN, toy
from model_toys import scramble

from benchmarks.ablation.schedules import Ablated
from training.models.reaction import TowerPair

if TYPE_CHECKING:
    from pathlib import Path


def test_a_fusion_under_other_teachers_is_another_phase(tmp_path: Path) -> None:
    """Which towers teach, their weights and their calibration all decide what a fusion ends with."""
    schedule = toy(Ablated, tmp_path, TRAIN)

    def known_by(pair: TowerPair) -> str:
        assert schedule.store.finished("fusion_of_the_test") is None
        schedule.teacher(pair)
        assert schedule.store.finished("fusion_of_the_test") is None
        return schedule.store.digests["fusion_of_the_test"]

    with torch.random.fork_rng():
        pair = schedule.towers()
        a, b, *council = pair.all
        assert len(council) == 2
        digests = [known_by(pair), known_by(TowerPair(a, b, council[:1])), known_by(TowerPair(a, b, []))]
        schedule.dtf = schedule.dtf.model_copy(update={"calibrate_teacher": False})
        digests.append(known_by(pair))
        schedule.dtf = schedule.dtf.model_copy(update={"calibrate_teacher": True})
        assert known_by(pair) == digests[0]
        scramble(council[1])
        digests.append(known_by(pair))
    assert len(set(digests)) == len(digests)
    assert schedule.teachers == 4
