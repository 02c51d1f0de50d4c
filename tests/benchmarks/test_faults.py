"""Short profiles of more than can be scored, and of the machine's faults: outcomes, never times."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.reliability.backpressure import backpressure_figures
from benchmarks.reliability.faults import FAULTS, try_fault
from benchmarks.reliability.overload import figures_of, measure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several processes on one socket")


@pytest.fixture
def cores() -> Iterator[None]:
    """What a trial does to the cores of this process is undone."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def test_what_is_offered_beyond_the_most_is_scored_or_refused_and_never_fails(tmp_path: Path) -> None:
    figures = figures_of(measure(tmp_path, 0.5, (5.0,)), 0.5)
    assert figures["overload_failed"] == 0
    assert min(figures["overload_refused_5x"], figures["overload_goodput_5x"]) > 0


def test_small_requests_are_never_refused_but_wait_in_sockets(tmp_path: Path, cores: None) -> None:
    figures = backpressure_figures(tmp_path, 0.4, (2.0,))
    assert figures["backpressure_failed"] == 0
    assert figures["backpressure_goodput_2x"] > 0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_machine_is_served_through_or_refused_clearly(fault: str) -> None:
    outcome = try_fault(fault, seconds=0.3)
    if outcome is None:
        pytest.skip("libfaketime is not installed")
    assert outcome.requests > 30
    assert (outcome.failed, outcome.wrong, outcome.complaints) == ([], [], [])
