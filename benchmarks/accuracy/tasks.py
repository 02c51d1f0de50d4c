"""The tasks: a published data set and a way of splitting it, prepared once and read by every model alike."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

import training
from training.config import load_config, with_absolute_paths
from training.datasets.config import RandomSplit, TimeSplit
from training.loader import PreparedData, PreparedDataError
from training.prepare import prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.config import ExperimentConfig
    from training.loader import Split
    from training.progress import Progress

EXPERIMENTS = Path(training.__file__).parent / "experiments"

TIME_BLOCKS = 100
"""Blocks of rows that follow each other, which the bootstrap draws whole where rows are in the order of time."""


@dataclass(frozen=True)
class Task:
    """One data set, split one way.

    Attributes:
        experiment: name of the experiment in `training/experiments/`, whose `[data]` section it is.
        split: "random" compares with the literature, "time" with what production sees.
        cluster: what the bootstrap over test rows draws whole: rows, groups (users), or blocks of time.
        extra: only run when it is named.
    """

    experiment: str
    split: Literal["random", "time"]
    cluster: Literal["group", "time"] | None = None
    extra: bool = False

    @property
    def grouped(self) -> bool:
        """Whether its rows come in groups; where they do, they are drawn by them."""
        return self.cluster == "group"

    def config(self) -> ExperimentConfig:
        """The experiment, its raw data's path absolute or under REACTION_DATA_DIR."""
        path = EXPERIMENTS / f"{self.experiment}.toml"
        config = load_config(path)
        split = RandomSplit() if self.split == "random" else TimeSplit(kind="time")
        data = config.data.model_copy(update={"split": split})
        return with_absolute_paths(config.model_copy(update={"data": data}), path.parent)

    def clusters(self, split: Split) -> NDArray[np.int64] | None:
        """A number for each row (N,): rows of one number are drawn together; None where each is drawn alone.

        Raises:
            PreparedDataError: rows are to be drawn by group, and the data has none.
        """
        if self.cluster is None:
            return None
        if self.cluster == "time":
            return np.arange(split.rows, dtype=np.int64) * TIME_BLOCKS // max(1, split.rows)
        if split.group is None:
            raise PreparedDataError(f"{self.experiment}: expected groups to draw by, got a data set without")
        return np.asarray(split.group)


TASKS: dict[str, Task] = {
    "movielens_100k-random": Task("movielens_100k", "random", "group"),
    "avazu-random": Task("avazu", "random"),
    "criteo-random": Task("criteo", "random"),
    "movielens_latest_tags-random": Task("movielens_latest_tags", "random", "group"),
    "movielens_latest-time": Task("movielens_latest", "time", "group"),
    "movielens_100k-time": Task("movielens_100k", "time", "group"),
    "avazu-time": Task("avazu", "time", "time"),
    "movielens_latest-random": Task("movielens_latest", "random", "group"),
    "movielens_latest_tags-time": Task("movielens_latest_tags", "time", "group"),
    "movielens_1m-random": Task("movielens_1m", "random", "group", extra=True),
    # Criteo has no timestamps; its rows are in the order of time, for all that is known.
    "criteo-time": Task("criteo", "time", "time", extra=True),
}
"""In the order in which they are run."""


def data_path(name: str, work: Path) -> Path:
    """Where a task's prepared data lies: another `[data]` section is another folder."""
    section = json.dumps(TASKS[name].config().data.model_dump(mode="json"), sort_keys=True)
    return work / "data" / f"{name}-{hashlib.sha256(section.encode()).hexdigest()[:8]}"


def prepared(name: str, work: Path, progress: Progress | None = None) -> PreparedData:
    """Open a task's data, preparing it first where that has not been done.

    Raises:
        DataError: the raw data is not there, or not as described.
    """
    path = data_path(name, work)
    if not path.exists():
        config = TASKS[name].config()
        prepare(config.data, base=EXPERIMENTS, seed=config.seed, name=config.name, out=path, progress=progress)
    return PreparedData.open(path)


def data_digest(data: PreparedData) -> str:
    """What was learned from: a digest of every encoded array and vocabulary, whatever the folders were called."""
    files = {name: file.sha256 for name, file in data.info.files.items() if name.endswith(".npy")}
    content = {"features": data.info.features_digest, "rows": data.info.rows, "files": files}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
