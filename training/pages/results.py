"""`metrics.json` as people read it: models side by side, split by split, the baseline first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    Metrics = Mapping[str, float]

MODELS = {
    "baseline": "LR baseline",
    "tower_a": "Tower A",
    "tower_b": "Tower B",
    "pair": "Pair",
    "teachers": "Teachers",
    "fused": "Fused",
    "calibrated": "Calibrated",
}
"""The baseline is one-hot logistic regression; the pair is the mean of both towers, the teachers that of all where
there were more, without an evidence tower; fused is what is served, calibrated where validation says that this helps
(on validation itself it was fitted)."""

COLUMNS = {
    "auc": "AUC",
    "log_loss": "Log loss",
    "gauc": "GAUC",
    "ndcg@10": "NDCG@10",
    "ece": "ECE",
    "mean_pctr": "Predicted",
    "base_rate": "Observed",
}
"""ECE is the expected calibration error; the last two are mean prediction and mean label."""

SUSPICIOUS = 0.999
"""AUC above which a model is taken to have read the label."""

SPLITS = {"validation": "Validation", "test": "Test"}


def metrics_by_split(metrics: Mapping[str, Any]) -> dict[str, dict[str, Metrics]]:
    """Split -> model -> metrics, the baseline among the models; a split without results is left out."""
    found: dict[str, dict[str, Metrics]] = {}
    for split in SPLITS:
        results = dict(metrics.get(split, {}))
        if split in metrics.get("baseline", {}):
            results["baseline"] = metrics["baseline"][split]
        if results:
            found[split] = {model: results[model] for model in MODELS if model in results}
    return found


def warnings_of(metrics: Mapping[str, Any]) -> list[str]:
    """What a reader of a run has to know first: how it came about, and where it lost to the baseline."""
    return [*metrics.get("notes", ()), *filter(None, (_too_good(metrics), lost_to_baseline(metrics)))]


def _too_good(metrics: Mapping[str, Any]) -> str:
    auc = metrics_by_split(metrics).get("validation", {}).get("fused", {}).get("auc", 0.0)
    if auc <= SUSPICIOUS:
        return ""
    return f"AUC {auc:.4f} on validation is too good to be true: look for a field that is known only after the label"


def lost_to_baseline(metrics: Mapping[str, Any]) -> str:
    """A sentence that says where the fused model does worse than the baseline on validation; "" where it does not."""
    models = metrics_by_split(metrics).get("validation", {})
    fused, baseline = models.get("fused", {}), models.get("baseline", {})
    lost = [
        f"{word} {fused[key]:.4f} against {baseline[key]:.4f}"
        for key, word, better in (("auc", "AUC", 1), ("log_loss", "log loss", -1))
        if key in fused and key in baseline and better * fused[key] < better * baseline[key]
    ]
    if not lost:
        return ""
    return (
        f"the trained model does worse than one-hot logistic regression on validation: {', '.join(lost)}; "
        "do not serve it before you know why"
    )


def columns_of(models: Mapping[Any, Metrics]) -> list[str]:
    """The metrics that any of the models has, in the order of `COLUMNS`."""
    return [key for key in COLUMNS if any(key in values for values in models.values())]


def cells(values: Metrics, columns: list[str]) -> list[str]:
    """A model's metrics as text, with a dash for what it does not have."""
    return [f"{values[key]:.4f}" if key in values else "–" for key in columns]


def tower_table(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The table that lays both towers, the pair, the fused model and the baseline side by side."""
    splits = metrics_by_split(metrics)
    every = {(split, model): values for split, models in splits.items() for model, values in models.items()}
    columns = [key for key in columns_of(every) if key not in {"mean_pctr", "base_rate"}]
    present = {model for models in splits.values() for model in models}
    rows = [
        {
            "name": name,
            "chosen": model == ("calibrated" if "calibrated" in present else "fused"),
            "cells": [cell for models in splits.values() for cell in cells(models.get(model, {}), columns)],
        }
        for model, name in MODELS.items()
        if model in present
    ]
    return {"splits": [SPLITS[split] for split in splits], "columns": [COLUMNS[key] for key in columns], "rows": rows}
