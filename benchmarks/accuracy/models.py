"""The table of models: how each is fitted, what it starts from, and what of it is tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.accuracy.search import Ladder
from benchmarks.accuracy.space import Choice, Dimension, Linear, Log
from benchmarks.accuracy.tasks import TASKS
from training.baseline import GRID, TRAIN_ROWS
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.accuracy.fitted import Config, Fitted, Place


METHOD = 16
"""Of REACTION's training: raised when that changes under the same settings. It is in each of its runs' config, and so
in its key; a config without one is of before."""
UNGROUPED = 14
"""Likewise on data whose rows come in no groups: that is as old as what last changed there, and not trained anew. (When
a tower counts as weak, method 15 changed everywhere, for pairs without a council: no run of ours, nor any of the
ablation's variants, came out otherwise.)"""

UNSHARED = 15
"""Likewise where no values share rows: there is no evidence tower, which is all that changed since."""
SHARE_NONE = (
    "avazu-random",
    "avazu-time",
    "criteo-random",
    "movielens_100k-random",
    "movielens_100k-time",
    "movielens_latest-time",
)
"""Tasks in whose runs by those methods none do, on any seed."""


def method_of(task: str) -> int:
    """The method since which nothing has changed on a task's data."""
    if task not in SHARE_NONE:
        return METHOD
    return UNSHARED if TASKS[task].grouped else UNGROUPED


def as_recorded(task: str, sections: dict[str, Any]) -> dict[str, Any]:
    """An experiment's sections as a run's config on a task has them, changed in place.

    Where no values share rows the evidence tower's settings do nothing: runs of before there were any are the present
    ones, and have none. A run of such a task in which they are given to share is by the newest method.

    Returns:
        {"method": its number, and the sections}.
    """
    method = METHOD if sections["afe"]["share_below"] else method_of(task)
    if method < METHOD:
        del sections["dtf"]["evidence"], sections["dtf"]["evidence_l2"]
    return {"method": method, **sections}


@dataclass(frozen=True)
class Model:
    """One line of the table.

    Attributes:
        kind: The module that fits it: deep, logistic, trees or reaction.
        model: The `model` section of its config.
        train: The `train` section; None takes our loop's.
        loop: What is other than usual in our loop's.
        space: What is tuned.
        ladder: What is tuned first.
        core: In the core table; others run when they are named or with `--extra`.
        most_seeds: 1 where nothing is left to chance.
    """

    kind: str
    model: Config
    train: Config | None = None
    loop: Config | None = None
    space: tuple[Dimension, ...] = ()
    ladder: Ladder | None = None
    core: bool = True
    most_seeds: int = 5

    def defaults(self, task: str, rows: int) -> Config:
        """The first trial: what is usual.

        Args:
            task: Its name.
            rows: Of the training split.
        """
        if self.kind == "reaction":
            from benchmarks.accuracy.reaction import settings

            return settings(task)
        return {"model": self.model, "train": _loop(rows) | (self.loop or {}) if self.train is None else self.train}

    def fit(self) -> Callable[[str, Place, Config, int], Fitted]:
        """The function that trains it; imports what it needs."""
        # ruff: noqa: PLC0415
        if self.kind == "deep":
            from benchmarks.accuracy import deep

            return deep.fit
        if self.kind == "logistic":
            from benchmarks.accuracy import logistic

            return logistic.fit
        if self.kind == "trees":
            from benchmarks.accuracy import trees

            return trees.fit
        from benchmarks.accuracy import reaction

        return reaction.fit


def _loop(rows: int) -> Config:
    """Batches, evaluations and patience of our own loop, and the rate that CTR leaderboards start from."""
    ours = TrainConfig()
    return {
        "batch_size": ours.batch_rows(rows),
        "epochs": ours.epochs,
        "evaluations": ours.evaluations,
        "patience": ours.patience,
        "rate": 1e-3,
        "l2": 10_000.0,
        "averaging": 0.995,
    }


LOOP: tuple[Dimension, ...] = (
    Log("train.rate", 3e-4, 3e-3),
    Choice("train.averaging", (0.0, 0.98, 0.995)),
)
LADDER = Ladder("train.l2", (1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0), first=(3, 6))
TURN = (("train.calibrated", True),)
"""What REACTION's towers are stopped by, and a calibration: see `early`. Offered to all that have a ladder."""

CLIMB = "train.rate"
"""What is tried beyond the best point in the end."""

REACH = "model.dropout"
"""What is tried at the end of its range after that."""

TOWER: tuple[Dimension, ...] = (Linear("model.dropout", 0.0, 0.5),)
SHALLOW: Config = {"l2": 100.0, "rate": 5e-3}
SHALLOW_LADDER = Ladder("train.l2", (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0), first=(3, 6))
SHALLOW_LOOP: tuple[Dimension, ...] = (
    Log("train.rate", 1e-3, 1e-2),
    Choice("train.averaging", (0.0, 0.98, 0.995)),
)
"""Products of small values need larger steps, and less to hold them down."""

NORM: tuple[Dimension, ...] = (Choice("model.batch_norm", (False, True)),)
WIDE = {"embedding_dim": 10, "hidden_units": [400, 400, 400], "dropout": 0.2}

PUBLISHED = {**WIDE, "batch_norm": True}

MODELS: dict[str, Model] = {
    "LR": Model("logistic", {"grid": list(GRID)}, {"rows": TRAIN_ROWS}, most_seeds=1),
    "FM": Model("deep", {"embedding_dim": 10}, loop=SHALLOW, space=SHALLOW_LOOP, ladder=SHALLOW_LADDER),
    "FwFM": Model("deep", {"embedding_dim": 10}, loop=SHALLOW, space=SHALLOW_LOOP, ladder=SHALLOW_LADDER),
    "DNN": Model("deep", {**WIDE, "batch_norm": True}, space=LOOP + TOWER + NORM, ladder=LADDER),
    "DNN-small": Model(
        "deep",
        {"embedding_dim": 8, "hidden_units": [64, 64], "dropout": 0.2, "batch_norm": True},
        space=(
            *LOOP,
            *TOWER,
            *NORM,
            Choice("model.embedding_dim", (4, 8, 16)),
            Choice("model.hidden_units", ([64, 64], [128, 64], [32, 32], [64, 64, 64])),
        ),
        ladder=LADDER,
    ),
    "DCNv2": Model("deep", {**WIDE, "batch_norm": True, "cross_layers": 3}, space=LOOP + TOWER + NORM, ladder=LADDER),
    "FinalMLP": Model(
        "deep", {**WIDE, "batch_norm": True, "heads": 10, "gate_units": [64]}, space=LOOP + TOWER + NORM, ladder=LADDER
    ),
    "FinalNet": Model("deep", {**WIDE, "batch_norm": True}, space=LOOP + TOWER, ladder=LADDER),
    "LightGBM": Model(
        "trees",
        {"leaves": 63, "leaf_rows": 50, "column_share": 0.5, "row_share": 0.8, "l2": 1.0, "strength": 20.0, "folds": 5},
        {"rate": 0.05, "trees": 2000, "patience": 50},
        space=(
            Log("train.rate", 0.01, 0.1),
            Choice("model.leaves", (15, 31, 63, 127)),
            Log("model.leaf_rows", 10, 300, whole=True),
            Linear("model.column_share", 0.3, 1.0),
            Log("model.l2", 0.1, 100.0),
            Log("model.strength", 2.0, 100.0),
        ),
    ),
    "REACTION": Model("reaction", {}),
    "DeepFM": Model("deep", PUBLISHED, core=False, most_seeds=3),
    "xDeepFM": Model("deep", {**PUBLISHED, "cin_units": [16, 16, 16]}, core=False, most_seeds=3),
    "AutoInt+": Model(
        "deep",
        {**PUBLISHED, "attention_layers": 3, "attention_heads": 2, "attention_width": 32},
        core=False,
        most_seeds=3,
    ),
    "EDCN": Model("deep", {**PUBLISHED, "cross_layers": 3}, core=False, most_seeds=3),
    "GDCN": Model("deep", {**PUBLISHED, "cross_layers": 3}, core=False, most_seeds=3),
    "WideDeep": Model("deep", PUBLISHED, core=False, most_seeds=3),
}
"""In the order of the table. LR finds its C itself, on validation; REACTION runs with its defaults, untuned."""
