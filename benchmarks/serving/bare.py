"""What needs no web server: the models, and the floor of decode to write in one process."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.serving import contestants as who
from benchmarks.serving.cells import run_pinned
from benchmarks.serving.floor import STAGES
from benchmarks.serving.job import CONTEXT
from benchmarks.serving.model import FEW_CONTEXT, write_bundles, write_plain_model
from benchmarks.serving.payloads import JSON, http_post, to_json, write_requests
from benchmarks.serving.processes import SERVER_CORE, TICK_SECONDS, core_ticks
from benchmarks.serving.race import Entry, Race
from benchmarks.serving.workloads import SLOPE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def build(scratch: Path) -> tuple[Path, str]:
    """Write two bundles, `bundle` and `few` (of one context field), and the model for everyone else.

    Returns:
        That model, and the form it has.
    """
    model = scratch / "model.onnx"
    for name in ("bundle", "few"):  # of an earlier run, where the folder is kept
        shutil.rmtree(scratch / name, ignore_errors=True)
    return model, write_plain_model(model, write_bundles(scratch))


def measure_floor(race: Race, block: str, turn: int, workloads: Sequence[str], seconds: float) -> None:
    """Run the same bodies in one process, without HTTP.

    Args:
        race: Takes the records.
        block: Whose servers the floor stands beside.
        turn: The round.
        workloads: Names of those that are measured.
        seconds: A case.
    """
    contestant = who.service(race.scratch / "bundle")
    cells = [("one_row", "rows"), ("rank100", "rows"), ("rank100", "msgpack"), *((name, "columns") for name in SLOPE)]
    wanted = [cell for cell in cells if cell[0] in workloads]
    files = {
        f"{workload} {form}": str(race.bodies.file(Entry(contestant, workload, form))) for workload, form in wanted
    }
    pairs = {
        workload: [files[f"{workload} columns"], str(_few(race, workload))]
        for workload in ("one_row", "rank1000")
        if f"{workload} columns" in files
    }
    spec = race.scratch / "floor.json"
    folders = {name: str(race.scratch / name) for name in ("bundle", "few")}
    spec.write_text(json.dumps(folders | {"seconds": seconds, "cases": files, "context": pairs}), encoding="utf-8")
    before, began = core_ticks(SERVER_CORE), time.monotonic()
    command = [sys.executable, "-m", "benchmarks.serving.floor", str(spec)]
    found = run_pinned(command, SERVER_CORE, 120 + 10 * seconds * len(files), who.common_environment(race.scratch))
    ticks, wall = core_ticks(SERVER_CORE) - before, (time.monotonic() - began) / TICK_SECONDS
    noise = round(max(0.0, (ticks - found["cpu_s"] / TICK_SECONDS) / wall), 3)
    where = {"block": block, "round": turn, "mode": "closed", "noise": noise}
    for name, case in found["cases"].items():
        workload, _, form = name.partition(" ")
        race.records.append(where | {"workload": workload, "entry": f"floor.{form}"} | case)
        stages = "  ".join(f"{stage} {case['stages_us'][stage]:.1f}" for stage in STAGES)
        race.say(f"  {workload:13} floor.{form:22} {case['cpu_us']:8.1f} us: {stages}  noise {noise:.2f}")
    for workload, case in found["context"].items():
        race.records.append(where | {"workload": workload, "entry": "floor.context", "mode": "context"} | case)
        race.say(f"  {workload:13} context fields: {case['difference_us']:.1f} us of {case['many_us']:.1f} us")


def _few(race: Race, workload: str) -> Path:
    """The same requests with one context field."""
    path = race.scratch / "requests" / f"few.{workload}"
    if not path.exists():
        requests = []
        for rows in race.bodies.batches(workload):
            kept = [{name: value for name, value in row.items() if name not in CONTEXT[:-1]} for row in rows]
            own = [name for name in kept[0] if name not in FEW_CONTEXT]
            document = {
                "context": {name: kept[0][name] for name in FEW_CONTEXT},
                "candidates": {name: [row[name] for row in kept] for name in own},
            }
            requests.append(http_post("/score", JSON, to_json(document)))
        write_requests(path, requests)
    return path
