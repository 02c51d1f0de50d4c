"""The run directory: what one training leaves behind, and the only thing export reads.

A run is trained in `<out>.partial` and renamed to `<out>` as its last step, so a directory under the final name is
complete (`training.partial` writes it):

    out/          run.json        written last: status, versions, digests of every other file
                  config.toml     the resolved experiment
                  features.json  vocabularies/  model.json  calibration.json  weights.safetensors  pair.safetensors
                  afe.json
                  metrics.json  history.jsonl  structure.json  [structure_plain.json]
                  validation.safetensors  raw_sample.jsonl  reference.json
                  report.html

Errors:

    RunError
    ├── RunMissingError      nothing there, or not a run directory
    ├── RunUnfinishedError   a training that has not ended
    ├── RunExistsError       the output is already there
    ├── RunMismatchError     resumed with another config, or on other data
    ├── RunFormatError       a format or version this code does not read
    └── RunCorruptError      a file is missing, was added or was changed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from safetensors.numpy import load_file, save_file

from service.features import FeatureEncoder
from training.calibration import IDENTITY, Calibration, CalibrationError
from training.config import ExperimentConfig, load_config
from training.files import FileError, digests, read_json, read_jsonl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from training.models.reaction import FusionForm

RUN_FORMAT = "reaction-run"
RUN_VERSION = 2

VALIDATION_ROWS = 200_000
"""Most rows of the validation split that a run keeps."""


class RunError(Exception):
    """A run directory cannot be used; the message says which, what was expected and what was found."""


class RunMissingError(RunError):
    """There is no run at this path."""


class RunUnfinishedError(RunError):
    """The training behind this path has not ended."""


class RunExistsError(RunError):
    """The output path is taken; a run is never overwritten."""


class RunMismatchError(RunError):
    """A partial run was started from another config or other data."""


class RunFormatError(RunError):
    """The directory holds a format or a version that this code does not read."""


class RunCorruptError(RunError):
    """A file of the run is missing, was added or was changed after the run was written."""


@dataclass(frozen=True)
class ValidationSample:
    """Encoded rows of the validation split with their labels and the fusion form's scores.

    Attributes:
        context_ids: int32 (N, Cc).
        candidate_ids: int32 (N, Ci).
        label: uint8 (N,).
        pctr: float32 (N,), the fusion form's probability on the training layout (training-only fields as recorded,
            no calibration, no negative-sampling correction).
        weight: float32 (N,) or None.
        group: int64 (N,) or None.
    """

    context_ids: NDArray[np.int32]
    candidate_ids: NDArray[np.int32]
    label: NDArray[np.uint8]
    pctr: NDArray[np.float32]
    weight: NDArray[np.float32] | None = None
    group: NDArray[np.int64] | None = None

    def save(self, path: Path) -> None:
        """Write the sample as safetensors; absent weights and groups have no tensor."""
        arrays = {name: np.ascontiguousarray(value) for name, value in vars(self).items() if value is not None}
        save_file(arrays, path)

    @classmethod
    def open(cls, path: Path) -> ValidationSample:
        """Read the sample.

        Raises:
            RunCorruptError: a tensor is missing or unknown.
        """
        arrays = cast("dict[str, Any]", load_file(path))
        names = set(cls.__dataclass_fields__)
        optional = {"weight", "group"}
        if not names - optional <= set(arrays) <= names:
            raise RunCorruptError(f"{path}: expected the tensors {sorted(names)}, got {sorted(arrays)}")
        return cls(**arrays)


def sample_rows(rows: int, limit: int, seed: int) -> NDArray[np.int64]:
    """Row numbers of a seeded sample without replacement, ascending; all rows where there are at most `limit`."""
    if rows <= limit:
        return np.arange(rows, dtype=np.int64)
    chosen = np.random.default_rng(seed).choice(rows, size=limit, replace=False)
    return np.sort(chosen).astype(np.int64)


@dataclass(frozen=True)
class Run:
    """A complete run directory.

    Attributes:
        path: where it is.
        record: `run.json`.
        verified: SHA-256 by name of the files that were compared with it when the run was opened.
    """

    path: Path
    record: Mapping[str, Any]
    verified: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self.record["id"])

    @property
    def data_info(self) -> Mapping[str, Any]:
        """`dataset.json` of the prepared data it was trained on."""
        return cast("Mapping[str, Any]", self.record["data"])

    @cached_property
    def config(self) -> ExperimentConfig:
        """The resolved experiment."""
        return load_config(self.path / "config.toml")

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """`metrics.json`."""
        return read_json(self.path / "metrics.json")

    @property
    def selection(self) -> Mapping[str, Any]:
        """What AFE decided (`training.field_selection.selection.Selection.from_json` reads it)."""
        return cast("Mapping[str, Any]", self._afe["selection"])

    @property
    def measures(self) -> Mapping[str, Any]:
        """What AFE measured (`training.field_selection.measures.Measures.from_json` reads it)."""
        return cast("Mapping[str, Any]", self._afe["measures"])

    @cached_property
    def _afe(self) -> Mapping[str, Any]:
        return read_json(self.path / "afe.json")

    @cached_property
    def reference(self) -> Mapping[str, Any]:
        """`reference.json`: the statistics that a service compares its traffic with."""
        return read_json(self.path / "reference.json")

    @cached_property
    def structure(self) -> Mapping[str, Any] | None:
        """What thinning the dense layers costs (`structure.Structure.from_json` reads it); None in older runs."""
        return self._optional("structure.json")

    @property
    def plain_structure(self) -> Mapping[str, Any] | None:
        """The same of a plain tower beside the model; None where none was asked for."""
        return self._optional("structure_plain.json")

    def _optional(self, name: str) -> Mapping[str, Any] | None:
        path = self.path / name
        return read_json(path) if path.exists() else None

    @cached_property
    def encoder(self) -> FeatureEncoder:
        """The training encoder (all fields)."""
        return FeatureEncoder.open(self.path, verified=self.verified)

    @cached_property
    def calibration(self) -> Calibration:
        """What the fusion form's logits need; nothing in a run that was trained before there was such a thing.

        Raises:
            RunCorruptError: `calibration.json` holds none.
        """
        path = self.path / "calibration.json"
        if not path.exists():
            return IDENTITY
        try:
            return Calibration.from_json(read_json(path))
        except (FileError, CalibrationError) as error:
            raise RunCorruptError(f"{path}: {error}") from error

    def validation(self) -> ValidationSample:
        """The encoded validation sample."""
        return ValidationSample.open(self.path / "validation.safetensors")

    def raw_sample(self) -> list[dict[str, Any]]:
        """Raw rows of the validation split: {"context": {...}, "candidate": {...}, "row": index in the split}."""
        return read_jsonl(self.path / "raw_sample.jsonl")

    def history(self) -> list[dict[str, Any]]:
        """The training history, one record an epoch."""
        return read_jsonl(self.path / "history.jsonl")

    def form(self) -> FusionForm:
        """The trained fusion form (imports torch)."""
        from training.models.files import load_fusion_form  # noqa: PLC0415 - a reader of metrics needs no torch

        return load_fusion_form(self.path)


def partial_path(out: Path) -> Path:
    """Where a run for `out` is trained: beside it, so that the last rename stays in one file system."""
    return out.with_name(out.name + ".partial")


def open_run(path: Path, *, verify: bool = True) -> Run:
    """Open a complete run.

    Args:
        path: the run directory.
        verify: compare every file with its digest in `run.json`.

    Raises:
        RunMissingError: nothing is there, or it is no run.
        RunUnfinishedError: the training has not ended.
        RunFormatError: a format, version or status that this code does not read.
        RunCorruptError: a file is missing, unexpected or changed.
    """
    path = Path(path)
    if not path.exists() and partial_path(path).exists():
        raise RunUnfinishedError(f"{path}: expected a finished run, got an unfinished one ({partial_path(path).name})")
    if (path / "start.json").is_file():
        raise RunUnfinishedError(f"{path}: expected a finished run, got an unfinished one")
    if not (path / "run.json").is_file():
        raise RunMissingError(f"{path}: expected a run directory (with run.json), got {_what_is_at(path)}")
    try:
        record = read_json(path / "run.json")
    except FileError as error:
        raise RunFormatError(str(error)) from error
    for key, expected in (("format", RUN_FORMAT), ("version", RUN_VERSION)):
        if record.get(key) != expected:
            raise RunFormatError(f"{path / 'run.json'}: {key}: expected {expected!r}, got {record.get(key)!r}")
    if record.get("status") != "complete":
        raise RunUnfinishedError(f"{path / 'run.json'}: status: expected 'complete', got {record.get('status')!r}")
    return Run(path, record, _verify(path, record) if verify else {})


def _what_is_at(path: Path) -> str:
    if path.is_dir():
        return "a directory without one"
    return "a file" if path.exists() else "no such path"


def _verify(path: Path, record: Mapping[str, Any]) -> dict[str, str]:
    files = record.get("files")
    if not isinstance(files, dict):
        raise RunFormatError(f"{path / 'run.json'}: files: expected a table of digests, got {files!r}")
    found = digests(path, leave_out="run.json")
    for name in sorted(files.keys() | found.keys()):
        if name not in found:
            raise RunCorruptError(f"{path / name}: expected a file (it is in run.json), got none")
        if name not in files:
            raise RunCorruptError(f"{path / name}: expected only the files in run.json, got one that is not")
        if found[name] != files[name]:
            raise RunCorruptError(f"{path / name}: expected {files[name]}, got {found[name]}")
    return {name: digest["sha256"] for name, digest in found.items()}
