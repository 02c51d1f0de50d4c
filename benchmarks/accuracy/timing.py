"""The table of latencies, `benchmarks/accuracy_latency.json`: every model of a task timed in one process.

A baseline is built anew from the config that its runs in the ledger have, with values like a trained one's: only
structure decides time, parameters and FLOPs. Ours is the largest of the seeds' bundles, and beside it run the two
towers that it was merged from, each exported as it is. LightGBM has no graph; its own `predict` is no contestant of
this race.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx

from benchmarks.accuracy.cells import OURS, OUTSIDE
from benchmarks.accuracy.counts import bundle_parameters, exported_parameters, flops
from benchmarks.accuracy.counts import facts as count_facts
from benchmarks.accuracy.latency import EMPTY, Contestant, Load, race
from benchmarks.accuracy.summary import PAIR, chosen_runs
from model_export.graph import serialise
from model_export.latency import session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.accuracy.summary import Line
    from training.loader import PreparedData

    Told = Callable[[str], None]

SECONDS: Final = 20.0
"""For each number of candidates of a task, all models together."""

BUSY: Final = 0.1
"""Others' share of the processors from which on the table says that it was disturbed."""

PARITY_ROWS: Final = 512


def measure(
    tasks: Sequence[str],
    lines: Sequence[Line],
    work: Path,
    *,
    known: Mapping[str, Any] | None = None,
    seconds: float = SECONDS,
    told: Told = lambda _: None,
) -> dict[str, Any]:
    """Time every model that has runs.

    Args:
        tasks: Names.
        lines: Of the ledger.
        work: Folder of prepared data and bundles.
        known: An earlier table; its other tasks stay, and those of which we have no bundle to time.
        seconds: For each number of candidates of a task.
        told: Called with a line of text a task.

    Returns:
        The table.
    """
    from benchmarks.accuracy.tasks import prepared  # noqa: PLC0415 - a test measures without tasks

    found: dict[str, Any] = dict((known or {}).get("tasks", {}))
    for task in tasks:
        runs = chosen_runs([line for line in lines if line["task"] == task])
        if task in found and OURS in runs and not _exported(runs[OURS], work):
            told(
                f"{task}: not timed, what was measured before stays: expected a bundle of {OURS} under {work}, got none"
            )
            continue
        if runs:
            found[task] = measure_task(prepared(task, work), runs, work, seconds=seconds)
            told(f"{task}: {len(found[task]['models']) - 1} models, others used {found[task]['others_load']:.0%}")
    return {
        "format": "reaction-accuracy-latency",
        "version": 1,
        "command": "python -m benchmarks.accuracy --latency",
        "machine": machine(),
        "tasks": found,
    }


def measure_task(
    data: PreparedData, runs: Mapping[str, Sequence[Line]], work: Path, *, seconds: float
) -> dict[str, Any]:
    """Time the models of one task, and count what each stores and computes."""
    test = data.split("test")
    ids = np.asarray(test.context_ids), np.asarray(test.candidate_ids)
    contestants: dict[str, Contestant] = {}
    facts: dict[str, dict[str, Any]] = {EMPTY: {}}
    for name, lines in runs.items():
        if name == OURS:
            made = _bundle(data, lines, work)
            if made is not None:
                for tower, of_tower in zip(PAIR, _towers(work, lines, made[1]["seed"], ids), strict=False):
                    contestants[tower], facts[tower] = of_tower
        elif name not in OUTSIDE:
            made = _baseline(name, data, lines[0]["config"], ids)
        else:
            continue
        if made is not None:
            contestants[name], facts[name] = made
    with Load() as load:
        timings = race(contestants, *ids, seconds=seconds)
    for name, sizes in timings.items():
        facts[name]["latency"] = {str(size): timing.facts() for size, timing in sizes.items()}
    return {"others_load": round(load.others, 3), "disturbed": not load.others < BUSY, "models": facts}


def machine() -> dict[str, Any]:
    """Processor, cores, date and versions; no names and no paths."""
    from importlib.metadata import version  # noqa: PLC0415 - beside its only use

    from benchmarks.serving.machine import facts as serving_facts  # noqa: PLC0415 - the same processor's name

    found = serving_facts(None)
    names = ("onnxruntime", "onnx", "numpy", "torch", "fuxictr")
    return {**found, "versions": {name: version(name) for name in names}, "threads": 1}


