"""The plan: workers and threads from what there is and what was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import serving

from service.settings import Settings
from service.workers.machine import Limit, Machine
from service.workers.plan import BASE_BYTES, Footprint, footprint, make_plan

if TYPE_CHECKING:
    from serving import Server

    from service.workers.plan import Plan

MIB = 1 << 20
NOWHERE = Path("nowhere")


def plan(machine: Machine, **settings: Any) -> Plan:
    return make_plan(Settings(bundle=settings.pop("bundle", NOWHERE), **settings), machine)


def numbers(made: Plan) -> tuple[int, int, int]:
    return made.workers, made.model_threads, made.work_threads


@pytest.mark.parametrize(
    ("affinity", "quota", "workers"),
    [(1, None, 1), (2, None, 2), (64, None, 64), (64, 2.0, 2), (64, 2.9, 2), (64, 0.25, 1), (2, 8.0, 2)],
)
def test_each_whole_cpu_gets_a_worker_and_there_is_always_one(affinity: int, quota: float | None, workers: int) -> None:
    made = plan(Machine(affinity, None if quota is None else Limit(quota, "/cpu.max")))
    assert numbers(made) == (workers, 1, 1)
    assert made.warnings == ()


def test_memory_bounds_the_workers_and_the_reason_names_its_file() -> None:
    machine = Machine(64, None, Limit(10 * BASE_BYTES, "/sys/fs/cgroup/memory.max"))
    made = plan(machine)
    assert made.workers == 9  # a tenth is not theirs
    assert "/sys/fs/cgroup/memory.max hold no more" in made.why[1]
    assert plan(Machine(64, None, Limit(BASE_BYTES / 2, "/x"))).workers == 1


def test_cpus_that_no_worker_uses_go_to_threads_for_long_bodies() -> None:
    assert numbers(plan(Machine(8), workers=4)) == (4, 1, 2)
    assert numbers(plan(Machine(8), workers=1)) == (1, 1, 4)
    assert numbers(plan(Machine(8), workers=1, model_threads=8)) == (1, 8, 1)


def test_what_is_set_wins_and_what_does_not_fit_is_told() -> None:
    made = plan(Machine(4, Limit(2.0, "/cpu.max")), workers=3, model_threads=2, work_threads=5)
    assert numbers(made) == (3, 2, 5)
    assert made.why[1:] == ("workers 3: as set", "model_threads 2: as set", "work_threads 5: as set")
    assert made.warnings == ("workers x model_threads: expected at most 2 (the CPUs there are), got 3 x 2",)
    (warning,) = plan(Machine(4, None, Limit(BASE_BYTES, "/m")), workers=2).warnings
    assert warning.startswith("workers: expected to fit into 96 MiB (/m), got 2 that take about 192 MiB")


@given(
    st.integers(1, 256),
    st.none() | st.floats(0.01, 300),
    st.none() | st.integers(1 << 20, 1 << 40),
    st.fixed_dictionaries({}, optional={"workers": st.integers(1, 99), "model_threads": st.integers(1, 99)}),
)
def test_no_plan_takes_more_than_there_is_unless_it_was_asked_to(
    affinity: int, quota: float | None, memory: int | None, given_settings: dict[str, int]
) -> None:
    machine = Machine(
        affinity, None if quota is None else Limit(quota, "q"), None if memory is None else Limit(memory, "m")
    )
    made = plan(machine, **given_settings)
    assert min(numbers(made)) >= 1
    busy = made.workers * made.model_threads
    if not given_settings:
        assert busy <= max(1, machine.cpus)
        assert memory is None or made.workers == 1 or made.workers * BASE_BYTES <= memory
    assert bool([text for text in made.warnings if "model_threads" in text]) == (busy > max(1.0, machine.cpus))
    assert len(made.why) == 4


def manifest(folder: Path, files: dict[str, int]) -> Path:
    document = {
        "format": "reaction-bundle",
        "version": 1,
        "model_id": "m",
        "created": "2026-01-01T00:00:00+00:00",
        "files": {name: {"sha256": "0" * 64, "bytes": size} for name, size in files.items()},
        "inputs": {"context_ids": 1, "candidate_ids": 1},
    }
    (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def test_mapped_tables_and_vocabularies_count_once_and_copies_for_each_worker(tmp_path: Path) -> None:
    files = {
        "model.onnx": 3 * MIB,
        "model.onnx.data": 1024 * MIB,
        "model.int8.onnx": 50 * MIB,  # not what is served
        "model.int8.onnx.data": 500 * MIB,
        "vocabularies/small.safetensors": 1 * MIB,  # becomes a dictionary
        "vocabularies/large.safetensors": 100 * MIB,  # stays mapped, or becomes the largest dictionary there is
        "golden.jsonl": MIB,
    }
    bundle = manifest(tmp_path, files)
    assert footprint(bundle) == Footprint(BASE_BYTES + (2 * 3 + 10 + 25) * MIB, (1024 + 100) * MIB)
    made = plan(Machine(64, None, Limit(2000 * MIB, "/m")), bundle=bundle)
    assert made.workers == int((2000 * 0.9 - 1124) // 137)
    assert footprint(NOWHERE) == Footprint()


def test_the_plan_is_logged_once_with_its_reasons_and_the_threads_are_those_planned(
    bundle: Path, server: Server
) -> None:
    with serving(bundle, workers=1, model_threads=64) as running:
        threads = psutil.Process(running.process.pid).num_threads()
    assert threads >= 64
    assert psutil.Process(server.process.pid).num_threads() < 16  # as planned: one, whatever the machine has
    (logged,) = [line for line in running.log if line["event"] == "plan"]
    assert (logged["workers"], logged["model_threads"]) == (1, 64)
    assert [text.split(" ")[0] for text in logged["why"]] == ["cpus", "workers", "model_threads", "work_threads"]
    (warned,) = [line for line in running.log if line["event"] == "plan_does_not_fit"]
    assert warned["level"] == "warning"
    assert warned["reason"].endswith("got 1 x 64")
