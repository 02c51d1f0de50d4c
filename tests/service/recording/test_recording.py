"""Requests that real servers record, and what a replay says of them."""

from __future__ import annotations

import base64
import gzip
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import psutil
import pytest
from processes import count_all, wait_for, workers_of
from serving import MODEL_ID, ROOT, ROW_CANDIDATES, ROW_CONTEXT, Server, build_bundle, environment, serving
from tensors_on_the_wire import body as tensor_body
from tensors_on_the_wire import tensor

from service.bundle import read_bundle
from service.metrics import ServiceMetrics
from service.pipeline import Pipeline, Work
from service.recording.files import RecordFiles
from service.recording.recorder import Recorder
from service.recording.records import VERSION, RecordsError, encode_header, files_of, read_file
from service.scorer import Scorer
from service.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from service.recording.records import Recorded

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="several processes on one socket, limits of others")
SECRET = "a-key-of-a-client-0123456789"
CANDIDATES = [*ROW_CANDIDATES, {"ad": "é"}]
BODIES = [
    {"context": {**ROW_CONTEXT, "hour": hour}, "candidates": CANDIDATES, "request_id": f"r-{hour}", "top_k": 2}
    for hour in range(10)
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bundles")
    build_bundle(place / "one")
    build_bundle(place / "other", model_id="tiny-2", seed=8)
    return place


@pytest.fixture(scope="module")
def recorded(bundles: Path) -> Path:
    """What two workers recorded of requests in every form; they had ended by then."""
    place = bundles / "recorded"
    settings = {"record_directory": place, "record_ratio": 1, "api_keys": SECRET, "workers": 2}
    with serving(bundles / "one", **settings) as server:
        with ExitStack() as stack:
            both = connected_to_each_worker(server, stack)
            for number, body in enumerate(BODIES):
                c = both[number % 2]
                assert c.post("/score", json=body).status_code == 200
                packed, typed = msgspec.msgpack.encode(body), {"content-type": "application/msgpack"}
                assert c.post("/score", content=packed, headers=typed).status_code == 200
                assert c.post("/score", content=b"{}").status_code == 415
                if number == 0:
                    inputs = [tensor("user", "BYTES", ["u1"]), tensor("ad", "BYTES", ["a1", "a2"])]
                    tensors, headers = tensor_body(inputs, binary=["ad"], parameters={"binary_data_output": True})
                    answer = c.post(f"/v2/models/{MODEL_ID}/infer", content=tensors, headers=headers)
                    assert answer.status_code == 200, answer.text
                    zipped = {"content-type": "application/json", "content-encoding": "gzip"}
                    assert c.post("/score", content=gzip.compress(msgspec.json.encode(body)), headers=zipped).is_success
        key = {"authorization": f"Bearer {SECRET}"}

        def written() -> bool:
            text = httpx.get(f"{server.url}/metrics", headers=key).text
            return 'reaction_recorded_requests_total{outcome="written"} 22.0' in text

        wait_for(written, "everything is written")
    return place


def connected_to_each_worker(server: Server, stack: ExitStack) -> list[httpx.Client]:
    """A kept connection to every worker: the kernel chooses who accepts one, so as many are opened as it takes."""
    found: dict[int, httpx.Client] = {}
    for _ in range(200):
        headers = {"authorization": f"Bearer {SECRET}", "cookie": "c=1"}
        client = stack.enter_context(httpx.Client(base_url=server.url, headers=headers))
        port = client.get("/livez").extensions["network_stream"].get_extra_info("client_addr")[1]
        for worker in workers_of(server):
            if any(one.raddr and one.raddr.port == port for one in psutil.Process(worker).net_connections("tcp")):
                found.setdefault(worker, client)
        if len(found) == len(workers_of(server)):
            return list(found.values())
    pytest.fail("one worker accepts no connection")


def replay(*words: str | Path) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "service", "replay", *map(str, words), "--json"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def rows(place: Path) -> list[Recorded]:
    return [record for path in files_of(place) for _, record in read_file(path) if record is not None]


@needs_linux
def test_each_worker_writes_a_file_of_its_own_and_what_it_holds_is_what_was_sent(recorded: Path) -> None:
    assert len(files_of(recorded)) == 2
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files_of(recorded))
    records = rows(recorded)
    assert len(records) == 22
    as_text = [r.body for r in records if r.content_type == "application/json" and not r.compressed]
    assert sorted(as_text) == sorted(httpx.Request("POST", "http://a", json=body).content for body in BODIES)
    packed = [r.body for r in records if r.content_type == "application/msgpack"]
    assert sorted(packed) == sorted(map(msgspec.msgpack.encode, BODIES))
    (inferred,) = [r for r in records if r.path != "/score"]
    assert (inferred.path, inferred.header_length is not None) == (f"/v2/models/{MODEL_ID}/infer", True)
    (inflated,) = [r for r in records if r.compressed]
    assert msgspec.json.decode(inflated.body) == BODIES[0]
    assert {r.request_id for r in records} >= {body["request_id"] for body in BODIES}
    assert {(r.model, r.precision) for r in records} == {(MODEL_ID, "float32")}
    assert all(abs(r.time - time.time()) < 600 and 0 < r.seconds < 60 for r in records)


