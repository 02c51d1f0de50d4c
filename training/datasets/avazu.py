"""Avazu mobile advertising: a CSV with header, 22 anonymous categories, the hour of the impression.

Where from: the Kaggle Click-Through Rate Prediction challenge (2014), published by Avazu under the challenge's terms
(no redistribution). 40,428,967 rows in `train.csv`, 21 to 30 October 2014. `id` is no feature. The hour, `YYMMDDHH`,
becomes hour of the day and weekday; a split by time goes by it. C14 to C21 describe the ad (C15 and C16 its size, C14
and C17 act as its creative and campaign); site, app, device, C1 and the banner's place belong to the request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from training.datasets.base import (
    BuildContext,
    DataValueError,
    DerivedSource,
    RawBatch,
    Table,
    TableSpec,
    no_options,
    override_fields,
)
from training.datasets.config import FieldConfig
from training.readers import DelimitedSource, TextFormat, split_files

if TYPE_CHECKING:
    from training.datasets.config import DataConfig

CONTEXT = (
    *("hour_of_day", "weekday", "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain"),
    *("app_category", "device_id", "device_ip", "device_model", "device_type", "device_conn_type"),
)
CANDIDATE = ("C14", "C15", "C16", "C17", "C18", "C19", "C20", "C21")


def fields() -> tuple[FieldConfig, ...]:
    """The published fields, all categorical."""
    return tuple(
        FieldConfig(name=name, kind="categorical", side="context" if name in CONTEXT else "candidate")
        for name in (*CONTEXT, *CANDIDATE)
    )


def derive(batch: RawBatch) -> pl.DataFrame:
    """Add hour of the day (`00` to `23`) and weekday (`1` Monday to `7`) to a batch.

    Raises:
        DataValueError: an hour that is not YYMMDDHH.
    """
    hour = batch.frame.get_column("hour").cast(pl.String)
    moment = ("20" + hour + "00").str.strptime(pl.Datetime, "%Y%m%d%H%M", strict=False)
    wrong = moment.is_null() | (hour.str.len_bytes() != len("YYMMDDHH"))
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise DataValueError(f"{batch.where(row)}: column 'hour': expected an hour as YYMMDDHH, got {hour[row]!r}")
    return batch.frame.with_columns(
        moment.dt.strftime("%H").alias("hour_of_day"), moment.dt.weekday().cast(pl.String).alias("weekday")
    )


def build(config: DataConfig, context: BuildContext) -> Table:
    """The table; `path` names the challenge's train.csv, compressed or not, or parts of it.

    Raises:
        DataError: a file is missing.
    """
    no_options(config)
    text = DelimitedSource(split_files(config, context), TextFormat())
    source = DerivedSource(text, {"hour_of_day": ("hour",), "weekday": ("hour",)}, derive)
    spec = TableSpec("avazu", override_fields(fields(), config.fields), label="click", time="hour")
    return Table(spec, source)
