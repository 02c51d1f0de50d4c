"""Prepared data as memory-mapped arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from service.features import FeatureEncoder, SchemaError
from training.files import digest_file
from training.preparation.prepared_files import DATASET_FILE, FORMAT, SAMPLE_FILE, VERSION, ColumnInfo, DatasetInfo
from training.preparation.rows import DataError, SplitName

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from service.features import Side

_CHECK_ROWS = 1 << 18


class PreparedDataError(DataError):
    """A prepared data set is missing, of another version, or not what its dataset.json says."""


@dataclass(frozen=True)
class Split:
    """One split, N rows.

    Attributes:
        context_ids: (N, Cc) int32.
        candidate_ids: (N, Ci) int32.
        label: (N,) uint8, 0 or 1.
        weight: (N,) float32, or None.
        group: (N,) int64, rows of one group share a number; or None.
    """

    context_ids: NDArray[np.int32]
    candidate_ids: NDArray[np.int32]
    label: NDArray[np.uint8]
    weight: NDArray[np.float32] | None = None
    group: NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        """N."""
        return int(self.label.shape[0])


@dataclass(frozen=True)
class PreparedData:
    """A prepared data set.

    Attributes:
        path: its directory.
        info: its dataset.json.
        encoder: all fields of training.
        digest: SHA-256 of dataset.json, which holds the digests of everything else.
    """

    path: Path
    info: DatasetInfo
    encoder: FeatureEncoder
    digest: str

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> PreparedData:
        """Open a directory that `prepare` wrote.

        Args:
            path: the directory.
            verify: digest every file and compare; sizes are compared in any case.

        Raises:
            PreparedDataError: it is missing, of another format, or damaged; says file, expected and got.
        """
        name = path / DATASET_FILE
        try:
            content = name.read_bytes()
        except OSError as error:
            raise PreparedDataError(f"{name}: expected a prepared data set, got {error.strerror}") from error
        info = _parse(name, content)
        for relative, file in info.files.items():
            _check_file(path / relative, file.model_dump(), verify=verify)
        try:
            encoder = FeatureEncoder.open(path)
        except SchemaError as error:
            raise PreparedDataError(str(error)) from error
        if encoder.digest != info.features_digest:
            raise PreparedDataError(
                f"{path / 'features.json'}: expected SHA-256 {info.features_digest}, got {encoder.digest}"
            )
        for side in ("context", "candidate"):
            columns = encoder.columns(side)
            layout = tuple(ColumnInfo(name=c.name, first=c.first, width=c.width) for c in columns)
            if layout != info.columns.get(side):
                raise PreparedDataError(f"{name}: columns.{side}: expected {layout}, got {info.columns.get(side)}")
        return cls(path, info, encoder, hashlib.sha256(content).hexdigest())

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that there are: train and valid, and test where the data has one."""
        return tuple(self.info.rows)

    @property
    def raw_sample(self) -> Path:
        """Raw rows of the validation split, one JSON object a line."""
        return self.path / SAMPLE_FILE

    def split(self, name: SplitName) -> Split:
        """Map a split's arrays, after checking their shapes, types and that every id is in its vocabulary.

        Raises:
            PreparedDataError: no such split, or an array is not what it should be.
        """
        if name not in self.info.rows:
            raise PreparedDataError(f"{self.path}: expected one of the splits {', '.join(self.splits)}, got {name!r}")
        rows = self.info.rows[name]
        folder = self.path / name
        sides: dict[str, NDArray[np.int32]] = {}
        side: Side
        for side in ("context", "candidate"):
            file = folder / f"{side}_ids.npy"
            sides[side] = _load(file, np.int32, (rows, self.encoder.width(side)))
            self._check_ids(file, side, sides[side])
        label = _load(folder / "label.npy", np.uint8, (rows,))
        if rows and label.max() > 1:
            row = int((label > 1).argmax())
            raise PreparedDataError(f"{folder / 'label.npy'}: row {row}: expected 0 or 1, got {int(label[row])}")
        return Split(
            context_ids=sides["context"],
            candidate_ids=sides["candidate"],
            label=label,
            weight=_load(folder / "weight.npy", np.float32, (rows,)) if self.info.has_weight else None,
            group=_load(folder / "group.npy", np.int64, (rows,)) if self.info.has_group else None,
        )

    def _check_ids(self, file: Path, side: Side, ids: NDArray[np.int32]) -> None:
        sizes = np.zeros(ids.shape[1], dtype=np.int64)
        for place in self.encoder.columns(side):
            sizes[place.first : place.first + place.width] = len(self.encoder.vocabulary(place.name))
        for first in range(0, ids.shape[0] if ids.shape[1] else 0, _CHECK_ROWS):
            part = ids[first : first + _CHECK_ROWS]
            wrong = (part.min(axis=0) < 0) | (part.max(axis=0) >= sizes)
            if wrong.any():
                column = int(wrong.argmax())
                faults = (part[:, column] < 0) | (part[:, column] >= sizes[column])
                row = int(faults.argmax())
                raise PreparedDataError(
                    f"{file}: row {first + row}, column {column}: expected an id from 0 to {sizes[column] - 1}, "
                    f"got {int(part[row, column])}"
                )


def _parse(name: Path, content: bytes) -> DatasetInfo:
    try:
        return DatasetInfo.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        got = f"{first['msg']} ({first['input']!r:.60})"
        raise PreparedDataError(f"{name}: {where}: expected {FORMAT!r} version {VERSION}, got {got}") from error


def _check_file(path: Path, expected: dict[str, Any], *, verify: bool) -> None:
    if not path.is_file():
        raise PreparedDataError(f"{path}: expected a file of {expected['bytes']} bytes, got none")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise PreparedDataError(f"{path}: expected {expected['bytes']} bytes, got {size}")
    if verify:
        got = digest_file(path)["sha256"]
        if got != expected["sha256"]:
            raise PreparedDataError(f"{path}: expected SHA-256 {expected['sha256']}, got {got}")


def _load(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        # A file without elements cannot be mapped.
        array: NDArray[Any] = np.load(path, mmap_mode="r" if np.prod(shape) else None, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise PreparedDataError(f"{path}: expected a NumPy array, got {error}") from error
    if array.dtype != dtype or array.shape != shape:
        raise PreparedDataError(
            f"{path}: expected {np.dtype(dtype)} of shape {shape}, got {array.dtype} of shape {array.shape}"
        )
    return array