@needs_linux
def test_no_secret_of_a_request_s_head_is_recorded(recorded: Path) -> None:
    everything = b"".join(path.read_bytes() for path in files_of(recorded))
    for secret in (SECRET.encode(), base64.b64encode(SECRET.encode()).rstrip(b"=")[:-2], b"authorization", b"cookie"):
        assert secret not in everything.lower()


@needs_linux
def test_a_replay_against_the_same_bundle_differs_by_nothing_in_process_and_over_http(
    recorded: Path, bundles: Path
) -> None:
    in_process = replay(recorded, "--bundle", bundles / "one", "--tolerance", 0)
    with serving(bundles / "one") as server:
        over_http = replay(recorded, "--url", server.url, "--tolerance", "0")
    for status, report in (in_process, over_http):
        assert status == 0, report
        assert (report["requests"], report["files"], report["unscorable"], report["incomplete_lines"]) == (22, 2, 0, 0)
        (version,) = report["versions"]
        assert (version["requests"], version["differing"], version["largest_difference"]) == (22, 0, 0.0)


@needs_linux
def test_a_replay_against_another_bundle_tells_the_difference_there_is(recorded: Path, bundles: Path) -> None:
    model, other = build_bundle(bundles / "again"), build_bundle(bundles / "third", model_id="tiny-3", seed=8)
    status, report = replay(recorded, "--bundle", bundles / "other")
    differences = [
        abs(model.score(body["context"], row) - other.score(body["context"], row))  # type: ignore[arg-type]
        for body in BODIES
        for row in CANDIDATES
    ]
    assert status == 1
    (version,) = report["versions"]
    assert version["model"] == MODEL_ID
    assert report["beyond_tolerance"] == version["beyond_tolerance"] == 22
    assert version["largest_difference"] == pytest.approx(max(differences), abs=1e-5)
    assert replay(recorded, "--bundle", bundles / "other", "--tolerance", "1")[0] == 0


def test_a_replay_says_which_requests_another_schema_cannot_score_and_why(tmp_path: Path, bundles: Path) -> None:
    file = tmp_path / "requests.jsonl"
    for_another = {**line_of(b'{"candidates":[{"ad":"a1","shape":"round"}]}', "r-2")}
    lines = [line_of(b'{"candidates":[{"ad":"a1"}]}', "r-1"), for_another]
    file.write_bytes(encode_header(1) + b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    status, report = replay(file, "--bundle", bundles / "one", "--tolerance", "1")
    assert (status, report["requests"], report["unscorable"]) == (1, 2, 1)
    (example,) = report["examples"]
    assert "line 3, request r-2" in example
    assert "shape" in example


def line_of(body: bytes, request_id: str) -> dict[str, Any]:
    facts = {"path": "/score", "content_type": "application/json", "model": "m", "precision": "float32"}
    return {
        **facts,
        "time": 1.0,
        "request_id": request_id,
        "manifest_sha256": "0",
        "scores": [0.5],
        "text": body.decode(),
    }


def test_a_half_written_last_line_is_left_out_and_any_other_fault_is_refused(tmp_path: Path, bundles: Path) -> None:
    file = tmp_path / "requests.jsonl"
    line = json.dumps(line_of(b'{"candidates":[{"ad":"a1"}]}', "r-1")).encode() + b"\n"
    for torn in (encode_header(1) + line + line[:-9], encode_header(1) + line + line[:-1]):
        file.write_bytes(torn)
        status, report = replay(file, "--bundle", bundles / "one", "--tolerance", "1")
        assert (status, report["requests"], report["incomplete_lines"]) == (0, 1, 1)
    for start_of_header in (0, 1, len(encode_header(1)) - 1):
        file.write_bytes(encode_header(1)[:start_of_header])
        if start_of_header:
            assert list(read_file(file)) == [(1, None)]
    for content, complaint in (
        (encode_header(1) + line[:-9] + b"\n" + line, "line 2"),
        (encode_header(1).replace(str(VERSION).encode(), b"9", 1) + line, "reaction-requests 1"),
        (line, "line 1"),
        (b"", "line 1"),
        (b"\x1f\x8b\x00\xff" * 100, "line 1"),
    ):
        file.write_bytes(content)
        with pytest.raises(RecordsError, match=complaint):
            list(read_file(file))
    status, told = replay(file, "--bundle", bundles / "one")
    assert (status, "error:" in told) == (2, True)


@needs_linux
def test_a_full_disk_loses_records_that_are_counted_and_no_request(bundles: Path, tmp_path: Path) -> None:
    place = tmp_path / "recorded"
    body = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}
    with serving(bundles / "one", workers=2, record_directory=place, record_ratio=1) as server:
        limits = {worker: resource.prlimit(worker, resource.RLIMIT_FSIZE) for worker in workers_of(server)}
        for worker in limits:  # a file that may not grow: what a full disk is to a write
            resource.prlimit(worker, resource.RLIMIT_FSIZE, (2000, limits[worker][1]))
        send(server, body, 60)
        wait_for(lambda: sum(outcomes(server).values()) == 60, "each is counted")
        failed = outcomes(server)["failed"]
        assert failed >= 40
        for worker, limit in limits.items():
            resource.prlimit(worker, resource.RLIMIT_FSIZE, limit)
        send(server, body, 10)
        wait_for(lambda: sum(outcomes(server).values()) == 70, "each is counted")
        assert outcomes(server) == {"written": 70 - failed, "failed": failed, "lagging": 0}
    assert len(rows(place)) == 70 - failed
    assert sum(line["event"] == "recording_failed" for line in server.log) <= 2


