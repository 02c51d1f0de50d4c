"""Coalescing: queued requests share calls of the model, and nobody can tell from the answers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
from coalescing import CountingPipeline, by_hand, document
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.bundle import read_bundle
from service.coalesce import Coalescer
from service.errors import ServiceError
from service.features.errors import RequestError
from service.pipeline import Pipeline, Work
from service.scorer import Scorer, ScorerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from serving import HandModel


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Scorer:
    return Scorer(read_bundle(bundle))


@pytest.fixture
def pipeline(scorer: Scorer) -> CountingPipeline:
    return CountingPipeline(scorer)


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
    calls = {(round(work.encoded + work.lag, 9), round(work.inferred + work.lag, 9)) for work in outcome.works}
    assert len(calls) == 1  # of each request, infer is the call it was part of
    (call,) = calls
    reading = [work.encoded - work.started for work in outcome.works]
    # All were read one after the other between the start and the call, so nobody's reading holds another's.
    assert sum(reading) <= call[0] - began
    assert all(work.started > began and work.lag > 0 for work in outcome.works)
