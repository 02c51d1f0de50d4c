"""The data sets that an experiment can name: one module each, one line in `DATASETS`."""

from __future__ import annotations
