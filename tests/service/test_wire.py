"""Answers as bytes, rankings, and the doors that lead to the hot route."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from serving import MODEL_ID, ROW_CANDIDATES, ROW_CONTEXT

from service.app import create_app
from service.errors import ModelOutputError
from service.settings import load_settings
from service.wire import AnswerWriter, rank

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from service.app import ServiceApp

scores_lists = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40)
WRITER = AnswerWriter('m"\\é')


@given(scores_lists, st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128))
def test_a_written_answer_reads_back_as_the_same_float32(scores: list[float], request_id: str) -> None:
    array = np.array(scores, np.float32)
    text = WRITER.json(request_id, array, None)
    answer = json.loads(text)
    assert (answer["model"], answer["request_id"]) == ('m"\\é', request_id)
    assert np.array(answer["scores"], np.float32).tobytes() == array.tobytes()
    longest = max(len(np.format_float_scientific(score, unique=True)) for score in array)
    assert len(text) <= 60 + 2 * len(request_id) + len(scores) * (longest + 3)


@given(scores_lists, st.integers(1, 50))
def test_written_and_packed_answers_say_the_same(scores: list[float], top_k: int) -> None:
    array = np.array(scores, np.float32)
    ranking = rank(array, top_k)
    written = json.loads(WRITER.json("r", array, ranking))
    packed = msgspec.msgpack.decode(WRITER.msgpack("r", array, ranking))
    assert packed.keys() == written.keys()
    assert (packed["ranking"], packed["request_id"]) == (written["ranking"], "r")
    assert packed["scores"] == array.tolist()


@pytest.mark.parametrize("size", [1, 15, 16, 65_535, 65_536, 70_000])
def test_packed_answers_of_every_length_can_be_read(size: int) -> None:
    array = np.linspace(0, 1, size, dtype=np.float32)
    assert msgspec.msgpack.decode(WRITER.msgpack("r", array, None))["scores"] == array.tolist()


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=60), st.integers(1, 70))
def test_a_ranking_is_pythons_stable_sort_by_falling_score(scores: list[float], top_k: int) -> None:
    best = sorted(range(len(scores)), key=lambda place: -scores[place])
    assert rank(np.array(scores, np.float32), top_k).tolist() == best[:top_k]


def asked(app: Any, path: str, served: ServiceApp, root_path: str = "") -> tuple[httpx.Response, str]:
    """The answer to a scoring request, and the scrape after it, in process: which door is taken is the point."""

    async def ask() -> tuple[httpx.Response, str]:
        async with served.router.lifespan_context(served), asyncio.timeout(20):
            transport = httpx.ASGITransport(app, root_path=root_path)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                while (await client.get(path.replace("/score", "/readyz"))).status_code == 503:  # noqa: ASYNC110 - asked from outside
                    await asyncio.sleep(0.01)
                answer = await client.post(path, json={"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES})
                return answer, (await client.get(path.replace("/score", "/metrics"))).text

    return asyncio.run(ask())


def test_the_documented_route_leads_to_the_same_answer_as_the_short_cut(bundle: Path) -> None:
    app = create_app(load_settings(bundle=bundle))

    async def long_way(scope: Scope, receive: Receive, send: Send) -> None:
        await FastAPI.__call__(app, scope, receive, send)

    by_framework, _ = asked(long_way, "/score", app)
    app = create_app(load_settings(bundle=bundle))
    short, _ = asked(app, "/score", app)
    assert by_framework.status_code == short.status_code == 200
    assert by_framework.json()["scores"] == short.json()["scores"]
    assert by_framework.headers.keys() == short.headers.keys()


def test_behind_a_prefix_requests_are_answered_and_counted_once(bundle: Path) -> None:
    app = create_app(load_settings(bundle=bundle))
    answer, scrape = asked(app, "/api/score", app, root_path="/api")
    assert (answer.status_code, answer.json()["model"]) == (200, MODEL_ID)
    assert 'reaction_requests_total{route="/score",status="200"} 1.0' in scrape
    assert 'route="other"' not in scrape


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("write", [WRITER.json, WRITER.msgpack])
def test_a_score_that_is_not_finite_is_never_answered(write: Callable[..., bytes], score: float) -> None:
    with pytest.raises(ModelOutputError, match="not finite"):
        write("r", np.array([0.5, score], np.float32), None)
