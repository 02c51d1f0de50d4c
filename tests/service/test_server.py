"""The server process: how it starts, refuses to, stops, and what it does with bytes that are no good HTTP."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from serving import ROOT, ROW_CANDIDATES, ROW_CONTEXT, build_bundle, environment, parse_log, serving, start

from service.bundle import BundleError
from service.versions.loading import load_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BODY = json.dumps({"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}).encode()


def head(length: int | None, *more: bytes) -> bytes:
    lines = [b"POST /score HTTP/1.1", b"Host: x", b"Content-Type: application/json", *more]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# ---- starting


def flip_a_byte(bundle: Path) -> str:
    path = bundle / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return "model.onnx: expected SHA-256"


def cut_the_graph(bundle: Path) -> str:
    path = bundle / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    return "bytes, got"


def remove_a_file(bundle: Path) -> str:
    (bundle / "golden.jsonl").unlink()
    return "golden.jsonl: expected a file"


def add_a_file(bundle: Path) -> str:
    (bundle / "extra.bin").write_bytes(b"x")
    return "extra.bin"


def break_the_manifest(bundle: Path) -> str:
    (bundle / "manifest.json").write_text("{", encoding="utf-8")
    return "manifest.json"


def rename_the_format(bundle: Path) -> str:
    path = bundle / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace("reaction-bundle", "other-bundle"), encoding="utf-8")
    return "expected format 'reaction-bundle', got 'other-bundle'"


def remove_it_all(bundle: Path) -> str:
    shutil.rmtree(bundle)
    return "expected the directory of a bundle, got nothing"


def fake_the_golden_scores(bundle: Path) -> str:
    shutil.rmtree(bundle)
    build_bundle(bundle, golden_offset=1e-3)
    return "pointwise: expected score"


@pytest.mark.parametrize("break_it", [remove_it_all, break_the_manifest, flip_a_byte, fake_the_golden_scores])
def test_a_bundle_that_is_not_what_was_exported_ends_the_start_with_one_clear_message(
    bundle: Path, tmp_path: Path, break_it: Callable[[Path], str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    message = break_it(broken)
    began = time.monotonic()
    outcome = run("--bundle", str(broken), "--port", "0", workers=1)
    assert time.monotonic() - began < 20
    assert outcome.returncode == 1
    assert "Traceback" not in outcome.stderr
    lines = [json.loads(line) for line in outcome.stderr.splitlines()]
    errors = [line for line in lines if line["level"] == "error"]
    assert [line["event"] for line in errors] == ["start_failed"]
    assert message in errors[0]["error"]
    assert str(broken) in errors[0]["bundle"]
    assert "ready" not in [line["event"] for line in lines]


@pytest.mark.parametrize("break_it", [cut_the_graph, remove_a_file, add_a_file, rename_the_format])
def test_no_other_change_to_a_bundle_is_loaded_either(
    bundle: Path, tmp_path: Path, break_it: Callable[[Path], str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    message = break_it(broken)
    with pytest.raises(BundleError, match=re.escape(message)):
        load_model(broken, threads=1)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((), {}, "error: REACTION_BUNDLE (or --bundle): expected a value, got none"),
        (
            ("--bundle", "b", "--port", "99999"),
            {},
            "error: REACTION_PORT: expected less than or equal to 65535, got '99999'",
        ),
        (
            ("--bundle", "b"),
            {"port": "tcp://10.0.0.1:80"},
            (
                "error: REACTION_PORT: expected a port number (this is a Kubernetes service link; set "
                "enableServiceLinks: false), got 'tcp://10.0.0.1:80'"
            ),
        ),
        (
            ("--bundle", "b"),
            {"log_level": "loud"},
            "error: REACTION_LOG_LEVEL: expected 'debug', 'info', 'warning' or 'error', got 'loud'",
        ),
    ],
)
def test_a_wrong_setting_ends_the_start_with_one_line(
    arguments: tuple[str, ...], settings: dict[str, str], message: str
) -> None:
    outcome = run(*arguments, **settings)
    assert outcome.returncode == 2
    assert outcome.stderr.strip() == message


def test_a_taken_port_ends_the_start_with_one_line(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = run("--bundle", str(bundle), "--port", str(taken.getsockname()[1]))
    assert outcome.returncode == 1
    assert [json.loads(line)["event"] for line in outcome.stderr.splitlines()] == ["plan", "start_failed"]
    assert "Address already in use" in outcome.stderr


def test_a_misspelt_variable_is_warned_about(bundle: Path) -> None:
    with serving(bundle, max_candidate=3) as running:
        pass
    warnings = [line for line in running.log if line["level"] == "warning"]
    assert [(line["variable"], line["meant"]) for line in warnings] == [
        ("REACTION_MAX_CANDIDATE", "REACTION_MAX_CANDIDATES")
    ]


def test_the_log_is_one_json_object_a_line_and_tells_what_is_served(bundle: Path) -> None:
    with serving(bundle, request_log_ratio=1.0) as running:
        httpx.post(f"{running.url}/score", content=BODY, headers={"content-type": "application/json"})
        httpx.post(f"{running.url}/score", content=b"{", headers={"content-type": "application/json"})
    events = [line["event"] for line in running.log]
    assert events == ["plan", "listening", "starting", "ready", "request", "request", "stopped"]
    assert running.log[2]["settings"]["request_log_ratio"] == 1.0
    assert running.log[3]["model"] == "tiny-1"
    assert [(line["status"], line["candidates"]) for line in running.log[4:6]] == [(200, 3), (400, None)]
    assert all(line["timestamp"].endswith("Z") and line["logger"].startswith("service") for line in running.log)


def test_the_factory_serves_under_a_plain_web_server(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", "--port", str(port)],
        cwd=ROOT,
        env=environment(bundle=bundle),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        transport = httpx.HTTPTransport(retries=8)  # while the server starts
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport) as client:
            for _ in range(200):
                answer = client.post("/score", content=BODY, headers={"content-type": "application/json"})
                if answer.status_code == 200:
                    break
                assert answer.status_code == 503
                time.sleep(0.02)
            assert len(answer.json()["scores"]) == 3
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({}, "error: REACTION_BUNDLE"), ({"bundle": "nowhere"}, "expected the directory of a bundle, got nothing")],
)
def test_the_factory_does_not_stay_up_without_settings_or_bundle(settings: dict[str, str], message: str) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", "--port", "0"],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert outcome.returncode != 0
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr


# ---- stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_in_good_order(bundle: Path, number: signal.Signals) -> None:
    running = start(bundle)
    with httpx.Client(base_url=running.url) as client:  # an idle connection does not hold it up
        client.get("/livez")
        began = time.monotonic()
        running.process.send_signal(number)
        _, rest = running.process.communicate(timeout=20)
    assert running.process.returncode == 0
    assert time.monotonic() - began < 10
    assert parse_log(rest)[-1]["event"] == "stopped"


def test_a_signal_during_the_start_ends_the_process_in_good_order(bundle: Path) -> None:
    running = start(bundle, wait=False)
    assert running.stop() == 0


def test_a_request_in_flight_is_answered_before_the_process_ends(bundle: Path) -> None:
    running = start(bundle)
    with socket.create_connection(running.address, timeout=10) as connection:
        connection.sendall(head(len(BODY)) + BODY[:10])
        time.sleep(0.3)  # the server has begun to read
        running.process.terminate()
        time.sleep(0.3)
        assert running.process.poll() is None
        connection.sendall(BODY[10:])
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 200 ")
    _, _ = running.process.communicate(timeout=20)
    assert running.process.returncode == 0


def test_a_request_that_is_cut_off_by_the_end_is_told_so(bundle: Path) -> None:
    running = start(bundle, shutdown_seconds=1, inline_body_bytes=0)
    with socket.create_connection(running.address, timeout=10) as connection:
        connection.sendall(head(len(BODY)) + BODY[:10])
        time.sleep(0.3)  # the server has begun to read
        running.process.terminate()
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"the service is stopping" in answer
    assert running.ended() == 0
    assert not [line for line in running.log if "exception" in line]
