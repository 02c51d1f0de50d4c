"""Coalescing in a real server: connections share calls, and nobody can tell from answers or counts."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from coalescing import CountingPipeline, by_hand, document
from serving import MODEL_ID, HandModel, samples, serving

from service.app import create_app
from service.bundle import read_bundle
from service.edge.fast_lane import FastLane
from service.scorer import Scorer
from service.server import _Server, server_config
from service.settings import Settings
from service.workers.sockets import listen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Scorer:
    return Scorer(read_bundle(bundle))


@pytest.fixture
def counted_server(bundle: Path, scorer: Scorer) -> Iterator[tuple[str, CountingPipeline, asyncio.AbstractEventLoop]]:
    """The real web server on a thread of this process, with coalescing on and calls of the model counted."""
    settings = Settings(bundle=bundle, port=0, coalesce=True)
    app = create_app(settings)
    lane = FastLane(app.runtime, app.hot)
    server = _Server(server_config(app, settings, lane), app.runtime, lane)
    counting = CountingPipeline(scorer)
    loops: list[asyncio.AbstractEventLoop] = []

    async def main(listener: Any) -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        config = server.config
        thread = threading.Thread(
            target=lambda: asyncio.Runner(loop_factory=config.get_loop_factory()).run(main(listener))
        )
        thread.start()
        try:
            while app.runtime.model is None:
                time.sleep(0.01)
            coalescer = app.runtime.model.coalescer
            assert coalescer is not None
            coalescer._pipeline = counting
            yield f"127.0.0.1:{port}", counting, loops[0]
        finally:
            server.should_exit = True
            thread.join(20)


def test_connections_of_a_real_server_share_calls_and_a_single_one_never_does(
    counted_server: tuple[str, CountingPipeline, asyncio.AbstractEventLoop], hand_model: HandModel
) -> None:
    address, counting, loop = counted_server
    requests = [document(1 + k % 3, ("rows", "columns", "pointwise")[k % 3], k) for k in range(16)]
    connections = [http.client.HTTPConnection(address, timeout=10) for _ in requests]
    for connection in connections:
        connection.connect()
        connection.request("GET", "/livez")
        assert connection.getresponse().read()
    loop.call_soon_threadsafe(time.sleep, 0.3)  # whatever comes meanwhile is there when the loop looks again
    for connection, request in zip(connections, requests, strict=True):
        connection.request("POST", "/score", json.dumps(request), JSON)
    for connection, request in zip(connections, requests, strict=True):
        answer = json.loads(connection.getresponse().read())
        assert answer["scores"] == pytest.approx(by_hand(hand_model, request), abs=1e-6)
    assert sum(counting.calls) + counting.plain >= 16
    assert max(counting.calls) > 3, counting.calls
    counting.calls.clear()
    counting.plain = 0
    for request in requests:
        connections[0].request("POST", "/score", json.dumps(request), JSON)
        connections[0].getresponse().read()
    assert (counting.plain, counting.calls) == (16, [])
    for connection in connections:
        connection.close()


def load(url: str, bodies: Sequence[bytes], headers: dict[str, str], clients: int) -> list[bytes]:
    """Send bodies over many connections at once; answers in the order of the bodies."""
    answers: list[bytes] = [b""] * len(bodies)

    def one(client: int) -> None:
        with httpx.Client(base_url=url) as connection:
            for place in range(client, len(bodies), clients):
                answers[place] = connection.post("/score", content=bodies[place], headers=headers).content

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(clients)))
    return answers


def test_answers_are_the_same_bytes_apart_from_the_last_digit_of_scores_and_metrics_count_the_same(
    bundle: Path,
) -> None:
    forms = ("rows", "columns", "pointwise")
    requests = [{**document(1 + k % 3, forms[k % 3], k), "request_id": f"r{k}", "top_k": 2} for k in range(60)]
    requests += [{"candidates": [{"ad": 1.5}], "request_id": "bad"}] * 8
    packed = {"content-type": "application/msgpack"}
    answers: dict[bool, list[bytes]] = {}
    counted: dict[bool, dict[str, float]] = {}
    for coalesce in (False, True):
        with serving(bundle, coalesce=coalesce, coalesce_candidates=16, inline_body_bytes=400) as running:
            answers[coalesce] = load(running.url, [json.dumps(r).encode() for r in requests], JSON, 8)
            answers[coalesce] += load(running.url, [msgspec.msgpack.encode(r) for r in requests], packed, 8)
            counted[coalesce] = samples(httpx.get(f"{running.url}/metrics").text)
    for pair in zip(answers[False], answers[True], strict=True):
        if b'"status":422' in pair[0]:
            assert pair[0] == pair[1]
            continue
        alone, shared = ((json.loads if body[:1] == b"{" else msgspec.msgpack.decode)(body) for body in pair)
        # A vectorised sigmoid rounds a value by its place in the vector.
        assert shared.pop("scores") == pytest.approx(alone.pop("scores"), abs=1e-6)
        assert shared == alone
    names = [
        f'reaction_stage_seconds_count{{model="{MODEL_ID}",outcome="ok",stage="{stage}"}}'
        for stage in ("queue", "decode", "encode", "infer", "respond", "total")
    ]
    for got in counted.values():
        assert {got[name] for name in names} == {120.0}
        sums = [got[name.replace("_count", "_sum")] for name in names]
        assert sum(sums[:-1]) == pytest.approx(sums[-1], rel=1e-6)
        assert min(sums) > 0
    different = {
        name
        for name in counted[False]
        if name.startswith("reaction_")
        and "seconds" not in name
        and "readyz" not in name
        and "repeats" not in name  # that is by the order in which they come
        and counted[True][name] != pytest.approx(counted[False][name], rel=1e-6)
    }
    assert different == set()
