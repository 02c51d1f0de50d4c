"""Tests on real data run where REACTION_DATA_DIR says that there is any.

Such a test is marked `data` and takes the fixture `data_dir`. Without the data it is skipped, and says what to set;
with REACTION_REQUIRE_DATA=1 (as in CI) that is a failure.
"""

import os
from pathlib import Path

import pytest

DATA_DIR = "REACTION_DATA_DIR"
REQUIRE_DATA = "REACTION_REQUIRE_DATA"


def why_no_data() -> str | None:
    """What is wrong with REACTION_DATA_DIR, None if it names a directory."""
    named = os.environ.get(DATA_DIR)
    if not named:
        return f"needs real data: set {DATA_DIR} to the directory of the data sets (see README)"
    if not Path(named).is_dir():
        return f"needs real data: {DATA_DIR} is {named!r}, which is no directory"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or refuse to skip, tests on real data."""
    if item.get_closest_marker("data") is None:
        return
    reason = why_no_data()
    if reason is None:
        return
    if os.environ.get(REQUIRE_DATA) == "1":
        pytest.fail(f"{reason}; {REQUIRE_DATA}=1 allows no skip", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The directory of the real data sets, for tests marked `data`."""
    return Path(os.environ[DATA_DIR])