def send(server: Server, body: dict[str, Any], times: int) -> None:
    with httpx.Client(base_url=server.url) as client:
        assert {client.post("/score", json=body).status_code for _ in range(times)} == {200}


def outcomes(server: Server) -> dict[str, float]:
    counts = count_all(server)
    return {
        name: counts[f'reaction_recorded_requests_total{{outcome="{name}"}}']
        for name in ("written", "failed", "lagging")
    }


@needs_linux
def test_a_disk_that_stands_still_holds_up_no_request_and_no_end(bundles: Path, tmp_path: Path) -> None:
    scorer = Scorer(read_bundle(bundles / "one"))
    settings = Settings(bundle=bundles / "one", record_directory=tmp_path, record_ratio=1)
    metrics = ServiceMetrics()
    recorder = Recorder.open(settings, metrics.cells)
    assert recorder is not None
    reading, recorder._files._file = os.pipe()  # takes a little, then nothing until somebody reads
    work = Work(json.dumps(BODIES[0]).encode().ljust(1 << 20), request_id="r", packed=False, answer_packed=False)
    Pipeline(scorer, max_candidates=10).run(work)
    for _ in range(100):
        recorder.offer(scorer, "/score", work, 0.0)
    counts = metrics.recorded()
    assert 100 - counts["lagging"] in range(15, 20), "what fits into the queue, and a batch that is on its way"
    recorder.close()
    assert recorder._beside.thread.is_alive()
    while recorder._beside.thread.is_alive():
        os.read(reading, 1 << 20)
    os.close(reading)
    assert sum(metrics.recorded().values()) == 100


def test_files_are_bounded_in_size_and_number_whoever_wrote_them(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a record")
    one, two = (RecordFiles(tmp_path, most_bytes=1000, most_files=4) for _ in range(2))
    for _ in range(50):
        one.append(b"a" * 299 + b"\n")
        two.append(b"b" * 299 + b"\n")
        assert len(files_of(tmp_path)) <= 4
        assert max(path.stat().st_size for path in files_of(tmp_path)) < 1000 + 300
    assert (tmp_path / "notes.txt").exists()
    for path in files_of(tmp_path):
        path.unlink()
    one.append(b"c\n")
    assert [path.read_bytes().endswith(b"c\n") for path in files_of(tmp_path)] == [True], "begun anew, not lost"


def test_nothing_is_recorded_unless_asked_for_and_a_directory_that_cannot_be_is_refused_at_the_start(
    bundles: Path, tmp_path: Path
) -> None:
    with serving(bundles / "one", record_directory=tmp_path / "none") as server:
        send(server, {"candidates": [{"ad": "a1"}]}, 3)
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    for settings in ({"record_directory": tmp_path / "file"}, {}):
        done = subprocess.run(
            [sys.executable, "-m", "service", "--bundle", str(bundles / "one"), "--port", "0"],
            cwd=ROOT,
            env=environment(record_ratio=1, **settings),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr.startswith("error: REACTION_RECORD_")) == (2, True)
