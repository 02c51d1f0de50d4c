"""The `[data]` section of an experiment: which data set, where it lies, its fields, its label and its splits.

Every model is frozen and refuses unknown keys. A table of your own needs nothing but this section:

```toml
[data]
dataset = "table"
path = "logs/2026-*.csv.gz"
split = { kind = "time", column = "ts" }

[data.table]
label = "click"                      # or { column = "rating", at_least = 4 }

[[data.fields]]
name = "user"
kind = "categorical"
side = "context"
```
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Side = Literal["context", "candidate"]
Kind = Literal["categorical", "numeric", "multi_valued"]
Paths = str | tuple[str, ...]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]

_ONLY: dict[str, tuple[Kind, ...]] = {
    "buckets": ("numeric",),
    "edges": ("numeric",),
    "max_values": ("multi_valued",),
    "pooling": ("multi_valued",),
    "separator": ("multi_valued",),
    "hash_buckets": ("categorical", "multi_valued"),
}


class StrictModel(BaseModel):
    """Frozen, unknown keys refused: the base of every section of an experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldConfig(StrictModel):
    """One input field of the model.

    Attributes:
        name: the field's name in requests.
        column: the column it is read from; the field's name if not given.
        kind: `categorical`, `numeric` (in buckets) or `multi_valued` (tags, genres).
        side: `context` (shared by a request's candidates: user, page, hour) or `candidate` (ad, item, position).
        min_count: tokens seen less often in the train split are out of vocabulary; the data set's if not given.
        buckets: numeric: `"log_squared"` (edges exp(sqrt(k)), fit for counts) or a number of quantile buckets.
        edges: numeric: ascending bucket edges, instead of `buckets`.
        max_values: multi-valued: values kept a row (columns in the id matrix).
        pooling: multi-valued: how the values' embeddings become one.
        separator: multi-valued: what parts the values of a text.
        hash_buckets: no vocabulary: the token's hash modulo this many buckets.
        serving_constant: the field is known in training only (position); serving always reads this value.
    """

    name: Annotated[str, Field(min_length=1)]
    kind: Kind
    side: Side
    column: str | None = None
    min_count: Annotated[int, Field(ge=1)] | None = None
    buckets: Literal["log_squared"] | Annotated[int, Field(ge=2, le=10_000)] = "log_squared"
    edges: tuple[float, ...] | None = None
    max_values: Annotated[int, Field(ge=1, le=1024)] = 8
    pooling: Literal["sum", "mean"] = "mean"
    separator: Annotated[str, Field(min_length=1)] = "|"
    hash_buckets: Annotated[int, Field(ge=1, le=2**30)] | None = None
    serving_constant: str | int | float | None = None

    @property
    def source(self) -> str:
        """The column that the field is read from."""
        return self.name if self.column is None else self.column

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, kinds in _ONLY.items():
            if key in self.model_fields_set and self.kind not in kinds:
                raise ValueError(
                    f"field {self.name!r}: {key} is for {' or '.join(kinds)} fields, got kind {self.kind!r}"
                )
        if self.edges is not None:
            if "buckets" in self.model_fields_set:
                raise ValueError(f"field {self.name!r}: expected buckets or edges, got both")
            if not self.edges or not all(math.isfinite(edge) for edge in self.edges):
                raise ValueError(f"field {self.name!r}: expected finite edges, got {list(self.edges)}")
            if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
                raise ValueError(f"field {self.name!r}: expected ascending edges, got {list(self.edges)}")
        if self.hash_buckets is not None and self.min_count is not None:
            raise ValueError(f"field {self.name!r}: min_count has no meaning for a hashed field")
        return self


class LabelRule(StrictModel):
    """A label that is not 0/1 in the file: 1 where the number in `column` is at least `at_least`, else 0."""

    column: str
    at_least: float


class _Fractions(StrictModel):
    valid: Fraction = 0.1
    test: Fraction = 0.1

    @model_validator(mode="after")
    def _check_fractions(self) -> Self:
        if self.valid <= 0.0:
            raise ValueError(f"expected a validation share above 0, got {self.valid}")
        if self.valid + self.test >= 1.0:
            raise ValueError(f"expected valid + test below 1, got {self.valid} + {self.test}")
        return self


