"""Candidates are counted before they are built: what a body may cost is in proportion to its length."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.edge.counted import refuse_too_many
from service.errors import MemberError
from service.pipeline import Pipeline, Work
from service.versions.loading import load_model

if TYPE_CHECKING:
    from pathlib import Path

MOST = 20
texts = st.sampled_from(["", "{", '"{', "\\{", '{"candidates":[{},{}', "\\", "é{"])
rows = st.lists(
    st.dictionaries(st.sampled_from(["a", "b"]), texts | st.none() | st.just({"ignored": [{}, {"x": {}}]})),
    max_size=2 * MOST,
)


@given(
    candidates=rows | st.dictionaries(texts, st.lists(texts)),
    context=st.none() | st.just({"a": "{", "b": [{}] * 9}),
    times=st.sampled_from([1, 9]),
)
def test_no_body_within_the_limit_is_refused_and_none_far_beyond_it_passes(
    candidates: Any, context: Any, times: int
) -> None:
    if isinstance(candidates, list) and times > 1:
        candidates = candidates * times
    document = {"request_id": "{{{", "candidates": candidates, "context": context}
    count = len(candidates) if isinstance(candidates, list) else 0
    for packed, body in ((False, json.dumps(document).encode()), (True, msgspec.msgpack.encode(document))):
        try:
            refuse_too_many(body, MOST, packed=packed)
            assert count <= (MOST if packed else 2 * MOST + 64)
        except MemberError:
            assert count > MOST


@pytest.mark.parametrize("body", [b"", b"{", b"\x81", b"\xff" * 100, b'"' * 100, b"\x81\xaacandidates" + b"\xdd" * 50])
def test_bytes_that_are_no_body_are_left_to_the_decoder(body: bytes) -> None:
    refuse_too_many(body, 3, packed=False)
    refuse_too_many(body, 3, packed=True)


@pytest.mark.parametrize("end", [b"", b"\\", b'"'])
def test_a_text_without_an_end_is_read_once(end: bytes) -> None:
    # From every quotation mark in it anew, this would take hours.
    refuse_too_many(b"{" * 200 + b'"' + b'\\"' * 1_000_000 + end, MOST, packed=False)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("first", [{}, 1])
def test_a_body_of_a_million_empty_candidates_takes_memory_in_proportion(
    bundle: Path, packed: bool, first: object
) -> None:
    pipeline = Pipeline(load_model(bundle, threads=1).scorer, max_candidates=10_000)
    document = {"candidates": [first] + [{}] * 1_000_000}
    body = msgspec.msgpack.encode(document) if packed else msgspec.json.encode(document)
    work = Work(body, request_id="r", packed=packed, answer_packed=packed)
    tracemalloc.start()
    try:
        with pytest.raises(MemberError, match="at most 10000"):
            pipeline.run(work)
        assert tracemalloc.get_traced_memory()[1] < 12 * len(body)
    finally:
        tracemalloc.stop()
