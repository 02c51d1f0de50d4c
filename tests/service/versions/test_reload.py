"""Another version is taken up while requests are scored; a bad one is refused; one command goes back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from processes import count_all, workers_of
from processes import wait_for as wait
from serving import ROOT, Server, serving
from signatures import write_public_key
from stores import add_version, build_store, flip, load, model_of, reloads

from service.counts.model_counts import _REQUESTS_QUEUED

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.versions.store import Store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="reloading needs processes that share a socket")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Long: what takes a version up gets what others leave it, also of the machine."""
    wait(condition, what, seconds=120)


def versions(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "service", "versions", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def served(server: Server) -> set[str]:
    """Models that some process serves now, by its metrics."""
    start = "reaction_model_info{"
    return {name.split('model="')[1].split('"')[0] for name in count_all(server) if name.startswith(start)}


def session_of(process: int) -> str:
    """Which session's share of the CPUs it has, and at what priority, on kernels that share by session."""
    session = Path(f"/proc/{process}/autogroup")
    return session.read_text(encoding="ascii") if session.exists() else ""


def test_a_version_is_taken_up_by_all_workers_under_load_and_no_request_is_lost_or_mixed(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second", "third")
    how = {"workers": 2, "watch_seconds": 0.05, "idle_seconds": 1, "request_log_ratio": 0}
    with serving(store.root, **how) as running:
        before = workers_of(running)
        with load(running, pause=0.01) as seen:
            store.activate("second")
            wait_for(lambda: seen.models["second"] > 0, "one worker has taken it up")
            assert versions("rollback", str(store.root)) == "current: first\n"  # halfway
            store.activate("third")
            wait_for(lambda: served(running) == {"third"}, "all have taken it up")
            assert {model_of(running) for _ in range(20)} == {"third"}
            wait_for(lambda: reloads(running, "loaded") > 0, "it is counted")
            wait_for(lambda: not set(before) & set(workers_of(running)), "those before have gone")
            assert len(workers_of(running)) == 2
            for process in workers_of(running):  # what it got ready with the least priority, it serves without
                assert session_of(process) == session_of(running.process.pid)
                assert os.getpriority(os.PRIO_PROCESS, process) == os.getpriority(os.PRIO_PROCESS, 0)
        assert (seen.wrong, seen.failed) == ([], [])
        assert {"first", "third"} <= set(seen.models) <= {"first", "second", "third"}
        os.kill(workers_of(running)[0], signal.SIGKILL)
        wait_for(lambda: count_all(running)["reaction_worker_restarts_total"] == 1, "the loss is noticed")
        wait_for(lambda: count_all(running)['reaction_workers{state="ready"}'] == 2, "it is replaced")
        assert {model_of(running) for _ in range(20)} == {"third"}
        counts = count_all(running)
        for name, answers in seen.models.items():  # also of what nobody serves any more
            scored = counts[f'reaction_candidates_total{{model="{name}"}}'] / 3
            assert scored >= answers - _REQUESTS_QUEUED
    assert running.process.returncode == 0
    assert "Traceback" not in str(running.log)


def test_a_version_that_is_left_no_time_to_get_ready_takes_its_share(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second")
    with serving(store.root, watch_seconds=0.05, patience_seconds=1, request_log_ratio=0) as running:
        supervisor = psutil.Process(running.process.pid)
        before = set(supervisor.children())
        store.activate("second")
        wait_for(lambda: bool(set(supervisor.children()) - before), "it is started")
        (starved,) = set(supervisor.children()) - before
        wait_for(lambda: starved.cmdline()[-1] == "low", "it is what it is started as")
        starved.suspend()  # as if those that serve took all there is
        wait_for(lambda: model_of(running) == "second", "it is served")
        (serves,) = set(supervisor.children()) - before - {starved}
        assert serves.cmdline()[-1] != "low"
    assert "reload_hurried" in str(running.log)


def spoil(store: Store, root: Path, name: str) -> None:
    """Add a version that must not be served, and make it current."""
    if name == "golden_rows":
        add_version(store, root, name, signed=True, golden_offset=0.01)
    else:
        path = add_version(store, root, name, signed=name != "signature")
        if name == "corrupt":
            flip(path / "model.onnx")
        if name == "format":
            (path / "manifest.json").unlink()
            os.mkfifo(path / "manifest.json")  # nobody may wait for it
    store.activate(name)


def test_a_bad_version_is_refused_once_for_its_reason_and_the_old_one_serves_on_until_told(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", signed=True)
    keys = write_public_key(tmp_path / "keys.pem")
    reasons = ("corrupt", "golden_rows", "signature", "format")
    how = {"watch_seconds": 0.05, "bundle_keys_file": keys, "request_log_ratio": 0}
    with serving(store.root, **how) as running:
        workers = workers_of(running)
        with load(running, clients=1, pause=0.02) as seen:
            for reason in reasons:
                assert count_all(running)["reaction_deployed_refused"] == (reason != reasons[0])
                spoil(store, tmp_path, reason)
                wait_for(lambda: reloads(running, "refused", reason) == 1, f"it is refused: {reason}")  # noqa: B023
                assert httpx.get(f"{running.url}/readyz").status_code == 200
            assert [reloads(running, "refused", reason) for reason in reasons] == [1, 1, 1, 1]
            store.activate("first")
            wait_for(lambda: count_all(running)["reaction_deployed_refused"] == 0, "what is deployed is served")
            assert workers_of(running) == workers
        assert (seen.wrong, seen.failed, set(seen.models)) == ([], [], {"first"})
        flip(store.path("corrupt") / "model.onnx")  # as it was: the manifest has been the same all along
        store.activate("corrupt")
        wait_for(lambda: count_all(running)["reaction_deployed_refused"] == 1, "it is not tried again")
        assert reloads(running, "refused", "corrupt") == 1
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: reloads(running, "loaded") == 1, "it is tried once told")
        assert model_of(running) == "corrupt"
    refused = [line for line in running.log if line["event"] == "reload_refused"]
    assert [(line["reason"], line["serves"]) for line in refused] == [(reason, "first") for reason in reasons]
    for line, told in zip(refused, ("SHA-256", "golden row", "manifest.sig", "a regular file"), strict=True):
        assert told in line["error"]
    assert running.process.returncode == 0


@pytest.mark.parametrize("bad", ["flipped", "gone"])
def test_a_start_that_finds_a_bad_version_serves_the_one_before_and_says_so(tmp_path: Path, bad: str) -> None:
    store = build_store(tmp_path, "first", "second")
    store.activate("second")
    if bad == "flipped":
        flip(store.path("second") / "model.onnx")
    else:
        shutil.rmtree(store.path("second"))
    reason = {"flipped": "corrupt", "gone": "no_version"}[bad]
    with serving(store.root, workers=2 if bad == "flipped" else 1, watch_seconds=0.05) as running:
        assert {model_of(running) for _ in range(8)} == {"first"}
        assert reloads(running, "fell_back", reason) == 1
        assert count_all(running)["reaction_deployed_refused"] == 1
        assert count_all(running)["reaction_worker_restarts_total"] == 0
    (told,) = [line for line in running.log if line["event"].startswith("reload_")]
    assert (told["event"], told["reason"], told["serves"]) == ("reload_fell_back", reason, "first")
    assert running.process.returncode == 0


def test_after_two_bad_deploys_what_is_served_outlives_a_prune_and_is_what_a_rollback_and_a_start_find(
    tmp_path: Path,
) -> None:
    store = build_store(tmp_path, "second", "third")
    add_version(store, tmp_path, "first")
    store.activate("first")
    for name in ("second", "third"):
        flip(store.path(name) / "model.onnx")
    with serving(store.root, watch_seconds=0.05) as running:
        wait_for(lambda: store.good() == "first", "it is noted as proven")
        for number, name in enumerate(("second", "third"), start=1):
            store.activate(name)
            wait_for(lambda: reloads(running, "refused", "corrupt") == number, f"{name} is refused")  # noqa: B023
        for number in range(2):
            shutil.copytree(store.path("third"), tmp_path / f"more-{number}")
            store.add(tmp_path / f"more-{number}", f"more-{number}")
        assert store.prune(2) == []
        os.kill(workers_of(running)[0], signal.SIGKILL)
        wait_for(lambda: count_all(running)["reaction_worker_restarts_total"] == 1, "the loss is noticed")
        wait_for(lambda: count_all(running)['reaction_workers{state="ready"}'] == 1, "it is replaced")
        assert model_of(running) == "first"
    with serving(store.root, watch_seconds=0.05) as running:
        assert model_of(running) == "first"
        assert reloads(running, "fell_back", "corrupt") == 2
        assert store.rollback() == "first"
        wait_for(lambda: count_all(running)["reaction_deployed_refused"] == 0, "what is deployed is served")


def test_one_bundle_served_by_one_process_outlives_a_hang_up(bundle: Path) -> None:
    with serving(bundle) as running:
        running.process.send_signal(signal.SIGHUP)
        assert model_of(running) == "tiny-1"
    assert "expected a store of versions" in str([line for line in running.log if line["event"] == "reload_refused"])
    assert running.process.returncode == 0
