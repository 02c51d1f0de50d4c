"""`python -m service advise`: the whole of it on a small bundle, and its parts on real servers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import httpx
import numpy as np
import psutil
import pytest
from serving import ROOT, Server, environment, samples, serving
from test_precision import add_variant

from service.advise import command
from service.advise.advisor import Advice, Advisor
from service.advise.child import die_with
from service.advise.crossover import measure_crossover
from service.advise.decisions import Decision
from service.advise.errors import LoadError, ServerError
from service.advise.load import Load, compare_servers, drive
from service.advise.requests import bodies, golden_feeds, spread_feeds
from service.advise.servers import running_servers
from service.advise.tables import Table
from service.bench.http import Target
from service.bundle import read_bundle
from service.scorer import Scorer
from service.settings import Settings
from service.workers.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def run(*arguments: object, cpus: int | None = None, **settings: object) -> subprocess.CompletedProcess[str]:
    """The real command; on the first so many CPUs."""
    few = sorted(os.sched_getaffinity(0))[:cpus]
    return subprocess.run(
        [sys.executable, "-m", "service", "advise", *map(str, arguments)],
        cwd=ROOT,
        env=environment(**settings),
        preexec_fn=lambda: os.sched_setaffinity(0, few),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def content(bundle: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_everything_is_measured_shown_and_written_and_a_server_takes_what_was_written(
    bundle: Path, tmp_path: Path
) -> None:
    varied, out = add_variant(bundle, tmp_path / "varied"), tmp_path / "it.env"
    before = content(varied)
    done = run(varied, "--out", out, "--seconds", 0.4)
    assert done.returncode == 0, done.stderr
    assert content(varied) == before
    assert re.findall(r"^\[(\d)/5\] (\w+)", done.stderr, re.MULTILINE) == [
        ("1", "precision"),
        ("2", "threads"),
        ("3", "crossover"),
        ("4", "coalescing"),
        ("5", "workers"),
    ]
    for shown in (
        "Precision of the tables",
        "1000, spread ids",
        "int8: AUC -0.000010",
        "On the event loop",
        "What to set",
    ):
        assert shown in done.stdout
    text = out.read_text()
    assert "SHA-256 of its manifest" in text
    names = ("PRECISION", "MODEL_THREADS", "INLINE_BODY_BYTES", "COALESCE", "WORKERS")
    assert [name for name in names if f"REACTION_{name}: " in text] == list(names)
    assert Counter(name for name in names if f"\n  REACTION_{name} " in done.stdout) == Counter(names)
    read = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    with serving(varied, **{name.removeprefix("REACTION_").lower(): value for name, value in read.items()}) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200
    again = run(varied, "--out", out, "--seconds", 0.4)
    assert (again.returncode, out.read_text()) == (2, text)
    assert "replace with --force" in again.stderr


@pytest.mark.slow
def test_on_one_cpu_it_says_what_could_not_be_measured(bundle: Path, tmp_path: Path) -> None:
    done = run(bundle, "--out", tmp_path / "it.env", "--seconds", 0.25, cpus=1, coalesce="true")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "it.env").read_text()
    assert "REACTION_WORKERS: no change (1): not measured: 1 CPUs leave nothing for a second worker" in text
    assert "REACTION_MODEL_THREADS: no change (1): not measured" in text
    assert "REACTION_PRECISION: no change (float32): the bundle holds no other precision" in text
    assert re.search(r"REACTION_COALESCE +true", done.stdout)  # what is in force comes from the environment


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--out", "{bundle}/it.env"), 2, "expected a file outside the bundle"),
        (("--seconds", "0"), 2, "error: --seconds: expected more than 0, got 0"),
        (("--out", "{tmp}/none/it.env"), 2, "expected a directory that exists"),
        (("--out", "/proc/it.env"), 2, "/proc/it.env: expected a file that can be written"),
        (
            ("--out", "{tmp}/" + "n" * 250),
            2,
            "expected a file that can be written",
        ),  # no name is left for the file aside
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_measured(
    bundle: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = run(bundle, *(word.format(bundle=bundle, tmp=tmp_path) for word in arguments))
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "[1/5]" not in done.stderr


def test_no_bundle_and_a_precision_it_lacks_end_with_one_line(bundle: Path, tmp_path: Path) -> None:
    for path, settings, message in (
        (tmp_path / "none", {}, "expected the directory of a bundle"),
        (bundle, {"precision": "int8"}, "expected a precision of this bundle (float32), got int8"),
    ):
        done = run(path, "--out", tmp_path / "it.env", **settings)
        assert done.returncode == 1
        assert message in done.stderr.splitlines()[-1]
        assert not (tmp_path / "it.env").exists()


@contextmanager
def advising(bundle: Path, out: Path, *prefix: str) -> Iterator[tuple[psutil.Process, list[psutil.Process]]]:
    """The real command while it drives servers, and those servers."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "service", "advise", str(bundle), "--out", str(out), "--seconds", "2"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests may have been started by nohup.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509 - no thread of ours runs
    )
    assert process.stderr is not None
    assert any("coalescing" in line for line in process.stderr)
    children: list[psutil.Process] = []
    while len(children) < 2 or any("advise" in " ".join(child.cmdline()) for child in children):
        time.sleep(0.01)
        children = psutil.Process(process.pid).children()
    try:
        yield psutil.Process(process.pid), children
    finally:
        process.kill()
        process.stderr.close()
        process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_however_it_is_ended_its_servers_end_too(bundle: Path, tmp_path: Path, number: signal.Signals) -> None:
    with advising(bundle, tmp_path / "it.env") as (process, children):
        process.send_signal(number)
        assert process.wait(60) == (1 if number is not signal.SIGKILL else -number)
        assert psutil.wait_procs(children, timeout=0 if number is not signal.SIGKILL else 30)[1] == []
    assert list(tmp_path.iterdir()) == []


