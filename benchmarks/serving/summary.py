"""Records to the document that is stored: ratios and their spread, targets, tables, and the records themselves."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks.serving.cells import unusable
from benchmarks.serving.contestants import SERVICE, against_peers
from benchmarks.serving.figures import Figure, Record, held_back, is_noisy, ratio, select, typical
from benchmarks.serving.queueing import response_quantile
from benchmarks.serving.ratios import (
    ALL_RIVALS,
    ASIDE,
    COMMON_RATE,
    FLOOR,
    LOAD,
    LOAD_WORKLOAD,
    LOADS,
    OURS,
    OVER_ALL,
    RATIOS,
    TARGETS,
    Sheet,
    ahead,
    missing,
)
from benchmarks.serving.workloads import SLOPE, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.serving.run import Result

FORMAT: Final = "reaction-serving-benchmark"
VERSION: Final = 1
STAGES: Final = ("queue", "decode", "encode", "infer", "respond")
_STAGED: Final = (
    ("one_row", "rows"),
    ("one_row", "columns"),
    ("one_row", "pointwise"),
    ("rank100", "rows"),
    ("rank100", "columns"),
    ("rank100", "msgpack"),
    ("rank100", "binary"),
    ("rank1000", "columns"),
)
_BY_PROCESSOR_TIME: Final = "rows_per_cpu_second"


def summarise(result: Result, *, machine: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Everything that is worth keeping of a measurement."""
    for record in result.records:
        if record.get("error"):
            record["error"] = _without_paths(record["error"])
    sheet = Sheet(result.records, result.kinds, result.tutorial, result.listwise, failed=result.failed)
    by_time = replace(sheet, throughput=_BY_PROCESSOR_TIME)
    figures = {name: figure for name, rule in RATIOS.items() if (figure := rule(sheet)) is not None}
    ratios = {name: figure.value for name, figure in figures.items()}
    others = {name: figure.value for name, rule in RATIOS.items() if (figure := rule(by_time)) is not None}
    document = {
        "format": FORMAT,
        "version": VERSION,
        "command": command,
        "machine": dict(machine),
        "seconds": round(result.seconds, 1),
        "ratios": ratios,
        "spread": {name: asdict(figure) for name, figure in figures.items()},
        "by_processor_time": {name: value for name, value in others.items() if value != ratios[name]},
        "targets": {
            name: {
                "text": target.text,
                "expected": target.expected,
                "value": ratios.get(name),
                "met": target.met(ratios[name]) if name in ratios else None,
                "notes": _notes(sheet, name, figures.get(name)),
            }
            for name, target in TARGETS.items()
        },
        "aside": {
            name: {"text": text, "value": ratios[name], "notes": _notes(sheet, name, figures[name])}
            for name, text in ASIDE.items()
            if name in ratios
        },
        "kinds": result.kinds,
        "tutorial": result.tutorial,
        "listwise": result.listwise,
        "plain_form": result.plain_form,
        "answer_bytes": result.answer_bytes,
        "stages": _stages(result.records),
        "lines": {
            name: asdict(line) for name, entry in (("service", OURS), ("floor", FLOOR)) if (line := sheet.line(entry))
        },
        "points": _points(result.records),
        "context_fields": _context(result.records),
        "loads": _loads(result.records),
        "throughput": _throughput(sheet),
        "leads": _leads(sheet, latency=False),
        "common_rates": result.rates,
        "latency": _latency(sheet),
        "latency_leads": _leads(sheet, latency=True),
        "profiles": result.profiles,
        "failed": {name: _without_paths(reason) for name, reason in result.failed.items()},
        "unused": _unused(result.records),
        "lengths": None if result.lengths is None else asdict(result.lengths),
        "records": result.records,
    }
    rounded: dict[str, Any] = _rounded(document)
    return rounded


def _without_paths(text: str) -> str:
    """A message without the folders of this machine."""
    return re.sub(r"(?<![\w.])/(?:[\w.+-]+/)+", ".../", text)


def _notes(sheet: Sheet, name: str, figure: Figure | None) -> list[str]:
    """What to know of a figure before believing it."""
    notes = []
    if figure is not None and figure.noisy:
        notes.append("disturbed")
    if figure is not None and figure.bound:
        words = {"upper": "an upper bound", "lower": "a lower bound", "unknown": "of no meaning by the clock"}
        notes.append(f"{words[figure.bound]}: the generator was too busy")
    if name in OVER_ALL and "model server" in sheet.kinds.values():
        kinds, latency = OVER_ALL[name]
        lost = missing(sheet, kinds, latency=latency)
        notes += [f"without {', '.join(lost)}"] if lost else []
    return notes


def _unused(records: list[Record]) -> list[dict[str, Any]]:
    """Cells that no figure is made of, with how often and why."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for record in records:
        reason = unusable(record)
        if reason is not None:
            what = (record["workload"], record["entry"], record["mode"], str(record.get("load") or ""))
            first = {"workload": what[0], "entry": what[1], "mode": what[2], "load": record.get("load"), "times": 0}
            row = found.setdefault(what, first | {"reason": reason})
            row["times"] += 1
    return list(found.values())


def _rounded(value: Any) -> Any:
    """The same with floats of six digits: no more are meant, and the file is read by people too."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value


