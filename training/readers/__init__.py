"""Readers: files on disk as rows in batches (`training.datasets.base.RowSource`), in bounded memory."""

from training.readers.delimited import DelimitedSource, TextFormat
from training.readers.parquet import ParquetSource
from training.readers.paths import ReadFile, find, resolve, split_files

__all__ = ["DelimitedSource", "ParquetSource", "ReadFile", "TextFormat", "find", "resolve", "split_files"]
