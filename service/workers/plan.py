"""The plan: how many processes and threads serve, from what the machine gives and the settings ask for.

One process scores on one thread: Python's lock lets no second one decode or encode meanwhile. So CPUs are filled with
workers, one for each whole CPU, and calls of the model stay on one thread: handing parts of a small call to a second
thread costs more than it saves (`python -m service advise` measures it for a bundle). CPUs that no worker uses go to
worker threads for long bodies. A fraction of a CPU left by a quota is for the kernel and the supervisor.

What a setting states is taken as it is; where it asks for more than there is, the plan says so.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from service.bundle_format.manifest import MANIFEST_FILE, BundleError, decode_manifest
from service.versions.store import StoreError, served_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from service.bundle_format.manifest import Precision
    from service.settings import Settings
    from service.workers.machine import Machine

__all__ = ["Footprint", "Plan", "footprint", "make_plan"]

_MEBIBYTE: Final = 1 << 20
# What a worker holds whatever it serves: interpreter, libraries, ONNX Runtime
# (`python -m tests.service.workers.bench_workers`).
BASE_BYTES: Final = 96 * _MEBIBYTE
# ONNX Runtime keeps a copy of what lies inside `model.onnx`, and reads it through one more.
_GRAPH_COPIES: Final = 2
# Small vocabularies become dictionaries (see `service.features.vocabulary`) of some ten times their file's size, and of
# this much at most. A file too large for that is mapped or has long tokens: it counts as both.
_DICTIONARY_FACTOR: Final = 10
_DICTIONARY_BYTES: Final = 25 * _MEBIBYTE
# Not all memory is the workers': the supervisor, the kernel's buffers, requests in flight.
_USABLE: Final = 0.9
_MOST_WORK_THREADS: Final = 4  # they share one interpreter lock


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory that serving a bundle takes, an estimate in bytes.

    Attributes:
        private: Held by each worker.
        shared: Mapped files, there once for all workers.
    """

    private: int = BASE_BYTES
    shared: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Processes and threads.

    Attributes:
        cpus: CPUs' worth of time there is, possibly a fraction.
        workers: Processes that serve.
        model_threads: Threads of ONNX Runtime within one call, in each worker.
        work_threads: Threads for long bodies in each worker, beside its event loop.
        why: One line for each number.
        warnings: What was asked for and does not fit.
    """

    cpus: float
    workers: int
    model_threads: int
    work_threads: int
    why: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def make_plan(settings: Settings, machine: Machine) -> Plan:
    """Decide on processes and threads.

    Args:
        settings: What they state wins.
        machine: What this process may use.
    """
    whole = max(1, int(machine.cpus))
    workers, why_workers = _workers(settings, machine, whole)
    model_threads, why_model = 1, "one, which is fastest for small calls"
    if settings.model_threads is not None:
        model_threads, why_model = settings.model_threads, "as set"
    spare = whole // (workers * model_threads)
    work_threads, why_work = 1, "one beside the event loop"
    if settings.work_threads is not None:
        work_threads, why_work = settings.work_threads, "as set"
    elif spare > 1:
        work_threads, why_work = min(spare, _MOST_WORK_THREADS), f"{spare} CPUs a worker"
    return Plan(
        cpus=machine.cpus,
        workers=workers,
        model_threads=model_threads,
        work_threads=work_threads,
        why=(
            f"cpus {machine.cpus:g}: {_describe(machine)}",
            f"workers {workers}: {why_workers}",
            f"model_threads {model_threads}: {why_model}",
            f"work_threads {work_threads}: {why_work}",
        ),
        warnings=tuple(_contradictions(settings, machine, workers, model_threads)),
    )


def _describe(machine: Machine) -> str:
    text = f"scheduled on {machine.affinity}"
    if machine.quota is not None:
        text += f", a quota of {machine.quota.value:g} in {machine.quota.source}"
    return text


def _workers(settings: Settings, machine: Machine, whole: int) -> tuple[int, str]:
    if sys.platform == "win32":
        return 1, "one, as a listening socket cannot be handed to processes here"
    if settings.workers is not None:
        return settings.workers, "as set"
    if machine.memory is None or whole == 1:
        return whole, "one for each whole CPU"
    need = footprint(settings.bundle, settings.precision)
    fit = int((machine.memory.value * _USABLE - need.shared) // need.private)
    if fit >= whole:
        return whole, "one for each whole CPU"
    return max(1, fit), (
        f"{_mib(machine.memory.value)} in {machine.memory.source} hold no more, at about {_mib(need.private)} each "
        f"and {_mib(need.shared)} for all"
    )


def _contradictions(settings: Settings, machine: Machine, workers: int, model_threads: int) -> list[str]:
    found = []
    if settings.workers not in (None, workers):
        found.append(f"workers: expected 1 on this system, got {settings.workers}")
    if workers * model_threads > max(1.0, machine.cpus):
        found.append(
            f"workers x model_threads: expected at most {machine.cpus:g} (the CPUs there are), "
            f"got {workers} x {model_threads}"
        )
    if settings.workers is not None and machine.memory is not None:
        need = footprint(settings.bundle, settings.precision)
        wanted = need.shared + workers * need.private
        if wanted > machine.memory.value:
            found.append(
                f"workers: expected to fit into {_mib(machine.memory.value)} ({machine.memory.source}), "
                f"got {workers} that take about {_mib(wanted)}"
            )
    return found


def _mib(size: float) -> str:
    return f"{size / _MEBIBYTE:.0f} MiB"


def footprint(bundle: Path, precision: Precision = "float32") -> Footprint:
    """Estimate what serving a bundle takes, from its manifest; of one that cannot be read, what any takes.

    Args:
        bundle: Its directory.
        precision: That of the tables to serve.
    """
    try:
        path = served_bundle(bundle) / MANIFEST_FILE
        manifest = decode_manifest(path.read_bytes(), str(path))
    except (OSError, BundleError, StoreError):
        return Footprint()  # whoever loads it says what is wrong
    variant = manifest.variants.get(precision) if precision != "float32" else None
    graph = "model.onnx" if variant is None else variant.file
    private, shared = BASE_BYTES, 0
    for name, entry in manifest.files.items():
        if name == graph:
            private += _GRAPH_COPIES * entry.bytes
        elif name == f"{graph}.data":
            shared += entry.bytes
        elif name.startswith("vocabularies/"):
            if entry.bytes * _DICTIONARY_FACTOR > _DICTIONARY_BYTES:
                shared += entry.bytes
            private += min(entry.bytes * _DICTIONARY_FACTOR, _DICTIONARY_BYTES)
    return Footprint(private, shared)