def _stages(records: list[Record]) -> list[dict[str, Any]]:
    """Microseconds a request: the service's own stages, what is left for HTTP, and floors beside them."""
    rows = []
    for workload, form in _STAGED:
        cell = (workload, f"{SERVICE}.{form}")
        staged = [one for one in select(records, cell) if one.get("stages_us")]
        quiet = [one for one in staged if not is_noisy(one)]
        found = [one["stages_us"] for one in quiet or staged]
        cpu = typical(records, cell, "cpu_us")
        if not found or cpu is None:
            continue
        stages = {stage: median(one[stage] for one in found) for stage in STAGES if all(stage in one for one in found)}
        # Stages are by the clock: of disturbed rounds they hold others' time, and nothing can be taken from them.
        rest = cpu - sum(stages.values()) + stages.get("queue", 0.0) if quiet else -1.0
        rows.append(
            {"workload": workload, "form": form}
            | stages
            | {
                "cpu_us": cpu,
                "kernel_us": typical(records, cell, "kernel_us"),
                "rest_us": rest if rest >= 0 else None,
                "floor_us": typical(records, (workload, f"floor.{form}"), "cpu_us"),
                "noop_us": typical(records, (workload, f"noop_{workload}.{form}"), "cpu_us"),
            }
        )
    return rows


def _points(records: list[Record]) -> list[dict[str, Any]]:
    """Cost against candidates."""
    return [
        {
            "candidates": WORKLOADS[name].rows,
            "service_us": service,
            "floor_us": typical(records, (name, FLOOR), "cpu_us"),
        }
        for name in SLOPE
        if (service := typical(records, (name, OURS), "cpu_us")) is not None
    ]


def _context(records: list[Record]) -> list[dict[str, Any]]:
    """What context fields cost."""
    cells = [(name, (name, "floor.context")) for name in ("one_row", "rank1000")]
    return [
        {"candidates": WORKLOADS[name].rows}
        | {key: typical(records, cell, key, "context") for key in ("many_us", "few_us", "difference_us")}
        for name, cell in cells
        if select(records, cell, "context")
    ]


def _loads(records: list[Record]) -> list[dict[str, Any]]:
    """Latency at a share of capacity, beside what an M/D/1 queue of the measured service time would do."""
    cell = (LOAD_WORKLOAD, OURS)
    capacity = typical(records, cell, "requests_per_second")
    rows = []
    for load in LOADS:
        found = select(records, cell, "open", purpose=LOAD, load=load)
        if not found or not capacity:
            continue
        service_ms = 1e3 / capacity
        predicted = {share: service_ms * response_quantile(load, share) for share in (0.5, 0.99)}
        measured = {
            name: typical(records, cell, name, "open", purpose=LOAD, load=load)
            for name in ("rate", "p50_ms", "p99_ms", "p999_ms", "lag_p99_ms", "noise")
        }
        rows.append(
            {"load": load, "service_ms": service_ms, "requests": sum(one["requests"] for one in found)}
            | measured
            | {"predicted_p50_ms": predicted[0.5], "predicted_p99_ms": predicted[0.99]}
            | {"predicted_ratio": predicted[0.99] / predicted[0.5]}
        )
    return rows


def _throughput(sheet: Sheet) -> dict[str, list[dict[str, Any]]]:
    """Every entry of every workload that others take part in, fastest first."""
    tables = {}
    for workload, kind in WORKLOADS.items():
        rows = []
        for entry in sorted({one["entry"] for one in select_workload(sheet.records, workload)}):
            cell = (workload, entry)
            server = entry.partition(".")[0]
            if server not in sheet.kinds or not kind.peers:
                continue
            lead = ratio(sheet.records, (workload, against_peers(workload)), cell, "rows_per_second")
            rows.append(
                {
                    "server": server,
                    "form": entry.partition(".")[2],
                    "kind": sheet.kinds[server],
                    "lead": None if lead is None or server == SERVICE else lead.value,
                    "errors": sum(one["errors"] for one in select_workload(sheet.records, workload, entry)),
                    "held_back": any(held_back(one) for one in select(sheet.records, cell)),
                    "noisy": ratio_is_noisy(sheet.records, cell),
                }
                | {
                    name: typical(sheet.records, cell, name)
                    for name in (
                        "requests_per_second",
                        "rows_per_second",
                        "cpu_us",
                        "busy",
                        "generator_cpu",
                        "p50_ms",
                        "p99_ms",
                    )
                }
            )
        if rows:
            tables[workload] = sorted(rows, key=lambda row: -(row["rows_per_second"] or 0.0))
    return tables


def ratio_is_noisy(records: list[Record] | Any, cell: tuple[str, str]) -> bool:
    """Whether every round of a cell was disturbed."""
    figure = ratio(records, cell, cell, "requests_per_second")
    return figure is None or figure.noisy


def select_workload(records: Any, workload: str, entry: str | None = None) -> list[Record]:
    """Closed-loop records of a workload, those that cannot be used among them."""
    found = [one for one in records if one["workload"] == workload and one["mode"] == "closed"]
    return [one for one in found if entry in (None, one["entry"])]


def _latency(sheet: Sheet) -> dict[str, list[dict[str, Any]]]:
    """Latency of every entry at the common rate, best first."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for workload in WORKLOADS:
        found = [
            one
            for one in sheet.records
            if one["workload"] == workload and one["mode"] == "open" and one.get("purpose") == COMMON_RATE
            if unusable(one) is None
        ]
        rows = []
        for entry in sorted({one["entry"] for one in found}):
            own = [one for one in found if one["entry"] == entry]
            rows.append(
                {
                    "server": entry.partition(".")[0],
                    "form": entry.partition(".")[2],
                    "requests": sum(one["requests"] for one in own),
                }
                | {name: median(one[name] for one in own) for name in ("p50_ms", "p99_ms", "max_ms", "lag_p99_ms")}
            )
        if rows:
            tables[workload] = sorted(rows, key=lambda row: row["p99_ms"])
    return tables


def _leads(sheet: Sheet, *, latency: bool) -> dict[str, dict[str, float]]:
    return {
        workload: {entry: figure.value for entry, figure in found.items()}
        for workload, found in ahead(sheet, ALL_RIVALS, latency=latency).items()
    }
