"""An empty ledger of the accuracy benchmark."""

from pathlib import Path

import pytest

from benchmarks.accuracy.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")
