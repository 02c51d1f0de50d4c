"""What the MovieLens data sets share: reading their small files, years out of titles, and their terms.

Where from: GroupLens (https://grouplens.org/datasets/movielens/). Terms: research use, acknowledgement (F. Maxwell
Harper and Joseph A. Konstan, *The MovieLens Datasets: History and Context*, ACM TiiS 5(4), 2015), no redistribution, no
commercial use without permission. Users are the context, movies the candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from training.datasets.base import DataError, DataFileError
from training.datasets.config import FieldConfig, GivenSplit
from training.readers import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from training.datasets.base import BuildContext
    from training.datasets.config import DataConfig, Kind, Side

YEAR = r"\((\d{4})\)\s*$"


def directory(config: DataConfig, context: BuildContext) -> Path:
    """The directory of a release.

    Raises:
        DataError: `path` is missing, names no directory, or the splits are files.
    """
    if config.path is None:
        raise DataError(f"data.path: expected the directory of {config.dataset}, got no path")
    if isinstance(config.split, GivenSplit):
        raise DataError(f"data.split: {config.dataset} brings no splits: expected kind random or time, got given")
    found = resolve(config.path, context.base, what="a folder")
    if len(found) != 1 or not found[0].is_dir():
        raise DataFileError(f"data.path: expected one directory of {config.dataset}, got {found[0]}")
    return found[0]


def read_separated(path: Path, separator: str, names: tuple[str, ...]) -> pl.DataFrame:
    """A small Latin-1 file without quotes or header, all text.

    Args:
        path: the file.
        separator: `|` or `::`.
        names: of the columns.

    Raises:
        DataFileError: a line has another number of columns.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), 1):
        values = line.split(separator)
        if len(values) != len(names):
            raise DataFileError(f"{path}: line {number}: expected {len(names)} columns, got {len(values)}")
        rows.append(values)
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def year_of(title: str) -> pl.Expr:
    """The year at a title's end as text, null where it has none."""
    return pl.col(title).str.extract(YEAR).alias("year")


def field(name: str, side: Side, kind: Kind = "categorical") -> FieldConfig:
    """A field; genres are few enough to be kept in full."""
    if kind == "multi_valued":
        return FieldConfig(name=name, kind=kind, side=side, max_values=8)
    return FieldConfig(name=name, kind=kind, side=side)
