"""Whether prepared data is an experiment's: a run's config.toml must describe the data that the run was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training.datasets.config import GivenSplit
from training.files import digest_file
from training.partial import differences
from training.preparation.rows import DataError
from training.prepare import build_table
from training.runs import RunMismatchError

if TYPE_CHECKING:
    from training.config import ExperimentConfig
    from training.loader import PreparedData


def refuse_other_data(config: ExperimentConfig, data: PreparedData) -> None:
    """Refuse prepared data whose `[data]` section was another.

    Paths may differ where they lead to files of the same content. Behind a path that is the same but for the directory
    in front nothing is looked at: raw data may grow, or go, once it is prepared.

    Args:
        config: the experiment, its paths absolute.
        data: what it is to be trained on.

    Raises:
        RunMismatchError: says which key, or which files.
    """
    files = {"path"}
    if isinstance(config.data.split, GivenSplit) and config.data.split.column is None:
        files |= {"split.valid", "split.test"}
    renamed: tuple[str, object, object] | None = None
    for key, made, asked in differences(data.info.config, config.data.model_dump(mode="json")):
        if key.partition("[")[0] not in files:
            raise RunMismatchError(
                f"{data.path}: data.{key}: expected {made!r} (as it was prepared), got {asked!r} in the experiment"
            )
        if not _same_name(made, asked):
            renamed = key, made, asked
    if renamed is not None:
        _refuse_other_files(config, data, *renamed)


def _refuse_other_files(config: ExperimentConfig, data: PreparedData, key: str, made: object, asked: object) -> None:
    asked_for = f"{data.path}: data.{key}: expected {made!r} (as it was prepared) or files of the same content"
    try:
        paths = build_table(config.data, Path(), config.seed).source.files
    except DataError as error:
        raise RunMismatchError(f"{asked_for}, got {asked!r} in the experiment: {error}") from error
    if len(paths) != len(data.info.sources):
        raise RunMismatchError(f"{asked_for}, got {len(paths)} files for {len(data.info.sources)}")
    for path, source in zip(paths, data.info.sources, strict=True):
        if digest_file(path)["sha256"] != source.sha256:
            raise RunMismatchError(f"{asked_for}, got {path}, which differs from {source.path}")


def _same_name(made: object, asked: object) -> bool:
    """Whether a path is the one as prepared, made absolute."""
    return isinstance(made, str) and isinstance(asked, str) and ("/" + asked).endswith("/" + made.lstrip("/"))