def read(path: Path) -> dict[str, Any]:
    """An earlier table; {} where there is none."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def write(path: Path, table: Mapping[str, Any]) -> None:
    """Write it beside and rename: what exists is whole."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def _baseline(
    name: str, data: PreparedData, config: Mapping[str, Any], ids: tuple[np.ndarray, np.ndarray]
) -> tuple[Contestant, dict[str, Any]]:
    from benchmarks.accuracy.baselines import build  # noqa: PLC0415 - torch and FuxiCTR take seconds
    from benchmarks.accuracy.graph.exporters import check_parity, export, shake  # noqa: PLC0415
    from benchmarks.accuracy.graph.onehot import OneHot  # noqa: PLC0415
    from training.models.base import field_slots  # noqa: PLC0415

    slots = field_slots(data.encoder, lambda *_: 1)
    if name == "LR":
        module: Any = shake(OneHot(slots, np.zeros(sum(slot.rows for slot in slots)), 0.0))
    else:
        module = shake(build(name, slots, config["model"]))
    exported = export(module)
    parity = check_parity(exported, module, *(part[:PARITY_ROWS] for part in ids))
    graph = exported.graph
    facts = {
        "config": config,
        "parity": parity,
        "parameters": count_facts(exported_parameters(exported)),
        "flops": {str(rows): flops(graph.model, rows) for rows in (1, 100)},
    }
    return Contestant(session(serialise(graph)), exported.feed), facts


def _bundle(data: PreparedData, lines: Sequence[Line], work: Path) -> tuple[Contestant, dict[str, Any]] | None:
    """The largest of our seeds' bundles that are still in the work folder, the best on validation of equals."""
    from model_export.serving import serving_ids  # noqa: PLC0415
    from service.bundle import read_bundle  # noqa: PLC0415
    from service.scorer import Scorer  # noqa: PLC0415

    there = _exported(lines, work)
    if not there:
        print("REACTION: expected an exported bundle in the work folder, got none: not timed", file=sys.stderr)  # noqa: T201
        return None
    line = max(there, key=lambda one: (one["parameters"]["bytes"], -one["validation"]["log_loss"]))
    bundle = read_bundle(work / line["facts"]["bundle"])
    encoder = Scorer(bundle).encoder
    path = bundle.path / "model.onnx"
    model = onnx.load(str(path), load_external_data=False)

    def feed(context_ids: np.ndarray, candidate_ids: np.ndarray) -> dict[str, np.ndarray]:
        return dict(
            zip(
                ("context_ids", "candidate_ids"),
                serving_ids(data.encoder, encoder, (context_ids, candidate_ids)),
                strict=True,
            )
        )

    facts = {
        "seed": line["seed"],
        "parity": bundle.manifest.model["parity"],
        "parameters": count_facts(bundle_parameters(bundle.manifest.model)),
        "flops": {str(rows): flops(model, rows) for rows in (1, 100)},
    }
    return Contestant(session(str(path)), feed), facts


def _exported(lines: Sequence[Line], work: Path) -> list[Line]:
    """Those of our runs whose bundle is still in the work folder."""
    return [line for line in lines if (work / line["facts"].get("bundle", "?") / "manifest.json").exists()]


def _towers(
    work: Path, lines: Sequence[Line], seed: int, ids: tuple[np.ndarray, np.ndarray]
) -> list[tuple[Contestant, dict[str, Any]]]:
    """The two towers that a bundle was merged from, each a graph of its own; none where the run is gone."""
    from benchmarks.accuracy.graph.exporters import check_parity  # noqa: PLC0415 - torch takes seconds
    from benchmarks.accuracy.graph.pair import export_tower  # noqa: PLC0415
    from training.models.files import load_pair  # noqa: PLC0415

    line = next(one for one in lines if one["seed"] == seed)
    run = (work / line["facts"]["bundle"]).with_name("run")
    if not (run / "pair.safetensors").exists():
        return []
    found = []
    pair = load_pair(run, mapped=True)
    for tower in (pair.a, pair.b):
        exported, form = export_tower(tower)
        facts = {
            "seed": seed,
            "parity": check_parity(exported, form, *(part[:PARITY_ROWS] for part in ids)),
            "parameters": count_facts(exported_parameters(exported)),
            "flops": {str(rows): flops(exported.graph.model, rows) for rows in (1, 100)},
        }
        found.append((Contestant(session(serialise(exported.graph)), exported.feed), facts))
    return found
