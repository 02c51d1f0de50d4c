"""Raw logs to a prepared data set: ids, labels and vocabularies, in two passes and bounded memory.

```
DATA/ dataset.json  features.json  vocabularies/  raw_sample.jsonl
      train|valid|test/  context_ids.npy (N, Cc) int32   candidate_ids.npy (N, Ci) int32   label.npy (N,) uint8
                         weight.npy (N,) float32 and group.npy (N,) int64, where the data has them
```

The first pass counts the values of the train split, the second encodes batch by batch. In both, each column of a batch
is dictionary-encoded, its distinct values go through the one `FeatureEncoder` (or its fields' tokens) once, and ids are
gathered back. The directory appears when it is complete, or not at all.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from service.features import FeatureEncoder
from service.features.files import new_directory
from training.datasets import DATASETS
from training.datasets.base import BuildContext
from training.files import digest_file, make_parent, write_json
from training.loader import PreparedData
from training.preparation.batches import KEPT_BYTES, CodedBatches
from training.preparation.counting import BUDGET_ROWS
from training.preparation.encoding import encode_all
from training.preparation.fitting import Fitter
from training.preparation.prepared_files import (
    DATASET_FILE,
    FORMAT,
    SIDES,
    VERSION,
    ColumnInfo,
    DatasetInfo,
    SourceFile,
)
from training.preparation.rows import SPLITS, DataError, DataFileError, MissingColumnError, SplitError
from training.preparation.splits import make_assigner, split_columns
from training.progress import Progress, Quiet
from training.readers.paths import roots

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.features import Side
    from training.datasets.base import Table
    from training.datasets.config import DataConfig


@dataclass(frozen=True)
class Limits:
    """What may be held in memory; the result does not depend on it.

    Attributes:
        kept_bytes: coded batches kept between the passes, if all of them fit.
        counted_rows: distinct values counted in memory, of all fields together, before counts go to disk.
    """

    kept_bytes: int = KEPT_BYTES
    counted_rows: int = BUDGET_ROWS


def prepare(
    data: DataConfig,
    *,
    base: Path,
    seed: int,
    name: str,
    out: Path,
    init_from: Path | None = None,
    progress: Progress | None = None,
) -> PreparedData:
    """Prepare a data set.

    Args:
        data: the `[data]` section.
        base: directory of the experiment's TOML file, for relative paths.
        seed: of the split, of sampled negatives and of the raw sample.
        name: the experiment's.
        out: the directory to make; must not exist.
        init_from: a run (or prepared data) whose ids and edges stay; new tokens are appended.
        progress: told how far it is.

    Returns:
        The prepared data, opened.

    Raises:
        DataError: see its tree: the data is not as described. Nothing is left of `out` then.
    """
    table = build_table(data, base, seed)
    previous = None if init_from is None else _open_previous(init_from)
    return prepare_table(table, data, base=base, seed=seed, name=name, out=out, previous=previous, progress=progress)


def prepare_table(
    table: Table,
    data: DataConfig,
    *,
    base: Path,
    seed: int,
    name: str,
    out: Path,
    previous: FeatureEncoder | None = None,
    progress: Progress | None = None,
    limits: Limits = Limits(),
) -> PreparedData:
    """Prepare a table that is built already; the arguments are those of `prepare`.

    Raises:
        DataError: see `prepare`.
        OutputPathError: nothing can be written beside `out`.
    """
    report = progress or Quiet()
    if out.exists() or out.is_symlink():
        raise DataFileError(f"{out}: expected a path that does not exist yet, got an existing one")
    columns = _check_columns(table, data)
    make_parent(out)
    with (
        ThreadPoolExecutor(max_workers=1) as pool,
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".counts", dir=out.parent) as spill,
        new_directory(out) as staged,
    ):
        sources = pool.submit(_digest_sources, table, base)  # hashing gives way to other threads
        assigner = make_assigner(data.split, table, seed, report)
        batches = CodedBatches(table, assigner, columns, limits.kept_bytes)
        fitter = Fitter(table.spec.fields, data.min_count, Path(spill), limits.counted_rows)
        tally = _count(batches, fitter, report)
        _check_splits(table, tally)
        encoder = fitter.encoder(previous, report)
        encoder.save(staged)
        files = encode_all(batches, table, encoder, rows=tally[0], seed=seed, staged=staged, report=report)
        rows = {split: int(count) for split, count in zip(SPLITS, tally[0], strict=True) if count}
        info = DatasetInfo(
            format=FORMAT,
            version=VERSION,
            name=name,
            dataset=table.spec.name,
            seed=seed,
            rows=rows,
            base_rate={split: float(tally[1][SPLITS.index(split)]) / count for split, count in rows.items()},
            negative_sampling_rate=data.negative_sampling_rate,
            columns={side: _layout(encoder, side) for side in SIDES},
            features_digest=digest_file(staged / "features.json")["sha256"],
            has_weight=table.spec.weight is not None,
            has_group=table.spec.group is not None,
            group=table.spec.group,
            sources=sources.result(),
            config=data.model_dump(mode="json"),
            continued_digest=None if previous is None else previous.digest,
            files=files,
        )
        write_json(staged / DATASET_FILE, info.model_dump(mode="json"))
    return PreparedData(out, info, encoder, digest_file(out / DATASET_FILE)["sha256"])


def build_table(data: DataConfig, base: Path, seed: int) -> Table:
    """The table of a `[data]` section.

    Raises:
        DataError: no such data set, or its files are not there.
    """
    if data.dataset not in DATASETS:
        raise DataError(f"data.dataset: expected one of {', '.join(DATASETS)}, got {data.dataset!r}")
    try:
        return DATASETS[data.dataset](data, BuildContext(base, seed))
    except ValidationError as error:  # of the data set's own options
        first = error.errors(include_url=False)[0]
        key = ".".join(["data.options", *map(str, first["loc"])])
        raise DataError(f"{key}: {first['msg']}, got {first['input']!r:.60}") from error


def _open_previous(run: Path) -> FeatureEncoder:
    try:
        return FeatureEncoder.open(run)
    except ValueError as error:
        raise DataError(f"--init-from {run}: {error}") from error


def _check_columns(table: Table, data: DataConfig) -> list[str]:
    """The columns that are read, in the source's order.

    Raises:
        MissingColumnError: one is not there; lists those that are.
        DataError: a field is the label.
    """
    spec = table.spec
    for field in spec.fields:
        if field.source == spec.label_column:
            raise DataError(
                f"field {field.name!r}: expected a column that is known before the label is, got the label's own, "
                f"{spec.label_column!r}"
            )
    there = table.source.columns
    wanted = {f"field {field.name!r}": field.source for field in spec.fields}
    wanted |= {"label": spec.label_column}
    wanted |= {key: column for key, column in (("weight", spec.weight), ("group", spec.group)) if column is not None}
    for key, column in wanted.items():
        if column not in there:
            where = table.source.files[0] if table.source.files else spec.name
            raise MissingColumnError(
                f"{where}: {key}: expected a column {column!r}, got the columns {', '.join(there)}"
            )
    needed = set(wanted.values()) | split_columns(data.split, table)
    return [column for column in there if column in needed]


def _count(batches: CodedBatches, fitter: Fitter, report: Progress) -> NDArray[np.int64]:
    """The first pass. Returns rows and positives of each split, shape (2, 3)."""
    tally = np.zeros((2, len(SPLITS)), dtype=np.int64)
    report.start("counting values")
    for batch in batches:
        tally[0] += np.bincount(batch.split, minlength=len(SPLITS))
        tally[1] += np.bincount(batch.split[batch.label == 1], minlength=len(SPLITS))
        fitter.add(batch.raw, batch.columns, batch.split == 0)
        report.advance(batch.rows)
    return tally


def _check_splits(table: Table, tally: NDArray[np.int64]) -> None:
    """Refuse splits that nothing can be learned from or measured on.

    Raises:
        SplitError: train or valid is empty, or a split has one class.
    """
    label = table.spec.label_column
    for number, split in enumerate(SPLITS):
        rows, ones = int(tally[0, number]), int(tally[1, number])
        if rows == 0 and split != "test":  # a test split is a choice
            total = int(tally[0].sum())
            raise SplitError(f"{table.origin}: {split} split: expected rows, got none (of {total} in all)")
        if rows and ones in {0, rows}:
            raise SplitError(
                f"{table.origin}: {split} split: column {label!r}: expected both labels, "
                f"got only {int(ones > 0)} in all {rows} rows"
            )


def _layout(encoder: FeatureEncoder, side: Side) -> tuple[ColumnInfo, ...]:
    return tuple(
        ColumnInfo(name=column.name, first=column.first, width=column.width) for column in encoder.columns(side)
    )


def _digest_sources(table: Table, base: Path) -> tuple[SourceFile, ...]:
    """What was read, by paths that are good on other machines where that can be."""
    found = []
    for file in table.source.files:
        inside = [file.relative_to(root) for root in roots(base) if file.is_relative_to(root)]
        found.append(SourceFile(path=str(inside[0] if inside else file), **digest_file(file)))
    return tuple(found)
