"""The files of a prepared data set: `dataset.json`, and one NumPy file an array, written batch by batch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from training.datasets.config import StrictModel
from training.preparation.rows import DataFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import DTypeLike, NDArray

    from service.features import Side

FORMAT: Literal["reaction-dataset"] = "reaction-dataset"
VERSION: Literal[1] = 1
DATASET_FILE = "dataset.json"
SAMPLE_FILE = "raw_sample.jsonl"
SIDES: tuple[Side, Side] = ("context", "candidate")


class ColumnInfo(StrictModel):
    """A field's place in its side's id matrix."""

    name: str
    first: int
    width: int


class SourceFile(StrictModel):
    """A raw file that was read."""

    path: str
    bytes: int
    sha256: str


class FileInfo(StrictModel):
    """A file of the prepared data."""

    bytes: int
    sha256: str


class DatasetInfo(StrictModel):
    """`dataset.json`.

    Attributes:
        format, version: of this file and the layout around it.
        name: the experiment's.
        dataset: which data set it was made of.
        seed: of the split and the sample.
        rows, base_rate: a split; the base rate is the unweighted mean label.
        negative_sampling_rate: share of negatives kept when the log was written.
        columns: a side's fields, in order.
        features_digest: SHA-256 of features.json.
        has_weight, has_group: whether the splits have these arrays.
        group: the column that the groups come from.
        sources: raw files.
        config: the `[data]` section as it was used.
        continued_digest: of the features that `--init-from` extended.
        files: every other file of the directory, but for those that features.json answers for.
    """

    format: Literal["reaction-dataset"]
    version: Literal[1]
    name: str
    dataset: str
    seed: int
    rows: dict[str, int]
    base_rate: dict[str, float]
    negative_sampling_rate: float
    columns: dict[str, tuple[ColumnInfo, ...]]
    features_digest: str
    has_weight: bool
    has_group: bool
    group: str | None
    sources: tuple[SourceFile, ...]
    config: dict[str, Any]
    continued_digest: str | None
    files: dict[str, FileInfo]

    def width(self, side: str) -> int:
        """Columns of a side's id matrix."""
        return sum(column.width for column in self.columns[side])


class ArrayWriter:
    """One `.npy` file of a known shape, appended to and digested on the way.

    Args:
        path: a new file.
        dtype: of the elements.
        shape: of the whole array.
    """

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        self.path = path
        self._dtype = np.dtype(dtype)
        self._shape = shape
        self._rows = 0
        self._hash = hashlib.sha256()
        self._file: BinaryIO = path.open("xb")
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()
        self._hash.update(path.read_bytes())

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows."""
        content = np.ascontiguousarray(rows, dtype=self._dtype)
        if content.size:
            self._file.write(content.data)
            self._hash.update(content.data)
        self._rows += content.shape[0]

    def abandon(self) -> None:
        """Close the file, complete or not."""
        self._file.close()

    def close(self) -> FileInfo:
        """Close the file.

        Raises:
            DataFileError: fewer or more rows came than were announced.
        """
        self._file.close()
        if self._rows != self._shape[0]:
            got = f"{self._rows} (did the raw files change meanwhile?)"
            raise DataFileError(f"{self.path.name}: expected the {self._shape[0]} rows of the first pass, got {got}")
        return FileInfo(bytes=self.path.stat().st_size, sha256=self._hash.hexdigest())


class SplitWriter:
    """The arrays of one split.

    Args:
        folder: a new directory.
        rows: N, known from the first pass.
        widths: columns of the id matrix of each side.
        weight, group: whether there are such arrays.
    """

    def __init__(self, folder: Path, rows: int, widths: Mapping[Side, int], *, weight: bool, group: bool) -> None:
        folder.mkdir()
        self._folder = folder
        shapes: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {
            f"{side}_ids": (np.int32, (rows, width)) for side, width in widths.items()
        }
        shapes["label"] = (np.uint8, (rows,))
        if weight:
            shapes["weight"] = (np.float32, (rows,))
        if group:
            shapes["group"] = (np.int64, (rows,))
        self._arrays = {name: ArrayWriter(folder / f"{name}.npy", *shape) for name, shape in shapes.items()}

    def append(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write some rows of every array: context_ids, candidate_ids, label, and weight and group if there are."""
        for name, writer in self._arrays.items():
            writer.append(arrays[name])

    def close(self) -> Iterator[tuple[str, FileInfo]]:
        """Close the files, and say what they are by their path within the data set."""
        for writer in self._arrays.values():
            yield f"{self._folder.name}/{writer.path.name}", writer.close()

    def abandon(self) -> None:
        """Close the files, complete or not."""
        for writer in self._arrays.values():
            writer.abandon()
