"""Raw rows to make requests of: a bundle's golden rows, or a table of one's own."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from service.bench.errors import BodyError
from service.bundle import MODEL_FILE
from service.bundle_format.manifest import BundleError, decode_manifest
from service.features.fields import MultiValuedField
from service.features.files import PathError, confined
from service.features.schema import FieldEntry, decode_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["MOST_ROWS", "FieldInfo", "Row", "bundle_fields", "bundle_model", "golden_rows", "table_rows"]

MOST_ROWS: Final = 20_000  # of a table: enough for bodies that differ, little enough to hold


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """What has to be known of a field to send it."""

    name: str
    side: str
    kind: str
    separator: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Raw values of one row by field name, None where they are missing."""

    context: dict[str, Any]
    candidate: dict[str, Any]


def _read(bundle: Path, name: str) -> bytes:
    try:
        return confined(bundle, name).read_bytes()
    except (PathError, OSError) as error:
        raise BodyError(f"{bundle}: expected a bundle with {name}, got {error} (beside {MODEL_FILE})") from error


def golden_rows(bundle: Path) -> list[Row]:
    """The golden rows of a bundle: real rows, with missing and unseen values.

    Raises:
        BodyError: No bundle, or another format.
    """
    rows = []
    for number, line in enumerate(_read(bundle, "golden.jsonl").splitlines(), 1):
        try:
            document = json.loads(line)
            rows.append(Row(dict(document["context"]), dict(document["candidate"])))
        except (ValueError, TypeError, KeyError) as error:
            raise BodyError(f"{bundle / 'golden.jsonl'}, line {number}: expected a golden row, got {error}") from error
    return rows


def bundle_model(bundle: Path) -> str:
    """Id of the model of a bundle.

    Raises:
        BodyError: No bundle, or another format.
    """
    try:
        return decode_manifest(_read(bundle, "manifest.json"), str(bundle / "manifest.json")).model_id
    except BundleError as error:
        raise BodyError(str(error)) from error


def bundle_fields(bundle: Path) -> list[FieldInfo]:
    """Fields that requests of a bundle's model may carry.

    Raises:
        BodyError: No bundle, or another format.
    """
    try:
        entries = decode_schema(_read(bundle, "features.json"), str(bundle / "features.json"))
    except ValueError as error:
        raise BodyError(str(error)) from error
    return [_field_info(entry) for entry in entries if entry.use != "refused" and not entry.field.training_only]


def _field_info(entry: FieldEntry) -> FieldInfo:
    field = entry.field
    separator = field.separator if isinstance(field, MultiValuedField) else None
    return FieldInfo(field.name, field.side, field.kind, separator)


def table_rows(path: Path, fields: Iterable[FieldInfo], most: int = MOST_ROWS) -> list[Row]:
    """The first rows of a raw table whose columns are named like fields; other columns are passed over.

    Args:
        path: `.csv` or `.tsv`, also with `.gz`, or `.parquet`. In text a number becomes a number where the field is
            numeric, several values become an array, and an empty cell is missing.
        fields: What the model takes.
        most: Rows read.

    Raises:
        BodyError: No such file, another format, no row, or no column that is a field.
    """
    wanted = {field.name: field for field in fields}
    try:
        records = list(islice(_records(path), most))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise BodyError(f"{path}: expected a table, got {error}") from error
    if not records:
        raise BodyError(f"{path}: expected one row or more, got none")
    known = [name for name in records[0] if name in wanted]
    if not known:
        raise BodyError(
            f"{path}: expected columns named like the model's fields ({', '.join(sorted(wanted)[:8])}, ...), "
            f"got {', '.join(map(str, list(records[0])[:8]))}"
        )
    rows = []
    for record in records:
        row = Row({}, {})
        for name in known:
            side = row.context if wanted[name].side == "context" else row.candidate
            side[name] = _raw(record[name], wanted[name])
        rows.append(row)
    return rows


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        import polars as pl  # noqa: PLC0415 - of the extra, and only where a table is in this format

        try:
            yield from pl.scan_parquet(path).head(MOST_ROWS).collect().iter_rows(named=True)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise BodyError(f"{path}: expected a Parquet table, got {str(error).splitlines()[0]}") from error
        return
    separators = {".csv": ",", ".tsv": "\t"}
    separator = separators.get("." + name.rpartition(".")[2])
    if separator is None:
        raise BodyError(f"{path}: expected .csv, .tsv (also with .gz) or .parquet, got another ending")
    unpacked = gzip.open if path.name.endswith(".gz") else open
    with unpacked(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter=separator)


def _raw(value: Any, field: FieldInfo) -> Any:
    """A cell as a client would send it."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    if field.kind == "numeric":
        try:
            number = float(value)
        except ValueError:
            return value  # the service says what is wrong with it
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if field.kind == "multi_valued" and field.separator is not None:
        return [part for part in value.split(field.separator) if part]
    return value