class RandomSplit(_Fractions):
    """Seeded: a row's split depends on the seed and its number, or on the seed and its value of `by`.

    Attributes:
        by: rows that share this column's value (a request, a user) stay together.
    """

    kind: Literal["random"] = "random"
    by: str | None = None


class TimeSplit(_Fractions):
    """The newest rows are the test split, the ones before them the validation split.

    Attributes:
        column: what orders the rows (numbers, dates, or ISO 8601 text); rows of one instant stay
            together. Without it the data set's own time, or the order of the rows.
    """

    kind: Literal["time"]
    column: str | None = None


class GivenSplit(StrictModel):
    """Splits that the data brings: files of their own, or a column.

    Attributes:
        valid, test: files of the splits; `path` is then the train split. With `column`: its values instead.
        column: the column that names a row's split.
        train: with `column`: the value of the train split.
    """

    kind: Literal["given"]
    column: str | None = None
    train: str = "train"
    valid: Paths = "valid"
    test: Paths | None = None

    @model_validator(mode="after")
    def _check_given(self) -> Self:
        if self.column is None:
            if "train" in self.model_fields_set:
                raise ValueError("train: the train split's files are data.path; a value needs split.column")
            if "valid" not in self.model_fields_set:
                raise ValueError("expected split.column, or files in split.valid")
        elif not (isinstance(self.valid, str) and (self.test is None or isinstance(self.test, str))):
            raise ValueError("expected one value a split with split.column, got a list")
        return self


SplitConfig = Annotated[RandomSplit | TimeSplit | GivenSplit, Field(discriminator="kind")]


class TableConfig(StrictModel):
    """How a table of your own is read (`dataset = "table"`).

    Attributes:
        format: from the file's suffix if not given. `.gz`, `.xz` and `.zst` are seen from the suffix as well.
        separator: of text tables; `,` for csv and a tab for tsv if not given.
        quote: quoting character of text tables, `""` for none.
        header: the first line of every text file names the columns.
        columns: names of the columns of text files without a header.
        null_values: texts that mean missing, beside the empty one.
        label: a column of 0 and 1, or a rule.
        weight: column of sample weights, finite and >= 0.
        group: column of the request (or user) that GAUC and NDCG are computed within.
        time: column that orders the rows, for a split by time.
    """

    format: Literal["csv", "tsv", "parquet"] | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    quote: Annotated[str, Field(max_length=1)] = '"'
    header: bool = True
    columns: tuple[str, ...] | None = None
    null_values: tuple[str, ...] = ()
    label: str | LabelRule
    weight: str | None = None
    group: str | None = None
    time: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.header and self.columns is not None:
            raise ValueError("columns: names are for files without a header (header = false)")
        if not self.header and not self.columns:
            raise ValueError("expected columns: a file without a header needs their names")
        if self.columns is not None and len(set(self.columns)) != len(self.columns):
            raise ValueError(f"expected different column names, got {list(self.columns)}")
        return self


class DataConfig(StrictModel):
    """The `[data]` section.

    Attributes:
        dataset: a name in `training.datasets.DATASETS`.
        path: file, files, glob or directory; relative to REACTION_DATA_DIR if that is set, else to the TOML file.
        min_count: tokens seen less often in the train split are out of vocabulary.
        split: how the rows are cut into train, valid and test.
        negative_sampling_rate: share of negatives kept when the log was written (1 = all). Training sees the rows as
            they are; export folds the correction ln(rate) into the bias.
        fields: the fields of a table. For a published data set: replaces its field of the same name.
        table: how a table is read; for `dataset = "table"` alone.
        options: settings of the data set's own (see its module).
    """

    dataset: str
    path: Paths | None = None
    min_count: Annotated[int, Field(ge=1)] = 2
    split: SplitConfig = RandomSplit()
    negative_sampling_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    fields: tuple[FieldConfig, ...] = ()
    table: TableConfig | None = None
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [field.name for field in self.fields]
        if len(set(names)) != len(names):
            raise ValueError(f"expected different field names, got {names}")
        if self.dataset == "table":
            if self.table is None or not self.fields or self.path is None:
                raise ValueError('dataset = "table" needs path, [data.table] and at least one [[data.fields]]')
        elif self.table is not None:
            raise ValueError(f'[data.table] is for dataset = "table", got {self.dataset!r}')
        return self
