"""The lane inside one process: who takes it and who does not, on both event loops and under TLS; and its stages."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvloop
from protocols import GOOD, HEAD, connected, ready, serving_protocols
from serving import ROW_CANDIDATES, ROW_CONTEXT, HandModel

from service.app import create_app
from service.edge.fast_lane import FastLane, Known
from service.pipeline import Work
from service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def certificate(folder: Path) -> tuple[str, str]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(command, check=True, capture_output=True)
    return key, cert


async def conversation(bundle: Path, wires: list[bytes], tls: tuple[str, str] | None) -> tuple[list[bytes], int]:
    """Answers to requests sent one after the other on one connection, and how many of them the application saw."""
    make, facts = await serving_protocols(bundle)
    served = client = None
    if tls is not None:
        served, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        served.load_cert_chain(tls[1], tls[0])
        client.load_verify_locations(tls[1])
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, ssl=served)
    host = {"server_hostname": "localhost"} if tls else {}
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=client, **host)
    answers = []
    for wire in wires:
        writer.write(wire)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answers.append(head + await reader.readexactly(length))
    assert facts.state.total_requests == len(wires)
    writer.close()
    await writer.wait_closed()
    server.close()
    facts.app.runtime.stop()
    return answers, facts.seen


def test_who_has_gone_is_written_nothing_and_counts_as_gone(bundle: Path) -> None:
    async def go(wire: bytes) -> tuple[list[bytes], dict[tuple[str, int], float], int]:
        make, facts = await serving_protocols(bundle)
        protocol, transport = connected(make)
        protocol.data_received(wire)
        transport.closing = True
        for _ in range(10):
            await asyncio.sleep(0)
        return transport.written, dict(facts.app.runtime.metrics.requests()), facts.seen

    for more, seen in ((b"", 0), (b"accept-encoding: gzip\r\nexpect: 100-continue\r\n", 1)):
        written, requests, saw = asyncio.run(go(HEAD % (len(GOOD), more) + GOOD))
        assert written == []
        assert requests == {("/score", 499): 1.0}
        assert saw == seen


def test_while_a_client_does_not_read_its_requests_wait(bundle: Path) -> None:
    async def go() -> None:
        make, facts = await serving_protocols(bundle)
        protocol, transport = connected(make)
        wire = HEAD % (len(GOOD), b"") + GOOD
        protocol.data_received(wire)
        await asyncio.sleep(0)
        assert (len(transport.written), facts.seen) == (1, 0)
        protocol.pause_writing()
        protocol.data_received(wire)
        for _ in range(10):
            await asyncio.sleep(0)
        assert (len(transport.written), facts.seen) == (1, 1)
        protocol.data_received(wire)
        assert protocol.flow.read_paused
        protocol.resume_writing()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(transport.written) == 3
        assert not protocol.flow.read_paused

    asyncio.run(go())


def test_a_short_request_behind_a_long_one_is_answered_after_it(bundle: Path) -> None:
    async def go() -> list[str]:
        make, _ = await serving_protocols(bundle, inline_body_bytes=1000)
        protocol, transport = connected(make)
        long = json.dumps({"candidates": [{}] * 5000, "request_id": "long"}).encode()
        for body in (GOOD, long, GOOD):
            protocol.data_received(HEAD % (len(body), b"") + body)
            await asyncio.sleep(0)
        while len(transport.written) < 3:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.001)
        return [json.loads(answer.partition(b"\r\n\r\n")[2])["request_id"] for answer in transport.written]

    ids = asyncio.run(go())
    assert ids[1] == "long"
    assert ids[0] != ids[2]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_usual_requests_never_reach_the_application_and_others_do(
    bundle: Path,
    tmp_path: Path,
    hand_model: HandModel,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    tls: bool,
) -> None:
    usual = HEAD % (len(GOOD), b"") + GOOD
    other_length = HEAD % (len(GOOD) + 1, b"") + GOOD + b" "
    unusual = HEAD % (len(GOOD), b"content-encoding: gzip\r\n") + GOOD
    refused = HEAD % (1, b"") + b"{"
    wires = [usual, usual, other_length, refused, unusual, usual, other_length]
    with asyncio.Runner(loop_factory=new_loop) as runner:
        answers, seen = runner.run(conversation(bundle, wires, certificate(tmp_path) if tls else None))
    assert seen == 1
    assert [int(answer[9:12]) for answer in answers] == [200, 200, 200, 400, 400, 200, 200]
    wanted = [hand_model.score(ROW_CONTEXT, row) for row in ROW_CANDIDATES]
    for answer in (answers[0], answers[1], answers[2], answers[5], answers[6]):
        np.testing.assert_allclose(json.loads(answer.partition(b"\r\n\r\n")[2])["scores"], wanted, atol=1e-6)


class NotingStages:
    """Says what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def read(self, work: Work) -> None:
        self.calls.append(f"read {work.request_id}")
        if work.request_id == "bad":
            raise ValueError("bad")
        work.started, work.decoded, work.encoded = 1.0, 2.0, 3.0
        work.context_ids = work.candidate_ids = np.zeros((1, 1), np.int32)

    def infer(self, _context: Any, _candidates: Any) -> Any:
        self.calls.append("infer")
        return np.zeros(1, np.float32)

    def write(self, work: Work) -> None:
        self.calls.append(f"write {work.request_id}")

    def run(self, work: Work) -> None:
        self.calls.append(f"run {work.request_id}")


