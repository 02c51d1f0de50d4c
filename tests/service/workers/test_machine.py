"""What a process may use: trees of files as kernels and engines lay them out; `test_under_quota.py` has real limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.workers.machine import Limit, Machine

if TYPE_CHECKING:
    from pathlib import Path

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
