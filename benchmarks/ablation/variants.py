"""What is compared: the whole, the whole without one part, and controls. One line a variant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.ablation.schedules import (
    Ablated,
    BornAgain,
    ControlSettings,
    EnsembleTeacher,
    InheritOne,
    OneTower,
    WithoutFusion,
    WithoutLinks,
    WithoutProjection,
)

if TYPE_CHECKING:
    from training.config import ExperimentConfig

FULL = "full"
"""The name of the whole."""

METHOD = 5
"""Raised when the training itself changes under the same settings, so that older lines are not taken for it."""

ORDINARY: dict[str, Any] = {
    "dtf.rich": 1,
    "dtf.calibrate_teacher": False,
    "dtf.label_weight": 0.5,
    "dtf.tower_monitor": "log_loss",
}
"""A control as published: towers as wide as what is served and stopped by log loss, a student taught by what its
teacher says as it says it."""

OURS: dict[str, Any] = {"dtf.rich": 1}
"""The same control taught as the fusion form is, by a calibrated teacher: it lacks DTF's form of two branches alone."""


@dataclass(frozen=True)
class Variant:
    """A way to train.

    Attributes:
        kind: "whole"; "part", the whole without one part; "addition", the whole with something more; "control",
            something else at equal total steps.
        says: What it is, for people.
        schedule: Its phases.
        overrides: "section.key" -> value, instead of the experiment's.
        tuned: The student's settings are tuned on one seed.
    """

    kind: Literal["whole", "part", "addition", "control"]
    says: str
    schedule: type[Ablated] = Ablated
    overrides: dict[str, Any] = field(default_factory=dict)
    tuned: bool = False

    def applied(self, config: ExperimentConfig) -> ExperimentConfig:
        """The experiment with this variant's overrides."""
        sections: dict[str, dict[str, Any]] = {}
        for key, value in self.overrides.items():
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = value
        changed = {}
        for section, values in sections.items():
            old = getattr(config, section)
            changed[section] = type(old).model_validate({**old.model_dump(), **values})
        return config.model_copy(update=changed)


VARIANTS: dict[str, Variant] = {
    FULL: Variant("whole", "AFE and DTF as they are"),
    "without_filter": Variant("part", "AFE: noise and copies are kept", overrides={"afe.filter": False}),
    "without_allocation": Variant("part", "AFE: one dimension for all fields", overrides={"afe.allocate": False}),
    "without_sharing": Variant("part", "AFE: rare values share no rows", overrides={"afe.share_below": 0.0}),
    "without_gates": Variant("part", "AFE: no field gates", overrides={"afe.gates": False}),
    "without_projection": Variant("part", "AFE: tables as wide as the subspace", WithoutProjection),
    "without_cross_links": Variant("part", "DTF: no links between the fused branches' layers", WithoutLinks),
    "without_teacher": Variant("part", "DTF: the merged form learns from labels alone", WithoutFusion),
    "without_merging": Variant("part", "DTF: the fused form starts from tower A alone", InheritOne),
    "without_calibrated_teacher": Variant(
        "part", "DTF: the pair teaches what it says, however sure", overrides={"dtf.calibrate_teacher": False}
    ),
    "plainly_stopped_towers": Variant(
        "part", "DTF: towers stop by log loss as it is", overrides={"dtf.tower_monitor": "log_loss"}
    ),
    "without_squares": Variant("part", "AFE: no squares of the projected units", overrides={"dtf.quadratic": False}),
    "rich_tables": Variant(
        "addition", "DTF: towers' tables four times as wide as the fused ones", overrides={"dtf.rich": 4}
    ),
    "scaled_monitor": Variant(
        "addition",
        "DTF: the fusion phase stops by calibrated log loss",
        overrides={"dtf.fusion_monitor": "scaled_log_loss"},
    ),
    "one_tower": Variant("control", "one tower, weights averaged", OneTower, ORDINARY),
    "born_again": Variant("control", "one tower under its own frozen self", BornAgain, ORDINARY, tuned=True),
    "ensemble_teacher": Variant("control", "one tower under two trained apart", EnsembleTeacher, ORDINARY, tuned=True),
    "born_again_taught": Variant(
        "control", "one tower under its own frozen self, taught as DTF teaches", BornAgain, OURS, tuned=True
    ),
    "ensemble_teacher_taught": Variant(
        "control", "one tower under two trained apart, taught as DTF teaches", EnsembleTeacher, OURS, tuned=True
    ),
}
"""In the order of the report."""

GRID: tuple[ControlSettings, ...] = (
    ControlSettings(),
    ControlSettings(l2=0.3),
    ControlSettings(l2=0.03),
    ControlSettings(start="fresh"),
)
"""What is tried for a control's student on one seed; the least validation log loss is taken."""
