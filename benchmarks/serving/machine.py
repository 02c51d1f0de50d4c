"""What it was measured on: processor, versions; no names and no paths."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.processes import LOAD_CORE, SERVER_CORE

_PACKAGES: Final = (
    *(
        "fastapi",
        "starlette",
        "uvicorn",
        "uvloop",
        "httptools",
        "pydantic",
        "msgspec",
        "orjson",
        "onnxruntime",
        "numpy",
    ),
    *("litserve", "bentoml", "mlserver", "kserve", "ray", "nvidia-pytriton"),
)
_ASK: Final = """
import importlib.metadata as m, json, sys
found = {}
for name in sys.argv[1:]:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))
"""


def check_machine() -> str | None:
    """What keeps this machine from measuring; None if nothing."""
    if sys.platform != "linux":
        return f"expected Linux (processor time is read from /proc), got {sys.platform}"
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        return f"expected cores {SERVER_CORE} and {LOAD_CORE}, got {sorted(os.sched_getaffinity(0))}"
    if shutil.which("wrk") is None:
        return "expected wrk (a package of that name) on PATH, got none"
    return None


def facts(peers: tuple[Path, Path] | None) -> dict[str, Any]:
    """Processor, cores, kernel, date and versions."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "versions": _versions(),
    }
    if peers is not None:
        found["peer_versions"] = {
            folder.name: _versions_of(folder / "bin" / "python")
            for folder in sorted(peers[1].iterdir())
            if (folder / "bin" / "python").exists()
        }
    return found


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    names = (known.get(key) for key in ("model name", "cpu family", "model", "stepping"))
    name, family, model, stepping = (value or "?" for value in names)
    return f"{name} (family {family}, model {model}, stepping {stepping})"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _versions_of(python: Path) -> dict[str, str]:
    done = subprocess.run([python, "-c", _ASK, *_PACKAGES], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {}
