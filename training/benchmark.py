"""`python -m training benchmark`: hands over to `benchmarks.accuracy`, which lies in a checkout and has an extra."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MODULE = "benchmarks.accuracy"
EXTRA = ("fuxictr", "lightgbm", "matplotlib")


class BenchmarkUnavailableError(RuntimeError):
    """There is no checkout around this package, or the benchmark's libraries are not installed."""


def run_benchmark(arguments: Sequence[str], package: Path = Path(__file__).parent) -> int:
    """Run it in a process of its own.

    Args:
        arguments: Its options.
        package: This package's folder; the checkout is the one around it.

    Returns:
        The process's exit code.

    Raises:
        BenchmarkUnavailableError: Says what is missing, and where it is to be had.
    """
    checkout = package.resolve().parent
    if not checkout.joinpath(*MODULE.split("."), "__main__.py").is_file():
        raise BenchmarkUnavailableError(
            f"{checkout}: expected a checkout of the repository with benchmarks/accuracy, got an installed package; "
            "clone the repository and run it there"
        )
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise BenchmarkUnavailableError(
            f"expected the benchmark's libraries, {', '.join(missing)} not installed: "
            "pip install -c constraints.txt -e '.[training,benchmark]'"
        )
    path = os.pathsep.join([str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", MODULE, *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode
