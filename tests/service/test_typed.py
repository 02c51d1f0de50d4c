"""The short way from a body to ids gives what the general way gives, refuses nothing that it takes, and is taken."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import numpy as np
import pytest
from fields_of_all_kinds import FIELDS, VOCABULARIES
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.errors import MalformedBodyError
from service.features import (
    CategoricalField,
    FeatureEncoder,
    HashedVocabulary,
    NumericField,
    RequestError,
    Vocabulary,
)
from service.features import memo as memo_module
from service.features.memo import Memo
from service.features.plain import RefusedError
from service.features.structure import is_array
from service.typed import TypedReader
from service.wire import decode

ENCODER = FeatureEncoder(FIELDS, VOCABULARIES).for_serving({"hour", "price"})
READER = TypedReader(ENCODER)

values = (
    st.none()
    | st.sampled_from(["", "u1", "a1", "a2", "x|y", "x", 7, 1, 0, 1.0, True, False, 2.5, "2.5", "1e999"])
    | st.sampled_from([[], ["x", 3], ["x", True]])
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.lists(st.sampled_from(["x", "y", "", 7, 1.5, None]), max_size=4)
)
good = {
    "user": st.sampled_from([None, "", "u1", 7, "7", "nobody"]),
    "hour": st.sampled_from([None, 5, "13"]),
    "tags": st.sampled_from([None, "", "x|y", ["y", "x", "x", "y"], "unseen", 5]),
    "ad": st.sampled_from([None, "a1", "a2", 5]),
    "price": st.sampled_from([None, 0, 1.0, 2.5, "2.5", "", -0.0, 2**60]),
}


def rows_of(names: tuple[str, ...], *, whole: bool) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: good[name] for name in names}
    return st.fixed_dictionaries(fields) if whole else st.fixed_dictionaries({}, optional=fields)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly what can be scored: ranking or pointwise, rows or columns, gaps, ignored fields, now and then nonsense."""
    context = draw(st.none() | rows_of(("user", "hour"), whole=draw(st.booleans())))
    names: tuple[str, ...] = ("tags", "ad", "price") if context else ("user", "hour", "tags", "ad", "price")
    kept = names if draw(st.booleans()) else tuple(draw(st.sets(st.sampled_from(names), min_size=1)))
    candidates: Any = draw(st.lists(rows_of(kept, whole=draw(st.booleans())), min_size=1, max_size=4))
    if draw(st.booleans()):
        candidates = {name: [row.get(name) for row in candidates] for name in kept}
    if draw(st.integers(0, 3)) == 0:
        place = candidates if isinstance(candidates, dict) else candidates[-1]
        place[draw(st.sampled_from([*names, "position", "other"]))] = draw(values | st.lists(values, max_size=4))
    return {"candidates": candidates} | ({} if context is None else {"context": context})


def general(body: bytes, *, packed: bool) -> tuple[Any, Any]:
    """Ids by name, value by value where it matters: what the service did before there was a short way."""
    request = decode(body, packed=packed)
    context, candidates = request.context or None, request.candidates
    if isinstance(candidates, dict):
        rows = next(len(column) for column in candidates.values() if is_array(column))
        own = ENCODER.encode_columns("candidate", candidates, rows, shared=not context)
        if not context:
            return ENCODER.encode_columns("context", candidates, rows, root="candidates", shared=True), own
    else:
        own = ENCODER.encode_rows("candidate", candidates, shared=not context)
        if not context:
            return ENCODER.encode_rows("context", candidates, root="candidates", shared=True), own
    return ENCODER.encode_rows("context", [context]), own


def typed(body: bytes, *, packed: bool) -> tuple[Any, Any] | None:
    decoded = READER.decode(body, packed=packed)
    return None if decoded is None else READER.encode(decoded)


