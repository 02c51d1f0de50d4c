"""Coalescing: queued requests share calls of the model, and nobody can tell from the answers."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from serving import MODEL_ID, ROW_CANDIDATES, HandModel, samples, serving

from service.app import create_app
from service.bundle import read_bundle
from service.coalesce import Coalescer
from service.errors import ServiceError
from service.features.errors import RequestError
from service.pipeline import Pipeline, Work
from service.scorer import Scorer, ScorerError
from service.server import _Server, server_config
from service.settings import Settings
from service.sockets import listen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

JSON = {"content-type": "application/json"}


class CountingPipeline(Pipeline):
    """The real pipeline, which notes the size of every call of the model and can be made to fail or to wait."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(scorer, max_candidates=10_000)
        self.calls: list[int] = []
        self.plain = 0
        self.poison: int | None = None
        self.gate = threading.Event()
        self.gate.set()

    def run(self, work: Work) -> None:
        self.plain += 1
        super().run(work)

    def infer(self, context_ids: NDArray[np.int32], candidate_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        assert len(context_ids) in (1, len(candidate_ids))
        self.calls.append(len(candidate_ids))
        assert self.gate.wait(10)
        if self.poison is not None and (candidate_ids[:, 0] == self.poison).any():
            raise ScorerError("poisoned")
        return super().infer(context_ids, candidate_ids)


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Scorer:
    return Scorer(read_bundle(bundle))


@pytest.fixture
def pipeline(scorer: Scorer) -> CountingPipeline:
    return CountingPipeline(scorer)


def document(candidates: int, form: str = "rows", start: int = 0) -> dict[str, Any]:
    rows = [ROW_CANDIDATES[(start + place) % 3] for place in range(candidates)]
    context = {"user": f"u{1 + start % 3}", "hour": start % 12}
    if form == "pointwise":
        return {"candidates": [{**context, **row} for row in rows]}
    if form == "columns":
        return {"context": context, "candidates": {name: [row.get(name) for row in rows] for name in ROW_CANDIDATES[0]}}
    return {"context": context, "candidates": rows}


def by_hand(model: HandModel, request: dict[str, Any]) -> list[float]:
    candidates = request["candidates"]
    if isinstance(candidates, dict):
        length = len(next(iter(candidates.values())))
        candidates = [{name: values[k] for name, values in candidates.items()} for k in range(length)]
    return [model.score(request.get("context", {}), candidate) for candidate in candidates]


@dataclass
class Outcome:
    """What became of requests that were sent together."""

    works: list[Work]
    errors: list[BaseException | None]
    order: list[int] = field(default_factory=list)


def together(
    pipeline: Pipeline,
    bodies: Sequence[bytes],
    *,
    most: int = 64,
    in_flight: int | None = None,
    in_thread: bool = False,
) -> Outcome:
    """Run requests as a server does whose bodies were all there at the start of a turn."""
    works = [Work(body, request_id=f"r{k}", packed=False, answer_packed=False) for k, body in enumerate(bodies)]
    outcome = Outcome(works, [])

    async def everything() -> None:
        with ThreadPoolExecutor(1) as threads:
            count = len(bodies) if in_flight is None else in_flight
            coalescer = Coalescer(pipeline, most_candidates=most, in_flight=lambda: count, threads=threads)

            async def one(place: int) -> None:
                await (coalescer.run_in_thread if in_thread else coalescer.run)(works[place])
                outcome.order.append(place)

            tasks = [asyncio.ensure_future(one(place)) for place in range(len(works))]
            outcome.errors += [
                result if isinstance(result, BaseException) else None
                for result in await asyncio.gather(*tasks, return_exceptions=True)
            ]

    asyncio.run(everything())
    return outcome


def test_requests_of_one_turn_share_one_call_and_get_their_own_scores_in_order(
    pipeline: CountingPipeline, hand_model: HandModel
) -> None:
    requests = [document(1 + k % 3, ("rows", "columns", "pointwise")[k % 3], k) for k in range(9)]
    outcome = together(pipeline, [json.dumps(request).encode() for request in requests])
    assert pipeline.calls == [sum(1 + k % 3 for k in range(9))]
    assert outcome.order == list(range(9))
    for request, work in zip(requests, outcome.works, strict=True):
        answer = json.loads(work.answer)
        assert answer["request_id"] == work.request_id
        assert answer["scores"] == pytest.approx(by_hand(hand_model, request), abs=1e-6)


def test_a_request_alone_in_flight_takes_the_plain_path(pipeline: CountingPipeline) -> None:
    together(pipeline, [json.dumps(document(3)).encode()])
    assert (pipeline.plain, pipeline.calls) == (1, [])


def test_a_request_alone_in_its_turn_is_called_for_alone(pipeline: CountingPipeline, hand_model: HandModel) -> None:
    request = document(2)
    outcome = together(pipeline, [json.dumps(request).encode()], in_flight=5)
    assert pipeline.calls == [2]
    assert json.loads(outcome.works[0].answer)["scores"] == pytest.approx(by_hand(hand_model, request), abs=1e-6)


@pytest.mark.parametrize("in_thread", [False, True])
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["rows", "columns", "pointwise"])), max_size=12),
    most=st.integers(2, 12),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_however_requests_are_put_together_scores_are_those_of_each_alone_and_no_call_is_too_large(
    scorer: Scorer, sizes: list[tuple[int, str]], most: int, in_thread: bool
) -> None:
    bodies = [json.dumps(document(size, form, place)).encode() for place, (size, form) in enumerate(sizes)]
    counting = CountingPipeline(scorer)
    outcome = together(counting, bodies, most=most, in_flight=2, in_thread=in_thread)
    assert outcome.errors == [None] * len(bodies)
    assert outcome.order == list(range(len(bodies)))
    assert sum(counting.calls) == sum(size for size, _ in sizes)
    large = [size for size, _ in sizes if size > most]
    assert sorted(call for call in counting.calls if call > most) == sorted(large)
    plain = Pipeline(scorer, max_candidates=100)
    for work in outcome.works:
        alone = Work(work.body, request_id=work.request_id, packed=False, answer_packed=False)
        plain.run(alone)
        np.testing.assert_allclose(work.scores, alone.scores, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(work.context_ids, alone.context_ids)
        assert 0 < work.started <= work.decoded <= work.encoded <= work.inferred


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_bad_request_hurts_none_of_its_neighbours(
    pipeline: CountingPipeline, hand_model: HandModel, in_thread: bool
) -> None:
    good = json.dumps(document(2)).encode()
    bodies = [
        b"{",
        good,
        json.dumps({"candidates": [{"ad": 1.5}]}).encode(),
        good,
        b'{"candidates":[{"nope":1}]}',
        good,
    ]
    outcome = together(pipeline, bodies, in_thread=in_thread)
    assert [isinstance(error, (ServiceError, RequestError)) for error in outcome.errors] == [True, False] * 3
    for place in (1, 3, 5):
        assert json.loads(outcome.works[place].answer)["scores"] == pytest.approx(
            by_hand(hand_model, document(2)), abs=1e-6
        )


@pytest.mark.parametrize("in_thread", [False, True])
def test_when_the_shared_call_fails_each_request_is_scored_alone_and_only_the_guilty_one_fails(
    pipeline: CountingPipeline, hand_model: HandModel, in_thread: bool
) -> None:
    (pipeline.poison,) = hand_model.ids("ad", "é")
    bodies = [json.dumps(document(1, start=k)).encode() for k in range(3)]
    bodies.insert(1, json.dumps({"candidates": [{"ad": "é"}]}).encode())
    if in_thread:
        pipeline.gate.clear()  # the first is under way while the others queue up
        threading.Timer(0.3, pipeline.gate.set).start()
        bodies.insert(0, bodies[0])
    outcome = together(pipeline, bodies, in_thread=in_thread)
    guilty = 2 if in_thread else 1
    assert [type(error) for error in outcome.errors if error is not None] == [ScorerError]
    assert isinstance(outcome.errors[guilty], ScorerError)
    assert pipeline.calls == [1] * in_thread + [4, 1, 1, 1, 1]


def test_what_queues_while_a_thread_computes_shares_the_next_call_and_what_comes_alone_does_not_wait(
    pipeline: CountingPipeline,
) -> None:
    pipeline.gate.clear()
    threading.Timer(0.3, pipeline.gate.set).start()
    outcome = together(pipeline, [json.dumps(document(2, start=k)).encode() for k in range(6)], most=6, in_thread=True)
    # However many the first found behind it, those that came while it was held fill the next calls.
    assert pipeline.calls in ([2, 6, 4], [4, 6, 2], [6, 6])
    assert outcome.order == list(range(6))


def test_waiting_for_neighbours_is_counted_as_queueing_and_the_stages_add_up(pipeline: CountingPipeline) -> None:
    slow = [json.dumps(document(60, start=k)).encode() for k in range(8)]
    began = time.perf_counter()
    outcome = together(pipeline, slow, most=1000)
    assert pipeline.calls == [480]
    calls = {(work.encoded, work.inferred) for work in outcome.works}
    assert len(calls) == 1  # of each request, infer is the call it was part of
    (call,) = calls
    reading = [work.encoded - work.started for work in outcome.works]
    # All were read one after the other between the start and the call, so nobody's reading holds another's.
    assert sum(reading) <= call[0] - began
    assert all(work.started > began for work in outcome.works)


# ---- a real server


@pytest.fixture
def counted_server(bundle: Path, scorer: Scorer) -> Iterator[tuple[str, CountingPipeline, asyncio.AbstractEventLoop]]:
    """The real web server on a thread of this process, with coalescing on and calls of the model counted."""
    settings = Settings(bundle=bundle, port=0, coalesce=True)
    app = create_app(settings)
    server = _Server(server_config(app, settings), app)
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
        and counted[True][name] != pytest.approx(counted[False][name], rel=1e-6)
    }
    assert different == set()
