"""The second pass: batches to id matrices, through the one encoder, written split by split."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from service.features import FieldValueError
from training.files import digest_file
from training.preparation.fitting import refuse_first
from training.preparation.prepared_files import SAMPLE_FILE, SIDES, FileInfo, SplitWriter
from training.preparation.raw_sample import RawSampler
from training.preparation.rows import SPLITS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from service.features import FeatureEncoder, Side
    from training.datasets.base import Table
    from training.preparation.batches import CodedBatch, CodedBatches
    from training.progress import Progress


def encode_all(
    batches: CodedBatches,
    table: Table,
    encoder: FeatureEncoder,
    *,
    rows: NDArray[np.int64],
    seed: int,
    staged: Path,
    report: Progress,
) -> dict[str, FileInfo]:
    """The second pass. Returns the files written."""
    with contextlib.ExitStack() as stack:
        writers: dict[int, SplitWriter] = {}
        for number, split in enumerate(SPLITS):
            if rows[number]:
                writers[number] = SplitWriter(
                    staged / split,
                    int(rows[number]),
                    {side: encoder.width(side) for side in SIDES},
                    weight=table.spec.weight is not None,
                    group=table.spec.group is not None,
                )
                stack.callback(writers[number].abandon)
        sampler = RawSampler(encoder, table.spec.fields, int(rows[1]), seed)
        report.start("encoding", int(rows.sum()))
        for batch in batches:
            ids = encode_batch(batch, table, encoder)
            arrays: dict[str, NDArray[Any]] = {f"{side}_ids": matrix for side, matrix in ids.items()}
            extra = {"label": batch.label, "weight": batch.weight, "group": batch.group}
            arrays |= {name: array for name, array in extra.items() if array is not None}
            for number, writer in writers.items():
                here = np.flatnonzero(batch.split == number)
                writer.append({name: array[here] for name, array in arrays.items()})
            sampler.add(batch.columns, np.flatnonzero(batch.split == 1), _first_ids(encoder, ids))
            report.advance(batch.rows)
        files = dict(pair for writer in writers.values() for pair in writer.close())
    sample = staged / SAMPLE_FILE
    with sample.open("x", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in sampler.rows())
    files[SAMPLE_FILE] = FileInfo(**digest_file(sample))
    return files


def encode_batch(batch: CodedBatch, table: Table, encoder: FeatureEncoder) -> dict[Side, NDArray[np.int32]]:
    """Ids of a batch's rows, (N, Cc) and (N, Ci): each distinct value is encoded once.

    Raises:
        DataValueError: a value of the wrong type; the first row that has it is named.
    """
    sources = {field.name: field.source for field in table.spec.fields}
    out: dict[Side, NDArray[np.int32]] = {}
    for side in SIDES:
        matrix = np.empty((encoder.width(side), batch.rows), dtype=np.int32)
        for column in encoder.columns(side):
            coded = batch.columns[sources[column.name]]
            try:
                known = encoder.encode_values(column.name, coded.values.to_list())
            except FieldValueError:
                refuse_first(batch.raw, sources[column.name], encoder.field(column.name), coded)
                raise
            for place in range(column.width):
                np.take(known[:, place], coded.codes, out=matrix[column.first + place])
        out[side] = np.ascontiguousarray(matrix.T)
    return out


def _first_ids(encoder: FeatureEncoder, ids: dict[Side, NDArray[np.int32]]) -> dict[str, NDArray[np.int32]]:
    return {column.name: ids[side][:, column.first] for side in SIDES for column in encoder.columns(side)}