def test_under_nohup_a_terminal_that_closes_does_not_end_it(bundle: Path, tmp_path: Path) -> None:
    with advising(bundle, tmp_path / "it.env", "nohup") as (process, children):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert all(one.is_running() for one in (process, *children))


def test_a_server_whose_starter_ended_before_it_could_ask_does_not_start() -> None:
    with pytest.raises(SystemExit):
        die_with(os.getpid())  # which is not its parent


def test_what_was_measured_is_shown_even_where_the_file_cannot_be_written_in_the_end(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    place.mkdir()

    def measured(_advisor: Advisor) -> Advice:
        place.rmdir()
        table = Table("Measured", ("a",), (("1",),))
        return Advice(("a fact",), (table,), (Decision("workers", 1, 2, "it gains"),))

    monkeypatch.setattr(Advisor, "advise", measured)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        assert command.run(bundle, place / "it.env") == 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    out, err = capsys.readouterr()
    assert all(shown in out for shown in ("a fact", "Measured", "What to set", "it gains"))
    assert "expected a directory that exists" in err


def test_cases_are_named_by_the_candidates_that_are_sent(bundle: Path) -> None:
    advisor = Advisor(Settings(bundle=bundle, max_candidates=5), Machine(affinity=2), 1.0, str)
    loads = advisor._loads((1, 32), (10, 32), (100, 32), (1, 1))
    names = ["1 candidate on 32 connections", "5 candidates on 32 connections", "1 candidate on 1 connection"]
    assert list(loads) == names
    sent = [{len(json.loads(body)["candidates"]) for body in load.bodies} for load in loads.values()]
    assert sent == [{1}, {5}, {1}]


def test_what_a_clock_says_of_a_busy_machine_is_shown_but_not_advised(bundle: Path) -> None:
    said: list[str] = []
    advisor = Advisor(Settings(bundle=bundle), Machine(affinity=2), 1.0, said.append, share=lambda cpus: cpus / 4)
    decision = Decision("workers", 1, 2, "it gains")
    for busy in (True, False):
        advisor._shares[:] = [0.5, 0.95] if busy else [0.91, 0.95]
        seen = advisor._withheld(decision)
        assert seen.value == (None if busy else 2)
        assert seen.why.startswith("withheld, as the machine was busy (50% of its CPUs to be had): 2, it g") == busy
    advisor._look_around()
    assert said == ["      the machine is busy: 50% of its CPUs are to be had"]


def test_a_process_that_shares_its_cpu_with_another_gets_a_part_of_it() -> None:
    one = sorted(os.sched_getaffinity(0))[:1]
    code = (
        f"import os; os.sched_setaffinity(0, {one})\n"
        "from service.advise.quiet import share_of_cpus\n"
        "pid = os.fork()\n"
        "print(share_of_cpus(1.0, 1.0)) if pid else share_of_cpus(1.0, 1.5)\n"
        "pid and os.waitpid(pid, 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < 0.75


# ---- parts


def target_of(server: Server) -> Target:
    return Target(*server.address)


def test_requests_are_golden_rows_that_a_server_scores_as_their_ids_say(bundle: Path, server: Server) -> None:
    read = read_bundle(bundle)
    scorer = Scorer(read)
    for form in ("rows", "columns"):
        for body, ids in zip(bodies(read.golden, 5, form), golden_feeds(read.golden, 5), strict=True):
            answer = httpx.post(f"{server.url}/score", content=body, headers={"content-type": "application/json"})
            np.testing.assert_allclose(answer.json()["scores"], scorer.run(*ids), atol=1e-6)


def test_spread_ids_reach_every_row_of_every_table_and_no_other(bundle: Path) -> None:
    read = read_bundle(bundle)
    candidates = np.concatenate([candidate for _, candidate in spread_feeds(read.encoder, 200)])
    for column in read.encoder.columns("candidate"):
        size = len(read.encoder.vocabulary(column.name))
        for place in range(column.first, column.first + column.width):
            assert set(candidates[:, place].tolist()) == set(range(size))


def test_driving_counts_what_the_server_counts(bundle: Path) -> None:
    load = Load(bodies(read_bundle(bundle).golden, 3), 7)
    with serving(bundle) as server:
        driven = [drive(target_of(server), load, 0.1) for _ in range(3)]
        counted = samples(httpx.get(f"{server.url}/metrics").text)
    assert counted['reaction_requests_total{route="/score",status="200"}'] == sum(one.requests for one in driven)
    assert all(one.requests >= 7 and one.p50 <= one.p99 and one.rate > 0 for one in driven)


def test_servers_take_turns_with_every_load_in_every_round(bundle: Path) -> None:
    golden = read_bundle(bundle).golden
    loads = {"small": Load(bodies(golden, 1), 2), "large": Load(bodies(golden, 50), 3)}
    ways = {"off": {"workers": 1}, "on": {"workers": 2, "coalesce": True}}
    with running_servers(bundle, ways) as servers:
        times = compare_servers(servers, loads, 0.1, rounds=3)
        for server in servers.values():
            family = [psutil.Process(server.process), *psutil.Process(server.process).children()]
            busy = sum(process.cpu_times().user + process.cpu_times().system for process in family)
            assert server.cpu_seconds() == pytest.approx(busy, abs=0.1)
        assert len(family) == 3  # the parent and two workers
    assert (times.ways, times.cases) == (("off", "on"), ("small", "large"))
    assert {len(rounds) for rounds in times.rates.values()} == {3}
    assert set(times.rates) == {(case, way) for case in loads for way in ("off", "on")}


def test_an_answer_that_is_no_score_ends_it_with_what_the_server_said(bundle: Path, server: Server) -> None:
    with pytest.raises(LoadError, match=r"expected status 200, got 422: .*unknown-field"):
        drive(target_of(server), Load([b'{"candidates":[{"nope":1}]}'], 2), 0.1)
    with pytest.raises(LoadError, match="expected answers, got"):
        drive(Target("127.0.0.1", 9), Load([b"{}"], 1), 0.1)


def test_a_server_that_does_not_start_ends_it_with_what_it_logged(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match="expected it to become ready, got exit status 1") as caught,
        running_servers(tmp_path / "none", {"one": {"workers": 1}}),
    ):
        pass
    events = [json.loads(line)["event"] for line in str(caught.value).splitlines()[1:]]
    assert events[-1] == "stopped" or "start_failed" in events


def test_the_crossover_is_measured_at_rising_lengths_in_both_forms(bundle: Path) -> None:
    points = measure_crossover(Scorer(read_bundle(bundle)), max_candidates=100, max_body_bytes=2000, seconds=0.5)
    for form in ("rows", "columns"):
        lengths = [point.body_bytes for point in points if point.form == form]
        assert lengths == sorted(lengths)
        assert 0 < max(lengths) <= 2000
    assert all(value > 0 for point in points for value in (*point.inline, *point.threaded, *point.blocked))
    assert {len(point.benefits) for point in points} == {9}
