"""What is compared: the whole, the whole without one part, and controls. One line a variant."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.ablation.schedules import (
    Ablated,
    BestTower,
    BornAgain,
    ControlSettings,
    EnsembleTeacher,
    FreshTables,
    InheritOne,
    OneTower,
    WithoutFusion,
    WithoutLinks,
    WithoutProjection,
)
from training.tuning.space import applied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from training.config import ExperimentConfig

FULL = "full"
"""The name of the whole."""

ONE_WIDTH: dict[str, Any] = {"dtf.rich": 1, "dtf.evidence": 0.0}
"""A control's towers are as wide as what is served, and no evidence tower teaches beside them."""

PAIR: dict[str, Any] = {"dtf.council": 0}
MERGED: dict[str, Any] = {"dtf.fusion_start": "towers"}
AFRESH: dict[str, Any] = {"dtf.fusion_start": "afresh"}
ALIKE: dict[str, Any] = {"train.half_scale_at": 0.0}
NO_EVIDENCE: dict[str, Any] = {"dtf.evidence": 0.0}
"""What several variants give, alone or together."""

TWO = {**ONE_WIDTH, **PAIR}
"""Nor has an ordinary ensemble of two a council."""
AS_TAUGHT: dict[str, Any] = {"dtf.rich": 1}
"""One that is to have DTF's teachers, an evidence tower among them."""

Kind = Literal["part", "combination", "choice", "addition", "control"]
"""What a variant is beside the whole: see `Variant`."""

Stage = tuple[dict[str, Any], ...]

CONTROLS = ("one_tower", "born_again", "ensemble_teacher")
"""What DTF is to be worse than nowhere, and clearly ahead of on two tasks at least."""

STOPPING: Stage = ({}, {"monitor": "log_loss"})
TEACHING: tuple[Stage, ...] = (({}, {"calibrate": False}), ({}, {"label_weight": 0.5}, {"label_weight": 0.0}))
STUDENT: Stage = ({}, {"l2": 0.3}, {"l2": 0.03}, {"start": "fresh"})
"""What is tried for a control on one seed, a stage after the other, each beginning from the best so far by validation
log loss: its student's L2 and beginning; how its towers stop; whether its teacher is calibrated and what labels weigh
beside it. The student first, so that a control that is tuned in all has tried what one that is not has."""


@dataclass(frozen=True)
class Variant:
    """A way to train.

    Attributes:
        kind: "whole"; "part", the whole without one part; "combination", without several, which shows what they earn
            together; "choice", one way given of what validation chooses between; "addition", the whole with something
            more; "control", something else at equal total steps.
        says: What it is, for people.
        schedule: Its phases.
        overrides: "section.key" -> value, instead of the experiment's.
        stages: What of its settings is tuned on one seed.
    """

    kind: Kind | Literal["whole"]
    says: str
    schedule: type[Ablated] = Ablated
    overrides: dict[str, Any] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()

    def applied(self, config: ExperimentConfig) -> ExperimentConfig:
        """The experiment with this variant's overrides."""
        return applied(config, self.overrides)