@settings(max_examples=600, deadline=None)
@example(
    # As many names in every row, and not the same: the first has none of the context's, the last one has.
    request={"candidates": [{"ad": None, "tags": None}, {"ad": None, "user": None}, {"ad": None, "user": "u1"}]},
    packed=False,
)
@given(request=requests(), packed=st.booleans())
def test_ids_are_those_of_the_general_way_wherever_the_short_one_is_taken(
    request: dict[str, Any], packed: bool
) -> None:
    body = msgspec.msgpack.encode(request) if packed else json.dumps(request).encode()
    found = typed(body, packed=packed)
    if found is None:
        return
    for got, wanted in zip(found, general(body, packed=packed), strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == np.int32
        assert got.flags.c_contiguous


CONTEXT = {"user": "u1", "hour": 3}
ROW = {"tags": "x|y", "ad": "a1", "price": 2.5}


@pytest.mark.parametrize(
    "request_",
    [
        {"context": CONTEXT, "candidates": [ROW]},
        {"context": CONTEXT, "candidates": [ROW] * 3, "top_k": 2, "request_id": "r", "routing_key": "u"},
        {"candidates": [ROW] * 3, "context": {"user": None}},
        {"context": CONTEXT, "candidates": {name: [value] * 3 for name, value in ROW.items()}},
        {"context": CONTEXT, "candidates": [{"ad": "a1"}, ROW, {}]},
        {"context": CONTEXT, "candidates": {"ad": ["a1", 7, None, "context:"]}},
        {"candidates": [CONTEXT | ROW]},
        {"candidates": [CONTEXT | ROW, {"user": "x:y", "tags": ["x"]}], "context": None},
        {"candidates": {name: [value] for name, value in (CONTEXT | ROW).items()}},
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_can_be_scored_takes_the_short_way(request_: dict[str, Any], packed: bool) -> None:
    body = msgspec.msgpack.encode(request_) if packed else json.dumps(request_, indent=1).encode()
    found = typed(body, packed=packed)
    assert found is not None
    for got, wanted in zip(found, general(body, packed=packed), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    "text",
    [
        '{"context": {"user": "u1"}, "candidates": [{"ad": "a1", "ad": "a2", "price": 1, "tags": null}]}',
        '{"context": {"user": "u1"}, "candidates": [{"ad": "a1", "ad": "a2", "tags": null}, {"ad": "a1"}]}',
        '{"context": {"user": "u1", "user": "u2"}, "candidates": {"ad": ["a1"]}}',
        '{"context": {"user": "u1"}, "candidates": {"ad": ["a1"], "ad": ["a2"], "price": [1]}}',
        '{"candidates": [{"ad": "a1"}], "top_k": 1, "top_k": 2}',
    ],
)
def test_a_name_that_is_there_twice_is_never_scored(text: str) -> None:
    with pytest.raises(MalformedBodyError, match="twice"):
        typed(text.encode(), packed=False) or general(text.encode(), packed=False)


@pytest.mark.parametrize("value", [True, False, 1.0, 1e308 * 10, ["a1"], {"a": 1}])
def test_a_categorical_field_takes_no_number_that_equals_one_it_knows(value: object) -> None:
    encoder = FeatureEncoder([CategoricalField("n", "candidate")], {"n": Vocabulary(["1", "0"])})
    reader = TypedReader(encoder)
    for warm in (1, "1", 0, value):
        body = json.dumps({"candidates": [{"n": warm}]}).encode()
        decoded = reader.decode(body, packed=False)
        ids = None if decoded is None else reader.encode(decoded)
        assert (ids is None) == (warm is value)


def test_a_boolean_is_no_number_after_the_number_it_equals_was_remembered() -> None:
    encoder = FeatureEncoder([NumericField("n", "candidate", (0.5,))], {"n": Vocabulary(["0", "1"])})
    reader = TypedReader(encoder)
    for values_, taken in (([1, 0] * 20, True), ([1] * 39 + [True], False)):
        decoded = reader.decode(json.dumps({"candidates": {"n": values_}}).encode(), packed=False)
        assert (decoded is not None and reader.encode(decoded) is not None) == taken


def test_numbers_that_never_repeat_and_those_that_do_get_the_ids_of_bisection() -> None:
    edges = tuple(float(edge) for edge in np.linspace(-2, 2, 37))
    vocabulary = Vocabulary.fit({str(bucket): 1 for bucket in range(38)})
    encoder = FeatureEncoder([NumericField("n", "candidate", edges)], {"n": vocabulary})
    generator = random.Random(5)
    for turn in range(200):
        column: list[object] = [generator.gauss(0, 1) if turn % 3 else generator.randrange(-3, 4) for _ in range(50)]
        column[7], column[8] = None, str(column[8])
        ids = encoder.plain.columns("candidate", [column], 50)[:, 0].tolist()
        assert ids == [
            0 if raw is None else vocabulary.id(str(sum(edge <= float(str(raw)) for edge in edges))) for raw in column
        ]


def test_what_is_remembered_stays_bounded_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo_module, "_MOST", 100)
    table = Memo(lambda raw: str(raw).encode(), numbers=True)
    for number in range(1000):
        assert table[number] == str(number).encode()
        assert table["x" * number] == b"x" * number
        assert len(table) <= 100
    assert not any(isinstance(key, str) and len(key) > 64 for key in table)


def test_a_value_without_ids_is_refused_and_left_to_the_general_way() -> None:
    with pytest.raises(RefusedError):
        ENCODER.plain.columns("candidate", [["x"], [1.5], [1], [1]], 1)
    body = json.dumps({"context": {"user": "u1"}, "candidates": [{"ad": 1.5}]}).encode()
    assert typed(body, packed=False) is None
    with pytest.raises(RequestError, match=r"candidates\[0\]\.ad"):
        general(body, packed=False)


@pytest.mark.parametrize("vocabulary", [Vocabulary(["7", "x"], packed=True), HashedVocabulary(10)])
def test_what_was_asked_before_changes_nothing(vocabulary: Vocabulary | HashedVocabulary) -> None:
    encoder = FeatureEncoder([CategoricalField("user", "candidate")], {"user": vocabulary})
    for _ in range(3):
        assert encoder.plain.row("candidate", [7]).tolist() == [[vocabulary.id("7")]]
        for refused in (7.0, -0.0, 1e300):
            with pytest.raises(RefusedError):
                encoder.plain.row("candidate", [refused])
            with pytest.raises(RefusedError):
                encoder.plain.columns("candidate", [["x", refused]], 2)
