"""A small prepared data set for the tests of the accuracy benchmark: planted effects, one multi-valued field."""

from pathlib import Path

import numpy as np
import polars as pl

from training.datasets.config import DataConfig
from training.loader import PreparedData
from training.prepare import prepare

FIELDS = [
    {"name": "user", "kind": "categorical", "side": "context"},
    {"name": "tags", "kind": "multi_valued", "side": "context", "max_values": 3, "pooling": "mean"},
    {"name": "ad", "kind": "categorical", "side": "candidate"},
    {"name": "price", "kind": "numeric", "side": "candidate", "buckets": 4},
]


def make(path: Path, rows: int = 3000, seed: int = 1) -> PreparedData:
    """Write a log, and prepare it at `path`."""
    draw = np.random.default_rng(seed)
    user, ad = draw.integers(0, 30, rows), draw.integers(0, 12, rows)
    tags = ["|".join(draw.choice(["a", "b", "c", "d"], draw.integers(0, 4), replace=False)) for _ in range(rows)]
    effect = draw.normal(0.0, 1.0, (30, 12))
    logit = -1.0 + effect[user, ad] + np.array([1.0 * ("a" in text) for text in tags])
    label = (draw.random(rows) < 1.0 / (1.0 + np.exp(-logit))).astype(int)
    price = np.round(draw.random(rows) * 10, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.parent / "log.csv"
    pl.DataFrame({"user": user, "tags": tags, "ad": ad, "price": price, "click": label}).write_csv(log)
    section = {"dataset": "table", "path": str(log), "table": {"label": "click"}, "fields": FIELDS}
    return prepare(DataConfig.model_validate(section), base=path.parent, seed=1, name="small", out=path)