VARIANTS: dict[str, Variant] = {
    FULL: Variant("whole", "AFE and DTF as they are"),
    "without_filter": Variant("part", "AFE: noise and copies are kept", overrides={"afe.filter": False}),
    "without_allocation": Variant("part", "AFE: one dimension for all fields", overrides={"afe.allocate": False}),
    "without_sharing": Variant(
        "part", "AFE: rare values share no rows (and no evidence tower teaches)", overrides={"afe.share_below": 0.0}
    ),
    "rows_alike": Variant("part", "AFE: all rows begin alike", overrides=ALIKE),
    "rows_near_zero": Variant(
        "choice", "AFE: rows of rare values always begin near zero", overrides={"train.half_scale_at": 30.0}
    ),
    "without_gates": Variant("part", "AFE: no field gates", overrides={"afe.gates": False}),
    "without_projection": Variant("part", "AFE: tables as wide as the subspace", WithoutProjection),
    "without_cross_links": Variant("part", "DTF: no links between the fused branches' layers", WithoutLinks),
    "without_teacher": Variant("part", "DTF: the fused model learns from labels alone", WithoutFusion),
    "without_merging": Variant("part", "DTF: the fused model begins from tower A alone", InheritOne, MERGED),
    "from_towers": Variant("choice", "DTF: the fused model always begins from the towers", overrides=MERGED),
    "afresh": Variant("choice", "DTF: the fused model always begins afresh", overrides=AFRESH),
    "best_tower": Variant("part", "DTF: no fusion, the best of the towers as it is", BestTower),
    "without_council": Variant("part", "DTF: two towers, which merge and teach", overrides=PAIR),
    "pair_merged": Variant(
        "combination",
        "DTF: two towers, which merge and teach, and no second beginning",
        overrides=PAIR | MERGED,
    ),
    "pair_merged_rows_alike": Variant(
        "combination", "the same, and all rows begin alike", overrides=PAIR | MERGED | ALIKE
    ),
    "pair_afresh": Variant("combination", "DTF: two towers, which teach what begins afresh", overrides=PAIR | AFRESH),
    "pair_afresh_rows_alike": Variant(
        "combination", "the same, and all rows begin alike", overrides=PAIR | AFRESH | ALIKE
    ),
    "without_evidence": Variant(
        "part", "DTF: no teacher that reads what was seen of values, not which they are", overrides=NO_EVIDENCE
    ),
    "evidence_tables_alike": Variant(
        "part",
        "DTF: under such a teacher, the fused model's tables have the usual L2",
        overrides={"dtf.evidence_l2": 1.0},
    ),
    "without_calibrated_teacher": Variant(
        "part", "DTF: towers teach what they say, however sure", overrides={"dtf.calibrate_teacher": False}
    ),
    "plainly_stopped_towers": Variant(
        "part", "DTF: towers stop by log loss as it is", overrides={"dtf.tower_monitor": "log_loss"}
    ),
    "without_squares": Variant("part", "AFE: no squares of the projected units", overrides={"dtf.quadratic": False}),
    "rich_tables": Variant(
        "addition", "DTF: towers' tables four times as wide as the fused ones", overrides={"dtf.rich": 4}
    ),
    "fresh_tables": Variant(
        "addition",
        "DTF: the fused model begins from the towers' layers and random tables",
        FreshTables,
        {"dtf.fusion_start": "towers"},
    ),
    "narrow": Variant("addition", "DTF: layers of half the width", overrides={"dtf.widths": [32, 32]}),
    "scaled_monitor": Variant(
        "addition",
        "DTF: the fusion phase stops by calibrated log loss",
        overrides={"dtf.fusion_monitor": "scaled_log_loss"},
    ),
    "one_tower": Variant("control", "one tower, weights averaged", OneTower, ONE_WIDTH, (STOPPING,)),
    "born_again": Variant(
        "control", "one tower under its own frozen self", BornAgain, ONE_WIDTH, (STUDENT, STOPPING, *TEACHING)
    ),
    "ensemble_teacher": Variant(
        "control", "one tower under two trained apart", EnsembleTeacher, TWO, (STUDENT, STOPPING, *TEACHING)
    ),
    "council_teacher": Variant(
        "control", "one tower under all that teach DTF", EnsembleTeacher, AS_TAUGHT, (STUDENT, STOPPING, *TEACHING)
    ),
    "born_again_taught": Variant(
        "control",
        "one tower under its own frozen self, stopped and calibrated as DTF's",
        BornAgain,
        ONE_WIDTH,
        (STUDENT,),
    ),
    "ensemble_teacher_taught": Variant(
        "control",
        "one tower under two trained apart, stopped and calibrated as DTF's",
        EnsembleTeacher,
        TWO,
        (STUDENT,),
    ),
}
"""In the order of the report. Controls that are stopped and calibrated as DTF's towers stop by the log loss once
scaled, have a calibrated teacher and labels of weight 0.2, as the whole; the others are tuned in all of it."""


def staged(stages: Sequence[Stage], loss: Callable[[ControlSettings], float]) -> ControlSettings:
    """Return what is best stage after stage, each trying its changes of the best so far; none is tried twice."""
    best = ControlSettings()
    found: dict[ControlSettings, float] = {}
    for stage in stages:
        for control in [replace(best, **changed) for changed in stage]:
            if control not in found:
                found[control] = loss(control)
        best = min(found, key=lambda control: found[control])
    return best
