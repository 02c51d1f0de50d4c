"""What a stored phase is known by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from ablated import TRAIN, toy
from model_toys import scramble

from benchmarks.ablation.schedules import Ablated, WithoutFusion
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


def test_under_an_evidence_tower_the_tables_l2_is_part_of_what_a_fusion_is_and_elsewhere_is_not(tmp_path: Path) -> None:
    def known_by(share: float, factor: float, name: str = "fusion", **dtf: Any) -> str:
        schedule = toy(Ablated, tmp_path, TRAIN)
        schedule.dtf = schedule.dtf.model_copy(update={"evidence_l2": factor, **dtf})
        schedule.evidence_share = share
        assert schedule.store.finished(name) is None
        return schedule.store.digests[name]

    plain = known_by(0.0, 0.3)
    assert known_by(0.0, 0.5) == known_by(0.0, 0.3, evidence=0.0) == plain
    assert len({plain, known_by(0.35, 0.3), known_by(0.35, 0.5)}) == 3
    # What is trained once more without the tower is what a training without one trains.
    assert known_by(0.0, 0.3, "fusion_alone") == plain
    assert known_by(0.0, 0.3, "fusion_afresh_alone") == known_by(0.0, 0.3, "fusion_afresh") != plain


def test_where_labels_alone_teach_there_is_no_evidence_tower(tmp_path: Path) -> None:
    schedule = toy(WithoutFusion, tmp_path, TRAIN)
    assert schedule.dtf.evidence > 0
    with torch.random.fork_rng():
        schedule.fit()
    assert schedule.dtf.evidence == 0
    assert "evidence" not in schedule.store.digests
