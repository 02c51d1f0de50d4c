"""The data sets that an experiment can name: one module each, one line in `DATASETS`.

None is downloaded: each module says where its data comes from and under which terms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.datasets.avazu import build as build_avazu
from training.datasets.criteo import build as build_criteo
from training.datasets.movielens_1m import build as build_movielens_1m
from training.datasets.movielens_100k import build as build_movielens_100k
from training.datasets.movielens_latest import build as build_movielens_latest
from training.datasets.movielens_latest_tags import build as build_movielens_latest_tags
from training.datasets.synthetic import build as build_synthetic
from training.datasets.table import build as build_table

if TYPE_CHECKING:
    from training.datasets.base import DatasetBuilder

DATASETS: dict[str, DatasetBuilder] = {
    "synthetic": build_synthetic,
    "table": build_table,
    "criteo": build_criteo,
    "avazu": build_avazu,
    "movielens_100k": build_movielens_100k,
    "movielens_1m": build_movielens_1m,
    "movielens_latest": build_movielens_latest,
    "movielens_latest_tags": build_movielens_latest_tags,
}
