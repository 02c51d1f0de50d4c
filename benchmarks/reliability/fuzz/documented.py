"""schemathesis against a server: requests made from its OpenAPI document, good and bad, answers held to it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PHASES", "Held", "MissingToolError", "hold_to_document"]

PHASES: Final = ("examples", "coverage", "fuzzing", "stateful")
"""Of schemathesis: cases by enumeration come before those that are drawn."""
_TOOLS: Final = Path(__file__).resolve().parents[3] / ".tools"
_CASES: Final = re.compile(r"(\d+) generated")
# Their schema cannot say what fits together: as many values a column as another has, a token that somebody has signed.
_UNSAYABLE: Final = "positive_data_acceptance"
# Whoever wants an answer in a millisecond is told, as documented, that there will be none.
_SETTINGS: Final = """
hooks = "hooks.py"
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""
# It takes a header that is not in the document for an error that has to be refused.
_HOOKS: Final = """
import schemathesis

@schemathesis.hook
def filter_case(context, case):
    return not any("schemathesis-unknown" in name.lower() for name in case.headers or ())
"""


class MissingToolError(RuntimeError):
    """schemathesis is not installed."""


@dataclass(frozen=True, slots=True)
class Held:
    """What came of it.

    Attributes:
        cases: Requests and sequences of them that were tried.
        failed: Whether an answer broke the document, or was of 500 or more.
        output: What schemathesis printed.
    """

    cases: int
    failed: bool
    output: str


def hold_to_document(port: int, *, examples: int, seed: int, phases: Sequence[str] = PHASES) -> Held:
    """Hold a server on the loopback to the document that it serves.

    Args:
        port: Where it listens.
        examples: Most requests of a kind of each operation.
        seed: Of what is drawn.
        phases: Of `PHASES`.

    Raises:
        MissingToolError: There is no schemathesis.
    """
    environment = dict(os.environ)
    tool = shutil.which("schemathesis")
    if (_TOOLS / "bin" / "schemathesis").exists():
        tool, environment["PYTHONPATH"] = str(_TOOLS / "bin" / "schemathesis"), str(_TOOLS)
    if tool is None:
        raise MissingToolError("NOT CHECKED: no schemathesis in .tools (make setup), nor on PATH")
    options = {
        "--max-examples": examples,
        "--seed": seed,
        "--phases": ",".join(phases),
        "--exclude-checks": _UNSAYABLE,
        "--generation-database": "none",
        "--warnings": "off",
    }
    words = [str(word) for option in options.items() for word in option]
    command = [tool, "run", f"http://127.0.0.1:{port}/openapi.json", "--no-color", "--continue-on-failure", *words]
    with tempfile.TemporaryDirectory(prefix="schemathesis-") as folder:  # it leaves things where it runs
        (Path(folder) / "schemathesis.toml").write_text(_SETTINGS, encoding="utf-8")
        (Path(folder) / "hooks.py").write_text(_HOOKS, encoding="utf-8")
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    found = _CASES.search(done.stdout)
    return Held(int(found[1]) if found else 0, done.returncode != 0, done.stdout + done.stderr)
