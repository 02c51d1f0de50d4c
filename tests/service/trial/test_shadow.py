"""A shadow scores what was answered once more, and whatever becomes of it, answers stay what they are."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from processes import GOOD, count_all, is_alive, wait_for, workers_of
from serving import ROW_CANDIDATES, ROW_CONTEXT, Server, serving
from stores import SEEDS, add_version, build_store, expected_scores, flip, load, reloads

from service.counts.catalogue import CATALOGUE
from service.trial.candidate import Candidate
from service.versions import trials

if TYPE_CHECKING:
    from pathlib import Path

    from service.versions.store import Store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a shadow needs a service of several processes")

EXPECTED = expected_scores()
HOW: dict[str, Any] = {"workers": 2, "watch_seconds": 0.05, "idle_seconds": 0.2, "request_log_ratio": 0}


def count(server: Server, name: str) -> float:
    return count_all(server).get(name, 0.0)


def requests(server: Server, outcome: str) -> float:
    return count(server, f'reaction_shadow_requests_total{{model="second",outcome="{outcome}"}}')


def ends(server: Server, reason: str) -> float:
    return count(server, f'reaction_shadow_ends_total{{model="second",reason="{reason}"}}')


def shadow(server: Server, store: Store, **how: float) -> int:
    """Put the second version on trial, and wait until it scores; its process."""
    before = workers_of(server)
    trials.put_on_trial(store, Candidate(name="second", mode="shadow", **how))
    wait_for(lambda: count(server, "reaction_shadow_ready") == 1, "the shadow scores", seconds=120)
    (process,) = set(workers_of(server)) - set(before)
    return process


def first_scores(times: int = 1) -> Any:
    return pytest.approx(EXPECTED["first"] * times, abs=1e-6)


def score(server: Server, document: dict[str, Any] = GOOD, times: int = 1) -> None:
    """Score on a connection of its own; every answer is the current version's."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for _ in range(times):
            answer = client.post("/score", json=document).json()
            assert (answer["model"], answer["scores"]) == ("first", first_scores(len(document["candidates"]) // 3))


def test_a_shadow_scores_every_request_and_is_compared_and_may_be_promoted(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second")
    first, second = EXPECTED["first"], EXPECTED["second"]
    apart = [abs(a - b) for a, b in zip(first, second, strict=True)]
    tolerance = sorted(apart)[1] + 1e-4  # one of three is further
    with serving(store.root, **HOW) as running:
        workers = workers_of(running)
        process = shadow(running, store, tolerance=tolerance)
        assert os.getpriority(os.PRIO_PROCESS, process) == 19
        score(running, times=20)
        for _ in range(10):
            score(running, {**GOOD, "routing_key": "u"})
        score(running, {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES * 400})  # in a worker thread
        tensors = {"name": "ad", "shape": [2], "datatype": "BYTES", "data": ["a1", "a2"]}
        assert httpx.post(f"{running.url}/v2/models/first/infer", json={"inputs": [tensors]}).status_code == 200
        assert httpx.post(f"{running.url}/score", json={"candidates": [{"nonsense": 1}]}).status_code == 422
        wait_for(lambda: requests(running, "ok") == 32, "all that was answered was scored once more")
        counts = count_all(running)
        scored = 30 * 3 + 1200
        assert counts['reaction_shadow_candidates_total{model="second"}'] == scored + 2
        assert counts['reaction_shadow_difference_count{model="second"}'] == scored + 2
        assert scored / 3 <= counts['reaction_shadow_differing_total{model="second"}'] <= scored / 3 + 2
        total = counts['reaction_shadow_score_total{model="second",of="primary"}']
        assert total == pytest.approx(sum(first) * scored / 3, abs=2.001)
        total = counts['reaction_shadow_score_total{model="second",of="shadow"}']
        assert total == pytest.approx(sum(second) * scored / 3, abs=2.001)
        assert 'reaction_candidates_total{model="second"}' not in counts, "it serves nobody"
        for row in CATALOGUE.values():
            if row.name.startswith("reaction_shadow_") and row.name != "reaction_shadow_ends_total":
                shown = [
                    name for name in counts if name.startswith(f"{row.name}{'_count' * (row.type == 'histogram')}")
                ]
                assert shown, row.name
                assert all(f'{label}="' in name for name in shown for label in row.labels)
        assert [requests(running, other) for other in ("refused", "failed", "dropped", "too_long")] == [0, 0, 0, 0]
        assert set(workers) < set(workers_of(running)), "no worker was restarted for it"
        trials.promote(store)
        wait_for(lambda: not is_alive(process), "it has gone", seconds=120)
        wait_for(lambda: 'reaction_candidates_total{model="second"}' in count_all(running), "it serves", seconds=120)
    assert running.process.returncode == 0
    assert "Traceback" not in str(running.log)


def test_a_shadow_that_stands_still_or_is_killed_changes_no_answer_and_is_replaced(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second")
    long = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES * 300}
    with serving(store.root, **HOW, shadow_seconds=600) as running, load(running, clients=1, pause=0.002) as seen:
        process = shadow(running, store)
        os.kill(process, signal.SIGSTOP)
        while not requests(running, "dropped"):
            score(running, long, times=20)
        score(running, times=20)
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: ends(running, "ended") == 1, "it is noticed")
        wait_for(lambda: count(running, "reaction_shadow_ready") == 1, "it is replaced", seconds=120)
        wait_for(lambda: requests(running, "ok") > 0, "the next one scores")
        trials.end_trial(store)
        wait_for(lambda: count(running, "reaction_shadow_ready") == 0, "it is ended")
        wait_for(lambda: len(workers_of(running)) == 2, "and gone")
        assert count(running, "reaction_worker_restarts_total") == 0
    assert (seen.wrong, seen.failed, set(seen.models)) == ([], [], {"first"})
    assert running.process.returncode == 0


def test_a_shadow_whose_graph_never_ends_fails_or_is_damaged_is_nobody_else_s_fault(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first")
    add_version(store, tmp_path, "third")
    flip(store.path("third") / "model.onnx")
    add_version(store, tmp_path, "second", endless_above=100, seed=SEEDS["second"])
    with serving(store.root, **HOW, shadow_seconds=1) as running:
        trials.put_on_trial(store, Candidate(name="third", mode="shadow"))
        wait_for(lambda: reloads(running, "trial_refused", "corrupt") == 1, "it is refused", seconds=120)
        assert count(running, "reaction_trial_refused") == 1
        shadow(running, store)
        score(running, times=3)
        wait_for(lambda: requests(running, "ok") == 3, "it scores what ends")
        score(running, {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES * 40})
        wait_for(lambda: ends(running, "hung") == 1, "it is found out")
        score(running, times=3)
        assert len([w for w in workers_of(running) if os.getpriority(os.PRIO_PROCESS, w) == 0]) == 2
    assert running.process.returncode == 0
