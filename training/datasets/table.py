"""Any table of your own: CSV, TSV or Parquet, described by TOML alone.

```toml
[data]
dataset = "table"
path = "clicks/*.csv.gz"                       # or a list; .gz, .xz and .zst are seen from the suffix
min_count = 2
split = { kind = "random", by = "request" }    # or time, or given

[data.table]
label = "click"                                # 0 and 1; or { column = "rating", at_least = 4 }
weight = "w"                                   # these three are optional
group = "request"
null_values = ["NULL"]

[[data.fields]]
name = "user"
kind = "categorical"
side = "context"

[[data.fields]]
name = "price"
kind = "numeric"
side = "candidate"
buckets = 20

[[data.fields]]
name = "tags"
kind = "multi_valued"
side = "candidate"
separator = ";"
max_values = 5

[[data.fields]]
name = "position"                              # known in training only
kind = "categorical"
side = "candidate"
serving_constant = "1"
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.datasets.base import BuildContext, DataError, Table, TableSpec, no_options
from training.readers import DelimitedSource, ParquetSource, TextFormat, split_files
from training.readers.streams import plain_suffix

if TYPE_CHECKING:
    from training.datasets.base import RowSource
    from training.datasets.config import DataConfig
    from training.readers import ReadFile

_FORMATS = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet", ".pq": "parquet"}
_SEPARATORS = {"csv": ",", "tsv": "\t"}


def build(config: DataConfig, context: BuildContext) -> Table:
    """The table of an experiment.

    Raises:
        DataError: a file is missing, or its format is not known.
    """
    no_options(config)
    table = config.table
    if table is None:  # DataConfig has refused it
        raise DataError("data.table: expected a section, got none")
    parts = split_files(config, context)
    form = table.format or _format(parts)
    source: RowSource
    if form == "parquet":
        if table.columns is not None or table.separator is not None:
            raise DataError("data.table: columns and separator are for text files, got parquet")
        source = ParquetSource(parts, table.null_values)
    else:
        separator = table.separator or _SEPARATORS[form]
        source = DelimitedSource(parts, TextFormat(separator, table.quote, table.columns, table.null_values))
    spec = TableSpec(
        name="table",
        fields=config.fields,
        label=table.label,
        weight=table.weight,
        group=table.group,
        time=table.time,
        null_values=table.null_values,
    )
    return Table(spec, source)


def _format(parts: tuple[ReadFile, ...]) -> str:
    """The format that all files' suffixes name."""
    found = {_FORMATS.get(plain_suffix(part.path)) for part in parts}
    form = found.pop() if len(found) == 1 else None
    if form is None:
        names = ", ".join(part.path.name for part in parts[:3])
        raise DataError(f"data.table.format: expected csv, tsv or parquet, for {names} does not tell; got none")
    return form
