"""Tests on real data say what to set where there is none, and cannot be skipped where they are required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("variables", "code", "reason"),
    [
        ({}, 0, "needs real data: set REACTION_DATA_DIR to the directory of the data sets"),
        ({"REACTION_DATA_DIR": "/nowhere"}, 0, "REACTION_DATA_DIR is '/nowhere', which is no directory"),
        ({"REACTION_REQUIRE_DATA": "1"}, 1, "REACTION_REQUIRE_DATA=1 allows no skip"),
    ],
)
def test_without_real_data_a_test_is_skipped_unless_it_is_required(
    variables: dict[str, str], code: int, reason: str
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("REACTION_", "PYTEST_"))}
    one = "tests/training/datasets/test_datasets_real.py::test_movielens_100k_is_read_whole"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", one],
        cwd=ROOT,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stdout
    assert reason in run.stdout