def test_all_are_read_then_all_scored_then_all_written_and_a_bad_one_is_out_by_itself() -> None:
    stages = NotingStages()
    answered: list[tuple[Work, int]] = []

    def make_work(body: bytes, _request_id: str, _head: Any) -> Work:
        return Work(body, request_id=body[:4].strip().decode(), packed=False, answer_packed=False)

    def count(_model: object, work: Work, status: int, _received: float, ended: float) -> None:
        assert ended > work.received
        stages.calls.append(f"count {work.request_id}")
        answered.append((work, status))

    endpoint: Any = SimpleNamespace(
        inline_candidates=500,
        make_work=make_work,
        answer_headers=lambda _work: [],
        refuse=lambda *_: (400, [], b""),
        count=count,
    )
    runtime: Any = SimpleNamespace(settings=Settings(bundle="b"), new_request_id=lambda: "r", model=None, keys=None)
    lane = FastLane(runtime, lambda _path: None)
    head: Any = SimpleNamespace(deadline_seconds=None)
    known = Known(endpoint, SimpleNamespace(canary=None), stages, head, keep_alive=True)  # type: ignore[arg-type]

    async def together() -> None:
        state = SimpleNamespace(default_headers=[])
        protocol: Any = SimpleNamespace(
            loop=asyncio.get_running_loop(), server_state=state, finish=lambda _head, _body: True
        )
        for body in (b"a", b"bad", b"b", b"long".ljust(40_000)):
            lane.enter(protocol, known, body)
        assert stages.calls == []
        await asyncio.sleep(0)
        stages.calls.append("next turn")
        lane.enter(protocol, known, b"c")
        await asyncio.sleep(0)

    asyncio.run(together())
    assert stages.calls[:8] == ["read a", "read bad", "read b", "infer", "infer", "write a", "write b", "run long"]
    assert stages.calls[8:] == ["count bad", "count a", "count b", "count long", "next turn", "run c", "count c"]
    assert [(work.request_id, status) for work, status in answered] == [
        ("bad", 400), ("a", 200), ("b", 200), ("long", 200), ("c", 200),
    ]  # fmt: skip
    for work, _ in answered[1:3]:  # what others took is no stage's
        assert work.lag > 0
        assert work.encoded < work.inferred < work.encoded + 1.0


def test_the_lane_is_closed_where_requests_share_calls_of_the_model(bundle: Path) -> None:
    app = create_app(Settings(bundle=bundle, coalesce=True))

    async def admitted() -> Known | None:
        await ready(app.runtime)
        headers = [(b"content-type", b"application/json")]
        return FastLane(app.runtime, app.hot).admit(b"POST", b"/score", headers, keep_alive=True)

    assert asyncio.run(admitted()) is None
    app.runtime.stop()
