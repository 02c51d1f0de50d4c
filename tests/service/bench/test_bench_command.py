"""`python -m service bench`: what it prints, writes and draws, and what its exit status says."""

from __future__ import annotations

import io
import json
import re
import shlex
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from typer.testing import CliRunner
from virtual_network import MS, VirtualNetwork

from service.__main__ import cli
from service.bench import BenchError, Body, Objective, Point, Target, Verdict, highest_rate, judge, run_load
from service.bench.command import status
from service.bench.picture import draw
from service.bench.report import Report, make_report, read_report, write_report
from service.bench.table import answer_lines, print_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serving import Server

    from service.bench import LoadResult, SearchResult

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TARGET = Target("virtual", 80)
BODY = Body(b"{}", candidates=4)
OBJECTIVE = Objective(0.02)
# What a machine that is busy otherwise may make of a run: all of it is a measurement that was made and told.
MEASURED = {0, 3, 4}


def bench(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", "bench", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def measure(rate: float, seed: int, **network: Any) -> LoadResult:
    virtual = VirtualNetwork(lambda _: 5 * MS, **network)
    return run_load(TARGET, [BODY], rate, 20, seed=seed, network=virtual, give_up=1.0)


def report_of(points: Sequence[Point], search: SearchResult | None = None) -> Report:
    return make_report(TARGET, [BODY], points, form="rows", objective=OBJECTIVE, search=search)


@pytest.fixture(scope="module")
def found() -> Report:
    """A search on a simulated server that answers 200 requests a second."""
    search = highest_rate(measure, OBJECTIVE, start=20.0)
    return report_of(search.points, search)


@pytest.fixture(scope="module")
def stalled() -> Report:
    late = [judge(measure(50.0, n, stalls=[(9000 * MS, 9400 * MS)]), OBJECTIVE) for n in (1, 2)]
    own = judge(measure(80.0, 3, poll_cost=7 * MS), OBJECTIVE)
    return report_of([*late, own])


def test_a_run_prints_a_table_writes_a_document_and_draws_a_picture(
    server: Server, bundle: Path, tmp_path: Path
) -> None:
    out, drawn = tmp_path / "bench.json", tmp_path / "bench.svg"
    words = ["--bundle", bundle, "--candidates", 3, "--rates", "150,50", "--seconds", 0.5, "--warm-up", 0.1]
    done = bench(server.url, *words, "--repeats", 2, "--form", "columns", "--json", out, "--picture", drawn)
    assert done.returncode in MEASURED, done.stderr
    report = read_report(out)
    assert [rate.rate for rate in report.rates] == [50.0, 150.0]
    assert [run.rate for run in report.runs] == [50.0, 50.0, 150.0, 150.0]
    assert len({run.seed for run in report.runs}) == 4
    assert report.load.url == f"{server.url}/score"
    assert (report.load.candidates, report.load.form, report.load.bodies) == (3, "columns", 9)
    assert report.load.distinct_rows == 9
    assert "9 bodies of 9 distinct rows (columns, 3 candidates each" in done.stdout
    assert "Caveat: 9 distinct rows went round and round" in done.stdout
    for run in report.runs:
        assert run.errors == {}
        assert run.answered == run.requests == sum(count for _, count in run.histogram_ns)
    for rate in ("50.0", "150.0"):
        assert re.search(rf"^ *{re.escape(rate)} +2 ", done.stdout, re.MULTILINE), done.stdout
    assert done.stderr.count("requests/s for") == 4
    assert ET.fromstring(drawn.read_text(encoding="utf-8")).tag.endswith("svg")  # noqa: S314 - we drew it


def test_a_search_without_given_rates_ends_with_an_answer(server: Server, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    words = ["--bundle", bundle, "--candidates", 2, "--p99-ms", 2000, "--start", 200, "--ceiling", 200]
    done = bench(server.url, *words, "--seconds", 0.1, "--warm-up", 0.1, "--repeats", 1, "--json", out)
    assert done.returncode in MEASURED, done.stderr
    report = read_report(out)
    assert report.answer is not None
    if done.returncode == 0:
        assert report.answer.rate == 200.0
        assert report.answer.candidates_a_second == 400.0
        assert report.answer.limited_by == "ceiling"
        assert "Highest rate at p99 <= 2000 ms: at least 200.0 requests/s = 400 candidates/s" in done.stdout


def test_a_search_for_what_one_request_alone_does_not_hold_ends_with_its_first_rate_and_says_so(
    server: Server, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bench.json"
    words = ["--bundle", bundle, "--p99-ms", 0.001, "--start", 400, "--seconds", 0.1, "--warm-up", 0, "--json", out]
    done = CliRunner().invoke(cli, ["bench", server.url, *map(str, words)])
    assert done.exit_code in {3, 4}, done.stderr
    report = read_report(out)
    assert {run.rate for run in report.runs} == {400.0}
    assert report.answer is not None
    assert report.answer.rate is None
    assert re.search(r"none; .*: one request after the other takes \S+ ms \(median\), so no lower rate", done.stdout)


def test_every_row_of_a_table_is_sent_run_after_run(server: Server, tmp_path: Path) -> None:
    out, table = tmp_path / "bench.json", tmp_path / "rows.csv"
    table.write_text("ad\n" + "".join(f"ad{n}\n" for n in range(2000)), encoding="utf-8")
    words = ["--table", table, "--candidates", 1, "--rate", 400, "--seconds", 0.5, "--warm-up", 0, "--repeats", 3]
    done = bench(server.url, *words, "--json", out)
    assert done.returncode in MEASURED, done.stderr
    report = read_report(out)
    assert report.load.bodies == 2000
    # each run goes on where the last one ended
    assert report.load.distinct_rows == sum(run.requests for run in report.runs) > 300


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_sent(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.svg").mkdir()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for option in ("--json", "--picture"):
        for place in ("none/a.svg", "folder.svg", "file/a.svg", f"{'n' * 300}.svg"):
            # nobody listens at port 9: whatever is sent would end with another status
            words = ["http://127.0.0.1:9", "--bundle", bundle, option, tmp_path / place]
            done = CliRunner().invoke(cli, ["bench", *map(str, words)])
            assert (done.exit_code, done.stdout) == (2, ""), (option, place, done.stderr)
            assert re.fullmatch(rf"error: {re.escape(str(tmp_path / place))}: expected .*\n", done.stderr), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.svg"]


def test_a_write_that_fails_after_the_run_is_told_after_the_table(
    server: Server, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    (tmp_path / "a.json").write_text("before", encoding="utf-8")
    words = ["--bundle", bundle, "--rate", 100, "--seconds", 0.2, "--warm-up", 0, "--repeats", 1]
    words += ["--json", tmp_path / "a.json", "--picture", tmp_path / "a.svg"]
    done = CliRunner().invoke(cli, ["bench", server.url, *map(str, words)])
    assert done.exit_code == 2
    assert re.search(r"^ *100\.0 +1 ", done.stdout, re.MULTILINE), done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split()[1] for line in errors] == ["--json", "--picture"]
    assert all("No space left" in line for line in errors)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {"a.json": "before"}


def test_what_stands_in_the_way_is_told_with_a_status_of_its_own(server: Server, bundle: Path, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        refused = tmp_path / "bodies.jsonl"
        refused.write_text('{"candidates": [{"nonsense": 1}]}', encoding="utf-8")
        cases = [
            ((nobody, "--bundle", bundle), 1, f"{nobody}/score: expected a server that listens"),
            ((server.url, "--body", refused), 1, "expected status 200, got 422: .*nonsense"),
            ((f"{server.url}/none", "--bundle", bundle), 1, "got 404"),
            ((server.url,), 2, "there is nothing to send"),
            ((server.url, "--bundle", tmp_path), 2, "expected a bundle"),
            ((server.url, "--bundle", bundle, "--form", "xml"), 2, "--form xml: expected one of rows, columns"),
            ((server.url, "--bundle", bundle, "--rates", "1,x"), 2, "--rates 1,x: expected positive numbers"),
            ((server.url, "--bundle", bundle, "--rate", "5", "--rates", "5"), 2, "expected one of them"),
            *(
                ((server.url, "--bundle", bundle, "--header", header), 2, "expected 'name: value'")
                for header in ("x", "x: \u2603", "x y: 1", "x: a\nb", "\u00e9: 1")
            ),
            *(
                ((url, "--bundle", bundle), 1, "^error: .*: expected (http://HOST|a URL)")
                for url in ("http://[::1", "http://a/\u2603", "http://a/x y")
            ),
            (("http://a..b", "--bundle", bundle), 1, "expected a server that listens"),
            ((server.url, "--bundle", bundle, "--rate", "inf"), 2, "--rate inf: expected a finite number"),
            ((server.url, "--bundle", bundle, "--seconds", "inf"), 2, "--seconds inf: expected a finite number"),
            ((server.url, "--bundle", bundle, "--timeout", "1e300"), 2, "of at most 1,000,000"),
            ((server.url, "--bundle", bundle, "--rate", "1e12"), 2, "1e.12 .*at most 20,000,000 requests"),
            ((server.url, "--bundle", bundle, "--start", "1e12"), 2, "1e.12 .*at most 20,000,000 requests"),
            (
                (server.url, "--bundle", bundle, "--rates", "40,0.1", "--seconds", "0.1"),
                2,
                "rate 0.1 for 0.1 s: expected one measured request or more, got none",
            ),
            ((server.url, "--bundle", bundle, "--candidates", str(10**13)), 2, "expected a body of at most 64 MiB"),
            ((server.url, "--bundle", bundle, "--picture", "a.bmp"), 2, "a.bmp: expected an ending of .svg"),
        ]
        for words, expected, complaint in cases:
            done = CliRunner().invoke(cli, ["bench", *map(str, words)])
            assert done.exit_code == expected, (words, done.stderr)
            assert re.search(complaint, done.stderr), (words, done.stderr)
            assert done.stdout == ""
            assert done.stderr.count("error: ") == 1, done.stderr
            assert isinstance(done.exception, SystemExit), words
    # the same from a shell
    done_there = bench(server.url, "--body", refused)
    assert (done_there.returncode, done_there.stdout) == (1, "")
    assert "nonsense" in done_there.stderr
    assert "Traceback" not in done_there.stderr


def test_the_document_reads_back_as_it_was_and_another_version_is_refused(found: Report, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    write_report(path, found)
    assert read_report(path) == found
    document = json.loads(path.read_text(encoding="utf-8"))
    assert (document["format"], document["version"]) == ("reaction-bench", 1)
    path.write_text(json.dumps(document | {"version": 2}), encoding="utf-8")
    with pytest.raises(BenchError, match="expected reaction-bench 1, got reaction-bench 2"):
        read_report(path)
    path.write_text(json.dumps(document | {"more": 2}), encoding="utf-8")
    with pytest.raises(BenchError, match="more"):
        read_report(path)


def test_rates_pool_their_runs_and_leave_out_those_of_a_generator_that_was_late(stalled: Report) -> None:
    pooled, own = stalled.rates
    assert (pooled.runs, pooled.usable_runs, pooled.verdict) == (2, 2, Verdict.MISSED)
    assert pooled.latency.max == max(run.latency.max for run in stalled.runs[:2])
    assert pooled.p99_range == tuple(sorted(run.latency.p99 for run in stalled.runs[:2]))
    assert (own.usable_runs, own.verdict) == (0, Verdict.GENERATOR_BOUND)


def test_the_table_says_the_answer_stalls_and_what_was_not_counted(found: Report, stalled: Report) -> None:
    text = io.StringIO()
    print_report(found, Console(width=200, file=text))
    for rate in found.rates:
        assert re.search(rf"^ *{rate.rate:,.1f} +{rate.runs} .*{rate.verdict}", text.getvalue(), re.MULTILINE)
    assert found.answer is not None
    assert found.answer.rate is not None
    (line,) = answer_lines(found)
    assert line.startswith(f"Highest rate at p99 <= 20 ms: {found.answer.rate:,.1f} requests/s")
    assert f"{4 * found.answer.rate:,.0f} candidates/s" in line
    lines = list(answer_lines(stalled))
    assert sum(bool(re.search(r"nothing was answered for (38|39|40)\d ms", line)) for line in lines) == 2
    assert any(line.startswith("Generator-bound at 80.0 requests/s, 1 of 1 runs not counted") for line in lines)


def test_percentiles_of_a_run_that_was_given_up_are_told_as_lower_bounds() -> None:
    report = report_of([judge(measure(300.0, 1), OBJECTIVE)])
    (rate,) = report.rates
    assert rate.overloaded
    text = io.StringIO()
    print_report(report, Console(width=200, file=text))
    assert re.search(r"300\.0 .* >\S+ .* >\S+ .*missed, overloaded", text.getvalue())


def test_the_exit_status_tells_an_answer_from_a_bound_and_a_miss(found: Report, stalled: Report) -> None:
    assert status(found) == 0
    assert status(stalled) == 3
    missed = report_of([judge(measure(190.0, 1), OBJECTIVE)])
    assert status(missed) == 4
    assert status(report_of([judge(measure(20.0, 1), OBJECTIVE)])) == 0
    none = highest_rate(measure, Objective(0.004), start=20.0)
    assert status(report_of(none.points, none)) == 4
    assert re.search(r"none; no rate held it\.$", next(answer_lines(report_of(none.points, none))))
    bound = highest_rate(lambda rate, seed: measure(rate, seed, poll_cost=7 * MS), OBJECTIVE, start=20.0)
    assert status(report_of(bound.points, bound)) == 3


@pytest.mark.parametrize("ending", [".svg", ".png"])
def test_the_picture_names_its_axes_units_and_the_objective(found: Report, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"bench{ending}"
    draw(found, path)
    if ending == ".png":
        assert path.read_bytes().startswith(b"\x89PNG")
        return
    text = path.read_text(encoding="utf-8")
    for words in ("offered load, requests/s", "latency from the intended send time, ms", "p99.9", "p99 &lt;= 20 ms"):
        assert f"<!-- {words}" in text or words in text, words


def test_the_commands_of_the_readme_run(server: Server, bundle: Path, tmp_path: Path) -> None:
    commands = re.findall(r"^python -m service bench (.*)$", README, re.MULTILINE)
    assert commands
    for command in commands:
        words = shlex.split(command.replace("http://127.0.0.1:8080", server.url))
        places = {"bundles/clicks": bundle, "bench.json": tmp_path / "b.json", "bench.svg": tmp_path / "b.svg"}
        words = [str(places.get(word, word)) for word in words]
        if "--table" in words:
            table = Path(words[words.index("--table") + 1])
            words[words.index("--table") + 1] = str(tmp_path / table.name)
            (tmp_path / table.name).write_text("user,ad\nu1,a1\nu2,a2\n", encoding="utf-8")
        if not any(word.startswith("--rate") for word in words):
            words += ["--rate", "40"]  # the search has a test of its own
        words += ["--seconds", "0.2", "--warm-up", "0", "--repeats", "1"]
        done = CliRunner().invoke(cli, ["bench", *words])
        assert done.exit_code in MEASURED, (command, done.stderr)
