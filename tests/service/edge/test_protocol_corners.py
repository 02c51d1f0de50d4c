"""The lane's corners: who sends far ahead, answers that fail, ends and stops of connections, what is remembered."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from protocols import GOOD, HEAD, connected, serving_protocols

from service.routes.score import ScoreEndpoint

if TYPE_CHECKING:
    from pathlib import Path

    from service.edge.fast_lane import FastLane
    from service.pipeline import Work


def test_a_client_that_sends_far_ahead_is_read_on_when_its_last_request_has_begun(bundle: Path) -> None:
    async def go() -> None:
        make, facts = await serving_protocols(bundle)
        protocol, transport = connected(make)
        wire = HEAD % (len(GOOD), b"") + GOOD
        protocol.data_received(wire * 5 + wire[:-5])
        waiting = []
        for _ in range(30):
            waiting.append(len(protocol.pipeline))
            assert protocol.flow.read_paused == bool(protocol.pipeline)
            await asyncio.sleep(0)
        assert sorted(set(waiting)) == [0, 1, 2, 3, 4, 5]
        protocol.data_received(wire[-5:] + wire)
        while len(transport.written) < 7:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
        assert not protocol.flow.read_paused
        assert dict(facts.app.runtime.metrics.requests()) == {("/score", 200): 7.0}

    asyncio.run(asyncio.wait_for(go(), 10))


def test_an_answer_that_fails_ends_its_own_connection_and_no_other(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError("no answer")

    def headers(_self: Any, work: Work) -> list[tuple[bytes, bytes]]:
        return fail() if work.request_id == "bad" else []

    monkeypatch.setattr(ScoreEndpoint, "refuse", fail)
    monkeypatch.setattr(ScoreEndpoint, "answer_headers", headers)
    bad = json.dumps({"candidates": [{}], "request_id": "bad"}).encode()

    async def go(*turns: list[bytes]) -> list[list[tuple[int, bool]]]:
        make, _ = await serving_protocols(bundle)
        ends = []
        for turn in turns:
            transports = []
            for body in turn:
                protocol, transport = connected(make)
                protocol.data_received(HEAD % (len(body), b"") + body)
                transports.append(transport)
            await asyncio.sleep(0)
            ends.append([(len(transport.written), transport.closing) for transport in transports])
        return ends

    ended, answered = (0, True), (1, False)
    together = [GOOD, b"{", GOOD, bad, GOOD]
    expected = [[ended], [ended], [answered, ended, answered, ended, answered]]
    assert asyncio.run(go([b"{"], [bad], together)) == expected


def test_what_comes_after_the_last_request_of_a_connection_does_not_spoil_its_answer(bundle: Path) -> None:
    async def go() -> list[list[int]]:
        make, _ = await serving_protocols(bundle)
        statuses = []
        for _ in range(2):  # the second time its head might be known
            protocol, transport = connected(make)
            protocol.data_received(HEAD % (len(GOOD), b"connection: close\r\n") + GOOD)
            protocol.data_received(b"what is no request")
            await asyncio.sleep(0)
            assert transport.closing
            statuses.append([int(answer[9:12]) for answer in transport.written])
        return statuses

    assert asyncio.run(go()) == [[200], [200]]


@pytest.mark.parametrize("name", [b"Authorization", b"cookie", b"X-Api-Key"])
def test_of_a_head_with_what_lets_a_client_in_only_a_digest_is_kept(bundle: Path, name: bytes) -> None:
    async def go(more: bytes) -> tuple[int, bool, str]:
        make, _ = await serving_protocols(bundle)
        protocol, transport = connected(make)
        head = HEAD % (len(GOOD), more)
        for _ in range(2):
            protocol.data_received(head + GOOD)
            await asyncio.sleep(0)
        lane: FastLane = protocol._lane
        kept = repr({key: (known.head.named, known) for key, known in lane._heads.items()})
        return len(transport.written), lane.recall(head) is not None, kept

    for more in (b"x-other: hush\r\n", name + b": hush\r\n"):
        answers, recalled, kept = asyncio.run(go(more))
        assert (answers, recalled) == (2, True)
        assert ("hush" in kept) == more.startswith(b"x-other")


def test_a_body_that_grows_too_long_for_the_lane_during_a_stop_is_the_last_of_its_connection(bundle: Path) -> None:
    async def go() -> tuple[bytes, bool]:
        make, _ = await serving_protocols(bundle, inline_body_bytes=100)
        protocol, transport = connected(make)
        head = HEAD.replace(b"content-length: %d", b"transfer-encoding: chunked") % b""
        protocol.data_received(head + b"%x\r\n" % len(GOOD) + GOOD[:50])
        protocol.shutdown()
        protocol.data_received(GOOD[50:] + b"\r\n0\r\n\r\n")
        while not transport.written:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.001)
        return b"".join(transport.written), transport.closing

    answer, closing = asyncio.run(go())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close\r\n" in answer
    assert closing


def test_trailers_are_no_headers_and_do_not_ask_for_a_100_continue(bundle: Path) -> None:
    chunked = (
        b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n"
    )
    wire = chunked % (len(GOOD), GOOD) + b"content-encoding: gzip\r\nexpect: 100-continue\r\nx-secret: 1\r\n\r\n"

    async def go(piece: int) -> tuple[list[bytes], list[tuple[bytes, bytes]], bool]:
        make, _ = await serving_protocols(bundle)
        protocol, transport = connected(make)
        for at in range(0, len(wire), piece):
            protocol.data_received(wire[at : at + piece])
        while not transport.written:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
        return transport.written, protocol.headers, protocol.expect_100_continue

    for piece in (len(wire), 7):
        written, headers, expects = asyncio.run(asyncio.wait_for(go(piece), 10))
        assert written[0].startswith(b"HTTP/1.1 200 ")
        assert [name for name, _ in headers] == [b"host", b"content-type", b"transfer-encoding"]
        assert not expects
