"""Cells: one place for a name in every block, whoever asks first, and sums over all blocks."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import ROOT, build_encoder

from service.counts.cells import CONNECTIONS, READY, Cells, shared_file
from service.counts.histogram import Histogram
from service.metrics import ServiceMetrics

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no file is shared there")


def sharing(workers: int) -> tuple[list[Cells], int]:
    """The cells of each worker and of the supervisor, as if each were a process."""
    file = shared_file(workers)
    return [Cells(workers, block, descriptor=file) for block in range(workers + 1)], file


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(1, 9)), max_size=60))
def test_sums_over_workers_equal_counting_in_a_dictionary(events: Sequence[tuple[int, int, int]]) -> None:
    cells, _ = sharing(3)
    brute: dict[int, int] = {}
    for worker, name, count in events:
        first = cells[worker].take(f"name {name}", 4)
        cells[worker].values[first + 2] += count
        brute[name] = brute.get(name, 0) + count
    for reader in cells:
        found = {name: reader.totals(first, count) for name, first, count in reader.names("name ")}
        assert found == {f"name {name}": [0, 0, total, 0] for name, total in brute.items()}


def test_processes_that_ask_at_the_same_time_get_one_place_for_a_name() -> None:
    (own, *_), file = sharing(3)
    code = (
        "import random, sys\n"
        "from service.counts.cells import Cells\n"
        f"cells = Cells(3, int(sys.argv[1]), descriptor={file})\n"
        "names = list(range(2000)); random.seed(sys.argv[1]); random.shuffle(names)\n"
        "print(flush=True); sys.stdin.readline()\n"
        "for name in names: cells.values[cells.take(f'n {name}', 1 + name % 5)] += 1\n"
    )
    command = [sys.executable, "-c", code]
    pipes = {"cwd": ROOT, "pass_fds": [file], "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*command, str(number)], **pipes) for number in range(3)]  # type: ignore[call-overload]
    for process in started:
        process.stdout.readline()
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=60)
        assert process.returncode == 0
    taken = own.names("n ")
    assert {name for name, _, _ in taken} == {f"n {name}" for name in range(2000)}
    cells = [cell for _, first, count in taken for cell in range(first, first + count)]
    assert len(cells) == len(set(cells)) == sum(1 + name % 5 for name in range(2000))
    assert all(own.totals(first)[0] == 3 for _, first, _ in taken)


def test_a_full_block_says_so() -> None:
    cells = Cells(capacity=64)
    cells.take("a", 40)
    with pytest.raises(MemoryError, match="expected at most 64 a worker"):
        cells.take("b", 50)
    assert cells.take("c", 3) == cells.take("c", 3)


def test_a_scrape_of_one_worker_shows_what_another_one_counted_of_things_it_has_never_seen() -> None:
    (one, two, _), _ = sharing(2)
    first, second = ServiceMetrics(one), ServiceMetrics(two)
    second.count_request("/score", 418)
    second.count_request("/score", 418)
    first.count_request("/score", 200)
    assert first.requests() == second.requests() == {("/score", 418): 2, ("/score", 200): 1}
    for metrics in (first, second):
        metrics.add_model("m", build_encoder(), {}, info=("c", "f"), load_seconds=1.0)
    second.models[0].candidates.observe(5)
    assert first.models[0].candidates.sum == 5


def test_histograms_of_other_bounds_do_not_share_cells() -> None:
    cells = Cells()
    one, other = Histogram(cells, "h", (1.0, 2.0)), Histogram(cells, "h", (1.0, 3.0))
    one.observe(1.5)
    assert (one.cumulative(), other.cumulative()) == ([0, 1, 1], [0, 0, 0])


def test_all_have_started_once_each_was_ready_and_the_service_is_ready_while_one_is() -> None:
    (one, two, supervisor), _ = sharing(2)
    first, second = ServiceMetrics(one), ServiceMetrics(two)
    first.ready = True
    assert (first.all_started(), first.workers()) == (False, {"planned": 2, "ready": 1})
    second.ready = True
    assert first.all_started()
    supervisor.state_of(1)[READY] = 0.0  # it has ended
    assert (first.all_started(), first.workers()) == (True, {"planned": 2, "ready": 1})
    assert "reaction_ready 1.0" in first.render("")[0].decode()


def test_a_worker_sees_how_many_connections_the_least_busy_of_the_others_holds() -> None:
    cells, _ = sharing(3)
    for number, held in enumerate((1, 7, 4)):
        cells[number].own[CONNECTIONS] = held
    assert cells[0].least_of_others(CONNECTIONS, among=READY) is None  # none takes requests yet
    for worker in cells[:3]:
        worker.own[READY] = 1.0
    assert [worker.least_of_others(CONNECTIONS, among=READY) for worker in cells[:3]] == [4, 1, 1]
