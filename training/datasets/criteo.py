"""Criteo display advertising: label, 13 counts, 26 hashed categories, tab separated, no header.

Where from: the Kaggle Display Advertising Challenge (2014), published by Criteo AI Lab; its terms allow research use
and no redistribution. 45,840,617 rows in `train.txt`, in the order of time. The columns' meaning is not published, so
which side each belongs to is a convention: the first 7 counts and 19 categories stand for the page and the user, the
others for the ad. Say otherwise in `[[data.fields]]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.datasets.base import BuildContext, Table, TableSpec, no_options, override_fields
from training.datasets.config import FieldConfig
from training.readers import DelimitedSource, TextFormat, split_files

if TYPE_CHECKING:
    from training.datasets.config import DataConfig

COUNTS = tuple(f"I{number}" for number in range(1, 14))
CATEGORIES = tuple(f"C{number}" for number in range(1, 27))
CONTEXT = frozenset(COUNTS[:7] + CATEGORIES[:19])
COLUMNS = ("label", *COUNTS, *CATEGORIES)


def fields() -> tuple[FieldConfig, ...]:
    """The published fields; counts in log-squared buckets, as the challenge's winners had them."""
    return tuple(
        FieldConfig(
            name=name,
            kind="numeric" if name in COUNTS else "categorical",
            side="context" if name in CONTEXT else "candidate",
        )
        for name in (*COUNTS, *CATEGORIES)
    )


def build(config: DataConfig, context: BuildContext) -> Table:
    """The table; `path` names the challenge's train.txt, compressed or not, or parts of it.

    Raises:
        DataError: a file is missing.
    """
    no_options(config)
    source = DelimitedSource(split_files(config, context), TextFormat("\t", "", COLUMNS))
    return Table(TableSpec("criteo", override_fields(fields(), config.fields), label="label"), source)
