"""schemathesis against a server: requests made from its OpenAPI document, good and bad, answers held to it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Final

__all__ = ["Held", "MissingToolError", "hold_to_document"]

_CASES: Final = re.compile(r"(\d+) generated")
# Their schema cannot say what fits together: as many values a column as another has, a token that somebody has signed.
_UNSAYABLE: Final = "positive_data_acceptance"


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


def hold_to_document(port: int, *, examples: int, seed: int) -> Held:
    """Hold a server on the loopback to the document that it serves.

    Args:
        port: Where it listens.
        examples: Most requests of a kind of each operation.
        seed: Of what is drawn.

    Raises:
        MissingToolError: There is no schemathesis on PATH.
    """
    tool = shutil.which("schemathesis")
    if tool is None:
        raise MissingToolError("NOT CHECKED: no schemathesis on PATH (pipx install schemathesis)")
    options = {
        "--max-examples": examples,
        "--seed": seed,
        "--exclude-checks": _UNSAYABLE,
        "--generation-database": "none",
        "--warnings": "off",
    }
    words = [str(word) for option in options.items() for word in option]
    command = [tool, "run", f"http://127.0.0.1:{port}/openapi.json", "--no-color", "--continue-on-failure", *words]
    with tempfile.TemporaryDirectory(prefix="schemathesis-") as folder:  # it leaves things where it runs
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    found = _CASES.search(done.stdout)
    return Held(int(found[1]) if found else 0, done.returncode != 0, done.stdout + done.stderr)
