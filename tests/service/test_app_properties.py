"""Properties: nothing a client can send makes a 5xx, and the documented schema is what is really accepted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from serving import build_bundle, build_encoder

from service.documents.request_schema import request_type
from service.errors import MalformedBodyError
from service.features.errors import RequestError
from service.pipeline import Pipeline, Work
from service.versions.loading import load_model

if TYPE_CHECKING:
    import httpx

MAX_CANDIDATES = 5
NAMES = ("user", "hour", "site", "ad", "price", "tags", "colour", "position", "other", "")
OVER_THE_WIRE = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
numeric_text = st.from_regex(r"\A[+-]?[0-9]{0,4}\.?[0-9]{0,4}([eE][+-]?[0-9]{1,4})?\Z")
field_values = (
    st.none()
    | st.sampled_from(["", "u1", "a1", "x|y", 7, 1.0, True, "nan", "1e999", [], ["x", 3], ["x", None], {}, "\u2028"])
    | st.integers()
    | st.integers(min_value=-(10**650), max_value=10**650)
    | st.floats(allow_nan=False, allow_infinity=False)
    | numeric_text
    | st.text(max_size=5)
    | st.lists(st.text(max_size=3) | st.integers() | st.none(), max_size=4)
)
rows = st.dictionaries(st.sampled_from(NAMES), field_values, max_size=4)
columns = st.dictionaries(st.sampled_from(NAMES), st.lists(field_values, max_size=3) | st.none(), max_size=3)
even_columns = st.integers(1, 6).flatmap(
    lambda n: st.dictionaries(st.sampled_from(NAMES[:6]), st.lists(field_values, min_size=n, max_size=n), max_size=3)
)
requests = st.fixed_dictionaries(
    {"candidates": st.lists(rows, max_size=6) | columns | even_columns | json_values},
    optional={
        "context": st.none() | rows | json_values,
        "top_k": st.none() | st.integers(-1, 3) | st.booleans() | st.just(2.0),
        "request_id": st.none() | st.text(max_size=3) | st.from_regex(r"\A[!-~]{1,130}\Z"),
        "routing_key": st.none() | st.text(max_size=3) | st.text(min_size=250, max_size=260),
        "unknown": st.none(),
    },
)
# Mostly right requests, so that acceptance is tried as often as refusal.
good_values = {
    "user": st.none() | st.text() | st.integers(),
    "hour": st.none() | st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False),
    "site": json_values,
    "ad": st.none() | st.text() | st.integers(),
    "price": st.sampled_from(["", "3", "-.5", "1e3", "+7."]) | st.integers() | st.none(),
    "tags": st.none() | st.text() | st.integers() | st.lists(st.text() | st.integers()),
    "colour": json_values,
}


def some(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: good_values[name] for name in names})


good_requests = st.fixed_dictionaries(
    {
        "context": some("user", "hour", "site").filter(bool),
        "candidates": st.lists(some("ad", "price", "tags", "colour"), min_size=1, max_size=MAX_CANDIDATES),
    },
    optional={"top_k": st.integers(1, 9), "routing_key": st.text(min_size=1, max_size=5)},
) | st.fixed_dictionaries(
    {"candidates": st.lists(some(*good_values), min_size=1, max_size=MAX_CANDIDATES)},
    optional={"context": st.none() | st.just({})},
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    build_bundle(path)
    return Pipeline(load_model(path, threads=1).scorer, max_candidates=MAX_CANDIDATES)


def is_accepted(pipeline: Pipeline, body: bytes, *, packed: bool = False) -> bool:
    try:
        pipeline.run(Work(body, request_id="r", packed=packed, answer_packed=False))
    except (MalformedBodyError, RequestError):
        return False
    return True


DOCUMENTED = request_type(build_encoder(), max_candidates=MAX_CANDIDATES)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(request=requests | good_requests)
@example(request={"candidates": [{"price": "1e308"}]})
@example(request={"candidates": [{"price": "1e309"}]})
@example(request={"candidates": [{"price": True}]})
@example(request={"candidates": [{"ad": True}]})
@example(request={"candidates": [{"ad": 1.0}]})
@example(request={"candidates": [{"price": 10**400}]})
@example(request={"candidates": [{"ad": 10**640}]})
@example(request={"candidates": [{"ad": 10**640 - 1}]})
@example(request={"candidates": {"site": [1], "colour": [{}]}})
@example(request={"context": {"site": None}, "candidates": [{"user": "u1"}]})
@example(request={"context": {"site": None}, "candidates": {"colour": [0]}})
@example(request={"context": {}, "candidates": {}})
def test_the_documented_schema_accepts_and_refuses_the_same_bodies(pipeline: Pipeline, request: Any) -> None:
    body = json.dumps(request).encode()
    try:
        DOCUMENTED.validate_json(body)
    except ValidationError as error:
        documented, why = False, str(error)
    else:
        documented, why = True, ""
    assert is_accepted(pipeline, body) is documented, why


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(request=good_requests)
def test_a_good_request_is_accepted_in_json_and_in_msgpack(pipeline: Pipeline, request: Any) -> None:
    assert is_accepted(pipeline, json.dumps(request).encode())
    assert is_accepted(pipeline, json.dumps(request, ensure_ascii=False, indent=1).encode())
    try:
        packed = msgspec.msgpack.encode(request)
    except OverflowError:  # MessagePack has no integers beyond 64 bits
        return
    assert is_accepted(pipeline, packed, packed=True)


@OVER_THE_WIRE
@given(document=json_values | requests)
def test_no_json_document_makes_a_server_error(client: httpx.Client, document: Any) -> None:
    answer = client.post("/score", content=json.dumps(document), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 422)


@OVER_THE_WIRE
@given(body=st.binary(max_size=200), kind=st.sampled_from(["application/json", "application/msgpack"]))
def test_no_bytes_make_a_server_error(client: httpx.Client, body: bytes, kind: str) -> None:
    answer = client.post("/score", content=body, headers={"content-type": kind})
    assert answer.status_code in (200, 400, 422)


@OVER_THE_WIRE
@given(request=good_requests, place=st.integers(0, 10_000), byte=st.integers(0, 255), packed=st.booleans())
def test_no_change_of_one_byte_makes_a_server_error(
    client: httpx.Client, request: Any, place: int, byte: int, packed: bool
) -> None:
    try:
        body = bytearray(msgspec.msgpack.encode(request) if packed else json.dumps(request).encode())
    except OverflowError:
        body = bytearray(json.dumps(request).encode())
    body[place % len(body)] = byte
    kind = "application/msgpack" if packed else "application/json"
    answer = client.post("/score", content=bytes(body), headers={"content-type": kind})
    assert answer.status_code in (200, 400, 422)


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet=st.sampled_from('a:":\\ \n,{}[]'), max_size=12),
    twice=st.booleans(),
    nested=st.booleans(),
    space=st.sampled_from(["", " ", "\n", "\t", "\r"]),
)
@example(text=":", twice=True, nested=False, space="\n")
@example(text=":", twice=True, nested=False, space="\t")
@example(text=":", twice=True, nested=False, space="\r")
def test_a_repeated_member_is_found_whatever_the_text_around_it(
    pipeline: Pipeline, text: str, twice: bool, nested: bool, space: str
) -> None:
    value = json.dumps(text)
    members = [f'"user" : {value}', f'"site":{{"a":{value}}}' if nested else f'"site":{value}']
    members += [f'"us\\u0065r"{space}: {value}'] * twice
    row = "{" + ",".join(members) + "}"
    for body in (f'{{"candidates":[{row}]}}', f'{{"context":{row},"candidates":[{{}}]}}'):
        assert is_accepted(pipeline, body.encode()) is not twice
