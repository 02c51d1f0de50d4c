"""LightGBM on ids, counts and target statistics of them: an outside reference, not a model that is served here.

A value's target statistic is its click rate, shrunk towards the base rate. On training rows it is computed out of fold,
so that no row's own label is in it (Prokhorenkova et al., "CatBoost", NeurIPS 2018, section 3, on why it must not be).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np

from benchmarks.accuracy.fitted import Config, Fitted, Place
from service.features import PAD, MultiValuedField

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.features import FeatureEncoder
    from training.loader import Split

    Floats = NDArray[np.float64]

SMALL = 64
"""Fields of at most so many ids are categories to the trees; of larger ones they get ids by falling count."""


def fit(name: str, place: Place, config: Config, seed: int) -> Fitted:  # noqa: ARG001 - the interface's
    """Fit, stopping early on validation log loss."""
    data, model = place.data, config["model"]
    train, valid = data.split("train"), data.split("valid")
    statistics = Statistics(data.encoder, train, strength=model["strength"], folds=model["folds"], seed=seed)
    columns, categories = statistics.columns, statistics.categories
    settings: dict[str, Any] = {
        "objective": "binary",
        "metric": "binary_logloss",
        "learning_rate": config["train"]["rate"],
        "num_leaves": model["leaves"],
        "min_data_in_leaf": model["leaf_rows"],
        "feature_fraction": model["column_share"],
        "bagging_fraction": model["row_share"],
        "bagging_freq": 1,
        "lambda_l2": model["l2"],
        "num_threads": 1,
        "deterministic": True,
        "seed": seed,
        "verbosity": -1,
    }
    fitted = lightgbm.Dataset(
        statistics.out_of_fold(), label=np.asarray(train.label), feature_name=columns, categorical_feature=categories
    )
    checked = lightgbm.Dataset(statistics.of(valid), label=np.asarray(valid.label), reference=fitted)
    booster = lightgbm.train(
        settings,
        fitted,
        num_boost_round=config["train"]["trees"],
        valid_sets=[checked],
        callbacks=[lightgbm.early_stopping(config["train"]["patience"], verbose=False)],
    )

    def score(split: Split) -> Floats:
        return np.asarray(booster.predict(statistics.of(split), num_iteration=booster.best_iteration))

    return Fitted(score=score, steps=int(booster.best_iteration), facts={"columns": len(columns)})


class Statistics:
    """Columns for trees: of every field ids, log counts and shrunk click rates; means of a multi-valued one's.

    Args:
        encoder: The layout of the ids.
        train: What is counted.
        strength: Rows that the base rate counts for in a value's rate.
        folds: Of the out-of-fold rates.
        seed: Of the folds.
    """

    def __init__(self, encoder: FeatureEncoder, train: Split, *, strength: float, folds: int, seed: int) -> None:
        self._encoder, self._train, self._strength = encoder, train, strength
        self._fold = np.random.default_rng(seed).integers(0, folds, train.rows)
        self._folds = folds
        label = np.asarray(train.label, np.float64)
        self._rate = float(label.mean())
        self.columns: list[str] = []
        self.categories: list[str] = []
        self._fields: list[tuple[str, Any, bool, int]] = []
        self._counts: list[tuple[Floats, Floats]] = []  # rows and clicks (folds, V) of each field
        for side in ("context", "candidate"):
            for column in encoder.columns(side):
                multi = isinstance(encoder.field(column.name), MultiValuedField)
                size = len(encoder.vocabulary(column.name))
                self._fields.append((side, column, multi, size))
                if not multi:
                    self.columns.append(f"id_{len(self._fields)}")
                    if size <= SMALL:
                        self.categories.append(self.columns[-1])
                self.columns += [f"count_{len(self._fields)}", f"rate_{len(self._fields)}"]
                ids = _ids(train, side, column)
                place = self._fold[:, None] * size + ids
                rows = np.bincount(place.ravel(), minlength=folds * size).reshape(folds, size)
                clicks = np.bincount(
                    place.ravel(), weights=np.repeat(label, ids.shape[1]), minlength=folds * size
                ).reshape(folds, size)
                self._counts.append((rows.astype(np.float64), clicks.astype(np.float64)))

    def out_of_fold(self) -> NDArray[np.float32]:
        """The training rows' columns: rates and counts from the other folds."""
        return self._table(self._train, self._fold)

    def of(self, split: Split) -> NDArray[np.float32]:
        """Another split's columns: rates and counts from all training rows."""
        return self._table(split, None)

    def _table(self, split: Split, fold: NDArray[np.int64] | None) -> NDArray[np.float32]:
        parts: list[NDArray[Any]] = []
        for (side, column, multi, _), (rows, clicks) in zip(self._fields, self._counts, strict=True):
            ids = _ids(split, side, column)
            n, k = rows.sum(0)[None], clicks.sum(0)[None]
            if fold is not None:
                n, k = n - rows, k - clicks
            picked = np.zeros(len(ids), np.int64) if fold is None else fold
            seen, clicked = n[picked[:, None], ids], k[picked[:, None], ids]
            rate = (clicked + self._strength * self._rate) / (seen + self._strength)
            used = ids != PAD if multi else np.ones_like(ids, dtype=bool)
            share = np.maximum(used.sum(1), 1)
            if not multi:
                parts.append(ids[:, 0])
            parts += [(np.log1p(seen) * used).sum(1) / share, (rate * used).sum(1) / share]
        return np.column_stack(parts).astype(np.float32)


def _ids(split: Split, side: str, column: Any) -> NDArray[np.int64]:
    matrix = split.context_ids if side == "context" else split.candidate_ids
    return np.asarray(matrix[:, column.first : column.first + column.width], dtype=np.int64)
