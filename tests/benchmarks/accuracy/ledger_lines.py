"""Made-up runs, of which the answers are known."""

from typing import Any

import numpy as np

TASKS = {
    "films-random": {"dataset": "films", "split": "random"},
    "ads-time": {"dataset": "ads", "split": "time"},
}
MODELS = dict.fromkeys(
    ("LR", "FM", "FwFM", "DNN", "DNN-small", "DCNv2", "FinalMLP", "FinalNet", "LightGBM", "REACTION"), 5
)

# Validation AUC chooses FwFM of the two machines and FinalNet of all; on test DCNv2 would look better.
AUC = {"LR": 0.76, "FM": 0.768, "FwFM": 0.771, "DNN": 0.781, "DNN-small": 0.780, "DCNv2": 0.783, "FinalMLP": 0.782}
AUC |= {"FinalNet": 0.784, "LightGBM": 0.79, "REACTION": 0.786}
DENSE = {"LR": 1, "FM": 1, "FwFM": 45, "DNN": 470_000, "DNN-small": 9_000, "DCNv2": 930_000, "FinalMLP": 1_100_000}
DENSE |= {"FinalNet": 1_100_000, "REACTION": 6_000}


def line(task: str, model: str, seed: int, *, shift: float = 0.0, purpose: str = "seed", **more: Any) -> dict[str, Any]:
    """A run whose test AUC is known: its model's, a seed's share and a shift."""
    generator = np.random.default_rng([seed, *map(ord, model)])
    rows = 0.002 * np.random.default_rng(0).standard_normal(50)  # of the test rows: the same for every model
    auc = AUC[model] + shift + 0.0002 * (seed - 13)
    loss = 1.2 - auc
    own = 0.0001 * generator.standard_normal(50)
    found: dict[str, Any] = {
        "task": task,
        "data": "d1",
        "model": model,
        "purpose": purpose,
        "config": {"model": {"width": 10}, "train": {}},
        "seed": seed,
        "validation": {"auc": auc, "log_loss": loss},
        "cpu_seconds": 10.0 + seed,
        "facts": {},
    }
    if purpose == "seed":
        found["test"] = {"auc": auc - 0.003 + 0.004 * (model == "DCNv2"), "log_loss": loss, "gauc": auc - 0.1}
        found["bootstrap"] = {"auc": (auc + rows + own).tolist(), "log_loss": (loss - rows - own).tolist()}
    if model in DENSE:
        size = {"embedding": 300_000, "dense": DENSE[model], "inference": 300_000 + DENSE[model]}
        found["parameters"] = {**size, "training": size["inference"] + 100, "bytes": 4 * size["inference"]}
        found["flops"] = 2 * DENSE[model]
    return found | more


def whole(task: str = "films-random", **shifts: float) -> list[dict[str, Any]]:
    """Five seeds of every model, ours with its pair, and a trial each."""
    found = [line(task, model, 1, purpose="trial") for model in MODELS]
    for model in MODELS:
        found += [line(task, model, seed, shift=shifts.get(model, 0.0)) for seed in range(11, 16)]
    for one in found:
        if one["model"] == "REACTION" and one["purpose"] == "seed":
            pair = {
                key: {"auc": value["auc"], "log_loss": value["log_loss"]} for key, value in one.items() if key == "test"
            }
            pair["test"]["auc"] -= 0.0005
            pair["bootstrap"] = {
                "auc": [value - 0.0005 for value in one["bootstrap"]["auc"]],
                "log_loss": one["bootstrap"]["log_loss"],
            }
            one["facts"] = {"pair": pair, "calibration": "affine", "calibrated": pair, "teachers": pair}
            one["facts"] |= {"towers": [{"auc": 0.78, "log_loss": 0.42}, {"auc": 0.77, "log_loss": 0.43}]}
    return found


def timings(task: str = "films-random") -> dict[str, Any]:
    """Latency in proportion to dense parameters, and the empty graph at 10."""
    models: dict[str, Any] = {"an empty graph": {"latency": {}}}
    for model, dense in DENSE.items():
        one = line(task, model, 11)
        models[model] = {"parameters": one["parameters"], "flops": {"1": 2 * dense, "100": 150 * dense}, "latency": {}}
    for name, facts in models.items():
        for size in ("1", "100", "1000"):
            value = 10.0 + (0 if name == "an empty graph" else 5 + DENSE[name] * int(size) / 1e5)
            facts["latency"][size] = {"median": value, "least": value, "calls": 20, "blocks": [value] * 20}
            facts["latency"][size] |= {"processor": value, "processor_blocks": [value] * 20}
    machine = {
        "date": "2026-11-28T21:00:00",
        "processor": "a processor",
        "cores": 2,
        "versions": {"onnxruntime": "1.32"},
    }
    tasks = {task: {"others_load": 0.02, "disturbed": False, "models": models}}
    return {"machine": machine, "command": "python -m benchmarks.accuracy --latency", "tasks": tasks}
