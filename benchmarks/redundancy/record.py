"""The record that is committed, `redundancy.json`: written of what was measured, and read back where that is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.files import FileError, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = "reaction-redundancy"
VERSION = 1
KEPT = ("rows", "fields", "interactions", "clusters", "carried", "kinds")
ABOUT = ("measured", "method")
"""When a part was measured, and of which of REACTION's methods; older parts know neither."""


def summary(measured: Mapping[str, Any]) -> dict[str, Any]:
    """What is committed: all numbers of the report, without the matrices that they come from.

    Args:
        measured: {"tasks": {name: {"fields", "layers"}}, "noise": [...]}, layers None where they were not measured.
    """
    tasks = {
        name: {
            "fields": {key: task["fields"][key] for key in KEPT},
            "layers": None if task["layers"] is None else task["layers"]["models"],
            "about": {part: _about(task[part] or {}) for part in ("fields", "layers")},
        }
        for name, task in measured["tasks"].items()
    }
    return {"format": FORMAT, "version": VERSION, "tasks": tasks, "noise": measured["noise"]}


def measured_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What `summary` was made of, as far as it keeps it."""
    tasks = {}
    for name, task in record["tasks"].items():
        about: dict[str, dict[str, Any]] = {"fields": {}, "layers": {}} | task.get("about", {})
        layers = None if task["layers"] is None else {"models": task["layers"]} | about["layers"]
        tasks[name] = {"fields": task["fields"] | about["fields"], "layers": layers}
    return {"tasks": tasks, "noise": record["noise"]}


def recorded(path: Path) -> dict[str, Any]:
    """What a committed record holds; nothing where there is no file.

    Raises:
        FileError: the file is no record of this format.
    """
    if not path.exists():
        return {"tasks": {}, "noise": []}
    record = read_json(path)
    found = {key: record.get(key) for key in ("format", "version")}
    if found != {"format": FORMAT, "version": VERSION}:
        raise FileError(f"{path}: expected {FORMAT} {VERSION}, got {found['format']} {found['version']}")
    return measured_of(record)


def laid_over(before: Mapping[str, Any], newer: Mapping[str, Any]) -> dict[str, Any]:
    """Both measurements as one: of a task's fields, of its layers and of a seed of noise, the newer if there is one.

    Args:
        before: what was known.
        newer: what goes over it; fields and layers of its tasks may be None.
    """
    tasks: dict[str, dict[str, Any]] = dict(before["tasks"])
    for name, task in newer["tasks"].items():
        known = tasks.get(name, {"fields": None, "layers": None})
        tasks[name] = known | {part: found for part, found in task.items() if found is not None}
    controls = {control["seed"]: control for control in [*before["noise"], *newer["noise"]]}
    return {
        # Layers alone are no section of the page: fields are measured first.
        "tasks": {name: task for name, task in tasks.items() if task["fields"] is not None},
        "noise": [controls[seed] for seed in sorted(controls)],
    }


def _about(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: part[key] for key in ABOUT if part.get(key) is not None}
