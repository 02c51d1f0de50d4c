"""Where the service's processor time goes: by shared object (perf), and by Python package (py-spy), where they are."""

from __future__ import annotations

import collections
import re
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.serving.race import Block, Entry

Profile = dict[str, dict[str, float]]
"""Tool to its table: name to share of all samples."""

PERF_COMMAND: Final = "perf record -F 999 -p PID -- sleep SECONDS; perf report --sort dso"
PY_SPY_COMMAND: Final = "py-spy record -p PID -r 500 -d SECONDS -f raw --nonblocking"
_SHOWN: Final = 0.01
_LINE: Final = re.compile(r"^\s*([0-9.]+)%\s+(\S.*?)\s*$", re.MULTILINE)
_FRAME: Final = re.compile(r"^(.*) \((.*?):\d+\)$")


def profile(block: Block, entry: Entry, seconds: int, venvs: Path | None = None) -> Profile:
    """Sample a server of a block under the closed loop.

    Args:
        block: It is up there.
        entry: What it is asked.
        seconds: How long, with each tool.
        venvs: Environments in which to look for py-spy as well.
    """
    found: Profile = {}
    perf, spy = shutil.which("perf"), shutil.which("py-spy")
    if spy is None and venvs is not None:
        spy = shutil.which("py-spy", path=":".join(str(folder / "bin") for folder in venvs.iterdir()))
    for name, tool, run in (("perf", perf, _perf), ("py-spy", spy, _py_spy)):
        if tool is None:
            block.race.say(f"  no {name} on PATH: no profile by it")
            continue
        with block.under_load(entry, seconds + 2) as pid:
            time.sleep(0.5)
            table = run(tool, pid, seconds, block.race.scratch)
        if table:
            found[name] = table
            shares = ", ".join(f"{part} {share:.0%}" for part, share in table.items())
            block.race.say(f"  {entry.workload} {entry.label}, {name}: {shares}")
    return found


def _perf(tool: str, pid: int, seconds: int, scratch: Path) -> dict[str, float]:
    data = str(scratch / "perf.data")
    record = [tool, "record", "-q", "-F", "999", "-p", str(pid), "-o", data, "--", "sleep", str(seconds)]
    report = [tool, "report", "-i", data, "--sort", "dso", "--stdio", "-q"]
    if subprocess.run(record, capture_output=True, check=False).returncode:
        return {}
    text = subprocess.run(report, capture_output=True, text=True, check=False).stdout
    return _largest({_object(name): float(share) / 100 for share, name in _LINE.findall(text)})


def _object(name: str) -> str:
    """A shared object's name without its version and platform."""
    return re.sub(r"\.(cpython|so|abi3)\b.*", "", name.rpartition("/")[2])


def _py_spy(tool: str, pid: int, seconds: int, scratch: Path) -> dict[str, float]:
    out = scratch / "py-spy.txt"
    command = [
        tool,
        "record",
        "-p",
        str(pid),
        "-r",
        "500",
        "-d",
        str(seconds),
        "-f",
        "raw",
        "--nonblocking",
        "-o",
        str(out),
    ]
    if subprocess.run(command, capture_output=True, check=False).returncode or not out.exists():
        return {}
    counts: collections.Counter[str] = collections.Counter()
    for line in out.read_text(encoding="utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        counts[module_of(stack.split(";"))] += int(count)
    total = sum(counts.values()) or 1
    return _largest({name: count / total for name, count in counts.items()})


def module_of(stack: Sequence[str]) -> str:
    """The innermost frame's package, or module of ours; C code counts for the Python frame that called it."""
    for frame in reversed(stack):
        match = _FRAME.match(frame)
        if match is None:
            continue
        path = match[2].rpartition("site-packages/")[2].removesuffix(".py")
        if path == "asyncio/runners":
            return "event loop, sockets, parser"  # all of it C
        top = path.partition("/")[0]
        if top == "service":
            return path
        if top not in sys.stdlib_module_names and not path.startswith(("/", "<")):
            return top
    return "standard library"


def _largest(table: dict[str, float]) -> dict[str, float]:
    ordered = sorted(table.items(), key=lambda item: -item[1])
    return {name: round(share, 4) for name, share in ordered if share >= _SHOWN}
