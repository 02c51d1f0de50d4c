"""What a process may use: trees of files as kernels and container engines lay them out, and the real thing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from serving import ROOT, environment

from service.workers.machine import Limit, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
V2 = "30 23 0:26 {root} {point} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 25 0:30 {root} {point} rw,nosuid shared:9 - cgroup cgroup rw,{controllers}\n"
UNLIMITED_V1 = "9223372036854771712\n"


def tree(root: Path, cgroup: str, mountinfo: str, files: dict[str, str], memory_kib: int = 8 << 20) -> Path:
    """A file system as this process would see it."""
    everything = {
        "proc/self/cgroup": cgroup,
        "proc/self/mountinfo": "22 1 8:1 / / rw,relatime - ext4 /dev/root rw\n" + mountinfo,
        "proc/meminfo": f"MemFree: 5 kB\nMemTotal:       {memory_kib} kB\n",
        **files,
    }
    for name, content in everything.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return root


LAYOUTS: dict[str, tuple[str, str, dict[str, str], float | None, float]] = {
    # process's groups, mounts, files; quota in CPUs, memory in MiB
    "version 2, no limit": (
        "0::/user.slice/a.scope\n",
        V2.format(root="/", point="/sys/fs/cgroup"),
        {
            "sys/fs/cgroup/user.slice/a.scope/cpu.max": "max 100000\n",
            "sys/fs/cgroup/user.slice/a.scope/memory.max": "max\n",
        },
        None,
        8192,
    ),
    "version 2, a container's own namespace": (
        "0::/\n",
        V2.format(root="/", point="/sys/fs/cgroup"),
        {"sys/fs/cgroup/cpu.max": "150000 100000\n", "sys/fs/cgroup/memory.max": f"{512 * MIB}\n"},
        1.5,
        512,
    ),
    "version 2, the lowest limit is of a level above": (
        "0::/kubepods/pod7/c1\n",
        V2.format(root="/", point="/sys/fs/cgroup"),
        {
            "sys/fs/cgroup/kubepods/cpu.max": "800000 100000\n",
            "sys/fs/cgroup/kubepods/memory.max": f"{300 * MIB}\n",
            "sys/fs/cgroup/kubepods/pod7/cpu.max": "50000 25000\n",
            "sys/fs/cgroup/kubepods/pod7/c1/cpu.max": "max 100000\n",
            "sys/fs/cgroup/kubepods/pod7/c1/memory.max": f"{400 * MIB}\n",
        },
        2.0,
        300,
    ),
    "version 2, groups outside what is mounted": (
        "0::/../../other\n",
        V2.format(root="/", point="/sys/fs/cgroup"),
        {"sys/fs/cgroup/cpu.max": "70000 100000\n"},
        0.7,
        8192,
    ),
    "version 1, a container without namespaces": (
        "5:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n",
        V1.format(root="/docker/ab", point="/sys/fs/cgroup/cpu,cpuacct", controllers="cpu,cpuacct")
        + V1.format(root="/docker/ab", point="/sys/fs/cgroup/memory", controllers="memory"),
        {
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{256 * MIB}\n",
        },
        2.5,
        256,
    ),
    "version 1, the lowest limit is of a level above": (
        "3:cpu:/a/b\n2:memory:/a/b\n",
        V1.format(root="/", point="/sys/fs/cgroup/cpu", controllers="cpu")
        + V1.format(root="/", point="/sys/fs/cgroup/memory", controllers="memory"),
        {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1,
            "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": UNLIMITED_V1,
        },
        1.0,
        8192,
    ),
    "both versions, CPU in 1": (
        "2:cpu:/a\n0::/a\n",
        V1.format(root="/", point="/sys/fs/cgroup/cpu", controllers="cpu")
        + V2.format(root="/", point="/sys/fs/cgroup/unified"),
        {
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/unified/a/memory.max": f"{128 * MIB}\n",
        },
        0.5,
        128,
    ),
    "a mount point with a space": (
        "0::/\n",
        V2.format(root="/", point="/my\\040groups"),
        {"my groups/cpu.max": "300000 100000\n"},
        3.0,
        8192,
    ),
    "files that are not as documented": (
        "0::/a\nnonsense\n",
        "short\n" + V2.format(root="/", point="/sys/fs/cgroup"),
        {"sys/fs/cgroup/a/cpu.max": "many\n", "sys/fs/cgroup/cpu.max": "1 0\n", "sys/fs/cgroup/a/memory.max": "\n"},
        None,
        8192,
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_lowest_limit_on_the_way_to_the_root_is_found(tmp_path: Path, layout: str) -> None:
    cgroup, mountinfo, files, quota, memory = LAYOUTS[layout]
    machine = Machine.read(tree(tmp_path, cgroup, mountinfo, files), affinity=4)
    assert (None if machine.quota is None else machine.quota.value) == quota
    assert machine.memory is not None
    assert machine.memory.value == memory * MIB
    assert machine.cpus == (4.0 if quota is None else quota)
    for limit in (machine.quota, machine.memory):
        assert limit is None or (tmp_path / limit.source[1:]).is_file()


def test_affinity_counts_where_it_is_less_than_the_quota() -> None:
    assert Machine(2, Limit(3.5, "/cpu.max")).cpus == 2.0
    assert Machine(4, Limit(3.5, "/cpu.max")).cpus == 3.5


def test_nothing_to_read_is_no_limit(tmp_path: Path) -> None:
    assert Machine.read(tmp_path, affinity=3) == Machine(3, None, None)


# ---- the real thing

PLAN_AND_END = "--bundle", "nowhere", "--port", "0"


def plan_of(prelude: str) -> dict[str, Any]:
    """The plan that a service logs which starts after this was executed in its process."""
    code = f"import os, sys\n{prelude}\nos.execv(sys.executable, [sys.executable, '-m', 'service', *sys.argv[1:]])"
    outcome = subprocess.run(
        [sys.executable, "-c", code, *PLAN_AND_END],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [json.loads(line) for line in outcome.stderr.splitlines()]
    plans = [line for line in lines if line["event"] == "plan"]
    assert len(plans) == 1, outcome.stderr
    return plans[0]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_a_restricted_affinity_is_planned_for() -> None:
    cpu = min(os.sched_getaffinity(0))
    plan = plan_of(f"os.sched_setaffinity(0, {{{cpu}}})")
    assert plan["cpus"] <= 1.0
    assert (plan["workers"], plan["model_threads"]) == (1, 1)
    assert "scheduled on 1" in plan["why"][0]


@contextlib.contextmanager
def group_with_quota(microseconds: int) -> Iterator[Path]:
    """A control group below the mounted root whose processes get this much CPU time in 100,000 us."""
    roots = {"cpu.cfs_quota_us": Path("/sys/fs/cgroup/cpu"), "cpu.max": Path("/sys/fs/cgroup")}
    tried = []
    for name, root in roots.items():
        group = root / f"reaction-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            tried.append(str(error))
            continue
        try:
            if (group / name).exists():
                (group / name).write_text(f"{microseconds}" if "cfs" in name else f"{microseconds} 100000")
                yield group
                return
            tried.append(f"{group} has no {name}: the controller is not enabled there")
        except PermissionError as error:
            tried.append(str(error))
        finally:
            group.rmdir()
    pytest.skip(f"needs a control group of its own (root, a writable hierarchy): {'; '.join(tried)}")


def test_a_real_quota_is_planned_for() -> None:
    with group_with_quota(50_000) as group:
        plan = plan_of(f"open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))")
    assert plan["cpus"] == 0.5
    assert plan["workers"] == 1
    assert f"a quota of 0.5 in {group}" in plan["why"][0]
