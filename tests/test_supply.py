"""What the serving image is made of, and whether any of it is known to be vulnerable."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
AUDIT = ROOT / ".ci" / "audit"


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, ROOT / "docker" / "sbom.py"], capture_output=True, text=True, check=True, cwd="/"
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_bill_names_each_package_of_the_service_by_its_pinned_release_and_no_training_library(
    bill: dict[str, Any],
) -> None:
    pins = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    listed = {entry["name"]: entry["version"] for entry in bill["components"]}
    assert listed.items() <= pins.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {re.split(r"[<>=;\[ ]", text)[0] for text in project["dependencies"]}
    assert asked <= listed.keys()
    assert {"starlette", "cffi", "httptools"} <= listed.keys()  # what these ask for
    assert not {"torch", "onnx", "polars", "scikit-learn", "scipy", "pytest"} & listed.keys()


def test_a_process_that_serves_loads_nothing_that_the_bill_does_not_name(bill: dict[str, Any]) -> None:
    code = (
        "import service.app, service.server, service.runtime, service.bundle_format.signature, sys; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    owners = importlib.metadata.packages_distributions()
    tops = {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
    loaded = {re.sub(r"[-_.]+", "-", owner).lower() for top in tops for owner in owners.get(top, [])}
    assert "fastapi" in loaded
    listed = {entry["name"] for entry in bill["components"]} | {"reaction-ctr"}
    assert loaded - listed <= {"setuptools", "greenlet"}  # taken only where something else brought them


def test_every_part_of_the_bill_has_a_licence_and_every_edge_leads_to_a_part(bill: dict[str, Any]) -> None:
    assert [entry["name"] for entry in bill["components"] if not entry.get("licenses")] == []
    parts = {entry["bom-ref"] for entry in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    edges = {edge["ref"]: set(edge["dependsOn"]) for edge in bill["dependencies"]}
    assert edges.keys() == parts
    assert set().union(*edges.values()) <= parts
    reached, waiting = set(), [bill["metadata"]["component"]["bom-ref"]]
    while waiting:
        part = waiting.pop()
        if part not in reached:
            reached.add(part)
            waiting += edges[part]
    assert reached == parts


def audit(folder: Path, tool: str | None) -> tuple[int, str]:
    """Status and output of the audit with a `pip-audit` on PATH that does this, or with none."""
    for name in ("dirname", "mktemp", "rm", "timeout", "tail"):
        (folder / name).symlink_to(str(shutil.which(name)))
    (folder / "python3").symlink_to(sys.executable)
    if tool is not None:
        (folder / "pip-audit").write_text(f"#!/bin/sh\nwhile [ $# -gt 1 ]; do out=$2; shift; done\n{tool}\n")
        (folder / "pip-audit").chmod(0o755)
    bash = str(shutil.which("bash"))
    done = subprocess.run(
        [bash, AUDIT], capture_output=True, text=True, check=False, env={**os.environ, "PATH": str(folder)}
    )
    return done.returncode, done.stdout


def report(**more: object) -> str:
    package = {"name": "numpy", "version": "2.0.0", "vulns": [], **more}
    return f"echo '{json.dumps({'dependencies': [package]})}' > $out"


@pytest.mark.parametrize(
    ("tool", "status", "message"),
    [
        (None, 0, "NOT AUDITED: no pip-audit on PATH"),
        ("echo 'the list cannot be reached' >&2; exit 1", 0, "NOT AUDITED: .*\nthe list cannot be reached"),
        (report(), 0, "audited 1 packages: 0 known vulnerabilities"),
        (report(skip_reason="not found"), 0, "NOT AUDITED: .* knows none of 1 packages"),
        (report(vulns=[{"id": "CVE-1", "fix_versions": ["2.0.1"]}]) + "; exit 1", 1, "CVE-1, fixed in 2.0.1"),
    ],
)  # fmt: skip
def test_an_audit_fails_on_a_vulnerability_and_says_where_there_was_none(
    tmp_path: Path, tool: str | None, status: int, message: str
) -> None:
    found, output = audit(tmp_path, tool)
    assert found == status, output
    assert re.search(message, output)


def test_tools_are_pinned_to_exact_releases_and_say_nothing_else_of_what_the_service_is_tested_with() -> None:
    form = re.compile(r"^([a-z0-9-]+)==([0-9][0-9a-z.]*)$", re.MULTILINE)
    lines = [line for line in (ROOT / "tools.txt").read_text().splitlines() if not line.startswith("#")]
    tools = dict(form.findall("\n".join(lines)))
    assert len(tools) == len(lines)
    assert {"pip-audit", "schemathesis"} <= tools.keys()
    assert not tools.keys() & dict(form.findall((ROOT / "constraints.txt").read_text())).keys()
