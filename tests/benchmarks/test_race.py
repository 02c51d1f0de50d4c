"""A small race with real servers on real cores."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from benchmarks.serving.cells import unusable
from benchmarks.serving.client import AnswerError, exchange, scores_of, stages_between
from benchmarks.serving.contestants import Contestant, noop, service, tutorials
from benchmarks.serving.figures import typical
from benchmarks.serving.job import Job
from benchmarks.serving.machine import check_machine
from benchmarks.serving.payloads import BODIES, read_requests
from benchmarks.serving.processes import Ticks
from benchmarks.serving.profile import module_of
from benchmarks.serving.race import Bodies, Entry, Race, rotated

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processor time is read from /proc")


@pytest.fixture
def race(tmp_path: Path, job: Job) -> Race:
    (tmp_path / "requests").mkdir()
    return Race(tmp_path, Bodies(tmp_path / "requests", job), retries=0, say=lambda _line: None)


@pytest.mark.skipif(shutil.which("wrk") is None or check_machine() is not None, reason="needs wrk and two cores")
def test_the_service_and_its_no_op_are_measured_and_leave_nothing_behind(race: Race, built: Path) -> None:
    ours = service(built / "bundle")
    entry = Entry(ours, "one_row", "rows")
    with race.block("main", [ours]) as block:
        size = block.answer_bytes("service", "one_row", "rows")
        block.add(noop("one_row", "rows", size))
        entries = [one for one in block.takers("one_row") if one.form == "rows"]
        assert {one.label for one in entries} == {"service.rows", "noop_one_row.rows"}
        for one in entries:
            block.visit(one, 0, 1)
        block.visit(entry, 0, 1, rate=100.0, purpose="test")
        with block.under_load(entry, 1) as pid:
            assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
    assert not race.failed
    measured = next(record for record in race.records if record["entry"] == "service.rows")
    for record in race.records:
        assert record["errors"] == 0
        assert record["requests"] > 0
        assert record["cpu_us"] >= 0  # in ticks of 10 ms
    assert {"decode", "encode", "infer", "respond"} <= set(measured["stages_us"])


def test_a_server_that_answers_other_scores_cannot_take_part(race: Race, built: Path) -> None:
    class Liar(Job):
        def __call__(self, rows: object) -> list[float]:
            return [score + 0.01 for score in super().__call__(rows)]  # type: ignore[arg-type]

    race.bodies.job = Liar(built / "model.onnx")
    with race.block("main", [service(built / "bundle")]) as block:
        assert block.takers("one_row") == []
    assert "expected the model's 1 scores" in race.failed["service"]


def test_a_server_that_ends_cannot_take_part_and_its_last_words_are_kept(race: Race) -> None:
    command = ("python3", "-c", "raise SystemExit('no such licence')")
    broken = Contestant("broken", "model server", command, forms={"one_row": {"rows": "rows"}})
    with race.block("main", [broken]):
        pass
    assert "no such licence" in race.failed["broken"]


_TURNS_BAD = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, spec = int(sys.argv[1]), json.load(open(sys.argv[2]))
answered = 0

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global answered
        answered += 1
        bad = answered > spec["good"] and spec["fault"]
        scores = spec["scores"].get(self.rfile.read(int(self.headers["content-length"])).decode())
        answer = json.dumps({"scores": [0.123] if bad == "scores" else scores}).encode()
        self.send_response(500 if bad == "status" else 200)
        self.send_header("content-length", str(len(answer)))
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.mark.skipif(shutil.which("wrk") is None or check_machine() is not None, reason="needs wrk and two cores")
@pytest.mark.parametrize(
    ("fault", "reason"), [("status", "(status "), ("scores", "expected the model's 1 scores"), ("", "None")]
)
def test_a_server_that_turns_bad_under_load_gives_a_cell_that_is_not_used(race: Race, fault: str, reason: str) -> None:
    program, spec = race.scratch / "turns_bad.py", race.scratch / "spec.json"
    program.write_text(_TURNS_BAD)
    command = (sys.executable, str(program), "{port}", str(spec))
    entry = Entry(
        Contestant("bad", "model server", command, forms={"one_row": {"rows": "listwise"}}), "one_row", "rows"
    )
    bodies = [request.partition(b"\r\n\r\n")[2].decode() for request in read_requests(race.bodies.file(entry))]
    scores = {body: race.bodies.scores("one_row", place) for place, body in enumerate(bodies)}
    spec.write_text(json.dumps({"good": 20, "fault": fault, "scores": scores}))
    with race.block("main", [entry.contestant]) as block:
        block.visit(entry, 0, 1)
    assert not race.failed
    (record,) = race.records
    assert reason in str(unusable(record))
    assert (typical(race.records, ("one_row", "bad.rows"), "requests_per_second") is None) == bool(fault)


def test_a_server_that_answers_only_the_first_body_well_cannot_take_part(race: Race, built: Path) -> None:
    bodies = race.bodies
    bodies.scores("one_row", BODIES[1] - 1)[0] += 0.01
    with race.block("main", [service(built / "bundle")]):
        pass
    assert f"request {BODIES[1] - 1}: expected the model's 1 scores" in race.failed["service"]


def test_answers_of_all_kinds_are_read_and_others_refused() -> None:
    assert scores_of("application/json", b'{"scores":[0.5]}') == [0.5]
    assert scores_of("application/json", b'{"predictions":[[0.5],[0.25]]}') == [0.5, 0.25]
    assert scores_of("application/json", b'{"outputs":[{"data":[0.5]}]}') == [0.5]
    with pytest.raises(AnswerError, match="expected scores"):
        scores_of("application/json", b'{"error":"no"}')
    for broken in (b"<html>", b"[1, 2]", b'{"outputs":[]}', b'{"scores":["a"]}'):
        with pytest.raises(AnswerError, match="expected scores"):
            scores_of("application/json", broken)
    with pytest.raises(AnswerError):
        exchange(1, b"GET / HTTP/1.1\r\n\r\n")


def test_stages_are_the_difference_of_two_readings() -> None:
    before, after = {"decode": (1.0, 100.0)}, {"decode": (1.5, 200.0), "infer": (0.2, 100.0), "queue": (0.0, 0.0)}
    assert stages_between(before, after) == {"decode": pytest.approx(5000), "infer": pytest.approx(2000)}
    assert Ticks(5, 3) - Ticks(2, 1) == Ticks(3, 2)


def test_frames_are_counted_for_the_innermost_package_of_someone() -> None:
    stack = ["run (uvicorn/server.py:1)", "app (/x/site-packages/starlette/a.py:2)", "encode (service/wire.py:3)"]
    assert module_of(stack) == "service/wire"
    assert module_of(stack[:2]) == "starlette"
    assert module_of([*stack[:1], "put (queue.py:3)"]) == "uvicorn"
    assert module_of([*stack[:1], "run (asyncio/runners.py:1)"]) == "event loop, sockets, parser"
    assert module_of(["<module> (<string>:1)"]) == "standard library"


def test_every_entry_has_its_turn_to_be_first(built: Path) -> None:
    entries = [Entry(one, "one_row", "rows") for one in tutorials(built)] * 2
    assert [rotated(entries, turn)[0] for turn in range(3)] == [entries[0], entries[3], entries[2]]


@pytest.mark.skipif(shutil.which("wrk") is None or check_machine() is not None, reason="needs wrk and two cores")
def test_cells_are_measured_again_only_while_there_is_time_to_spare(
    race: Race, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.serving.cells.NOISE", -1.0)  # so that every attempt counts as disturbed
    lines: list[str] = []
    race.retries, race.spare, race.say = 1, 0.5, lines.append
    entry = Entry(tutorials(built / "model.onnx")[0], "one_row", "rows")
    with race.block("main", [entry.contestant]) as block:
        began = time.monotonic()
        block.visit(entry, 0, 1)
        assert race.spare < 0  # it was measured twice
        left = race.spare
        block.visit(entry, 1, 1)
        assert race.spare == left
    assert time.monotonic() - began > 3  # a warm-up and three cells of a second
