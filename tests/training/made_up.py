"""A small made-up click log of every kind of field, written in any format, and its description."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from training.datasets.config import DataConfig
from training.prepare import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from training.loader import PreparedData
    from training.preparation.rows import DataError

FIELDS: list[dict[str, Any]] = [
    {"name": "user", "kind": "categorical", "side": "context"},
    {"name": "hour", "kind": "numeric", "side": "context", "edges": [6.0, 12.0, 18.0]},
    {"name": "ad", "kind": "categorical", "side": "candidate", "min_count": 3},
    {"name": "ad_hash", "column": "ad", "kind": "categorical", "side": "candidate", "hash_buckets": 7},
    {"name": "price", "kind": "numeric", "side": "candidate", "buckets": 4},
    {"name": "seen", "kind": "numeric", "side": "candidate"},
    {"name": "tags", "kind": "multi_valued", "side": "candidate", "max_values": 3, "pooling": "sum"},
    {"name": "position", "kind": "categorical", "side": "candidate", "serving_constant": "1"},
]


def rows(count: int = 400, seed: int = 0) -> list[dict[str, str]]:
    """Raw rows, all text, with missing, rare and odd values."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        tags = [f"t{tag}" for tag in rng.choice(9, size=rng.integers(0, 6), replace=False, p=_tail(9))]
        out.append(
            {
                "click": str(int(rng.random() < 0.4)),
                "user": rng.choice(["", "007", "7", "ünï", 'quo"te', "a,b", *[f"u{n}" for n in range(30)]]),
                "hour": str(rng.integers(0, 24)) if rng.random() > 0.1 else "",
                "ad": f"ad{rng.choice(40, p=_tail(40))}",
                "price": f"{rng.gamma(2.0, 3.0):.2f}" if rng.random() > 0.1 else "",
                "seen": str(int(rng.exponential(30.0)) - 1),
                "tags": "|".join(tags),
                "position": str(rng.integers(1, 5)),
                "w": f"{rng.random() * 2:.3f}",
                "request": f"r{number // 3}",
                "ts": str(1_700_000_000 + number // 2),
            }
        )
    return out


def _tail(size: int) -> Any:
    weights = 1.0 / (np.arange(size) + 1.0)
    return weights / weights.sum()


def write(path: Path, raw: list[dict[str, str]]) -> Path:
    """Write rows in the format of the path's suffix."""
    frame = pl.DataFrame(raw, schema=dict.fromkeys(raw[0], pl.String))
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


def section(path: str = "log.csv", **changes: Any) -> dict[str, Any]:
    """The [data] section of the log."""
    table = {"label": "click", "weight": "w", "group": "request", "time": "ts"}
    return {"dataset": "table", "path": path, "table": table, "fields": FIELDS, **changes}


def config(path: str = "log.csv", **changes: Any) -> DataConfig:
    """`section`, read."""
    return DataConfig.model_validate(section(path, **changes))


TIME = {"kind": "time"}


def prepared(root: Path, config: DataConfig, out: str = "data", seed: int = 1, **arguments: Any) -> PreparedData:
    return prepare(config, base=root, seed=seed, name="test", out=root / out, **arguments)


def refusal(root: Path, config: DataConfig, error: type[DataError], **arguments: Any) -> str:
    """The message; and nothing but the input is there afterwards."""
    before = sorted(root.rglob("*"))
    with pytest.raises(error) as caught:
        prepare(config, base=root, seed=1, name="t", out=root / "data", **arguments)
    assert sorted(root.rglob("*")) == before, "something was left behind"
    return str(caught.value)
