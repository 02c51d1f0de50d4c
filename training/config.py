"""The experiment: one TOML file that says everything a training depends on.

```toml
format = 1
name = "demo"
seed = 1

[data]    # which data, its fields and splits: training/datasets/config.py
[afe]     # measuring, filtering and allocating: training/afe.py
[dtf]     # the towers and the schedule of their fusion: training/dtf.py
[train]   # the loop: batches, rate, regularisation, stopping: training/train_config.py
[calibration]  # a monotone map of the score, kept where validation shows that it helps: training/calibration.py
```

Every section but `[data]` may be left out: its defaults suit any data set. An unknown key is an error.
"""

from __future__ import annotations

import difflib
import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from training.afe import AfeConfig
from training.calibration import CalibrationConfig
from training.datasets.config import DataConfig, GivenSplit
from training.dtf import DtfConfig
from training.readers.paths import DATA_DIR
from training.strict_toml import ConfigValueError, read_toml, write_toml
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Collection

    from training.dtf import Start


class ExperimentConfig(BaseModel):
    """One experiment, all defaults resolved.

    Attributes:
        format: version of this layout.
        name: starts the run's id.
        seed: of everything random: the split, the towers, the order of rows.
        data: the `[data]` section.
        afe: the `[afe]` section.
        dtf: the `[dtf]` section.
        train: the `[train]` section.
        calibration: the `[calibration]` section.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    data: DataConfig
    afe: AfeConfig = AfeConfig()
    dtf: DtfConfig = DtfConfig()
    train: TrainConfig = TrainConfig()
    calibration: CalibrationConfig = CalibrationConfig()


def load_config(path: Path) -> ExperimentConfig:
    """Read an experiment.

    Raises:
        ConfigError: it cannot be read or is wrong; says file, key path, expected and got.
    """
    return read_toml(path, ExperimentConfig)


def save_config(config: ExperimentConfig, path: Path) -> None:
    """Write an experiment with all its defaults spelled out, so that a later change of a default changes no old run."""
    values = config.model_dump(mode="json", exclude_none=True)
    # These two tell a key that was given from a default (a default may belong to another kind of field or split), and
    # what they came to is in the prepared data's features.json and dataset.json.
    data = values["data"]
    data["fields"] = [_as_given(field) for field in config.data.fields]
    if isinstance(config.data.split, GivenSplit):
        data["split"] = _as_given(config.data.split)
    write_toml(path, values)


def _as_given(model: BaseModel) -> dict[str, Any]:
    return {**model.model_dump(mode="json", include={"kind"}), **model.model_dump(mode="json", exclude_unset=True)}


def refuse_unknown_fields(afe: AfeConfig, names: Collection[str]) -> None:
    """Refuse an `[afe]` section that names fields which the data does not have.

    Raises:
        ConfigValueError: says which, and suggests the nearest.
    """
    for name in afe.keep:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            cure = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigValueError(f"afe.keep: expected a field of the data ({', '.join(names)}), got {name!r}{cure}")


def with_overrides(
    config: ExperimentConfig, *, seed: int | None = None, device: Literal["cpu", "cuda", "auto"] | None = None
) -> ExperimentConfig:
    """The experiment with what the command line says instead."""
    changed: dict[str, Any] = {}
    if seed is not None:
        changed["seed"] = seed
    if device is not None:
        changed["train"] = config.train.model_copy(update={"device": device})
    return config.model_copy(update=changed)


def with_choices(
    config: ExperimentConfig,
    *,
    table_l2: float | None,
    half_scale_at: float | None,
    share_below: float | None,
    fusion_start: Start | None,
) -> ExperimentConfig:
    """The experiment with what a training chose on validation, as if it had been given."""
    train = config.train.model_copy(update={"table_l2": table_l2, "half_scale_at": half_scale_at})
    afe = config.afe.model_copy(update={"share_below": share_below})
    dtf = config.dtf.model_copy(update={"fusion_start": fusion_start})
    return config.model_copy(update={"train": train, "afe": afe, "dtf": dtf})


def with_absolute_paths(config: ExperimentConfig, base: Path) -> ExperimentConfig:
    """The experiment with raw data paths that no longer depend on where its file lies.

    Paths found under REACTION_DATA_DIR stay as they are: they are good on every machine that sets it.

    Args:
        config: an experiment.
        base: the directory of its TOML file.
    """

    def absolute(paths: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(paths, tuple):
            return tuple(path for given in paths for path in (absolute(given),) if isinstance(path, str))
        named = os.environ.get(DATA_DIR)
        if named and glob.glob(str(Path(named) / paths), recursive=True):  # noqa: PTH207 - a pattern may be absolute
            return paths
        return str(base.resolve() / paths)

    data = config.data
    changed: dict[str, Any] = {}
    if data.path is not None:
        changed["path"] = absolute(data.path)
    if isinstance(data.split, GivenSplit) and data.split.column is None:
        files = {key: absolute(getattr(data.split, key)) for key in data.split.model_fields_set & {"valid", "test"}}
        changed["split"] = data.split.model_copy(update=files)
    return config.model_copy(update={"data": data.model_copy(update=changed)})
