"""Bad requests, over real sockets: each gets the status, the place and the reason, and never a 5xx."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

if TYPE_CHECKING:
    import httpx

PROBLEM = "urn:problem-type:reaction:"
CANDIDATES = "one of candidates, context, request_id, routing_key, top_k"
FORM = "an array of objects, or an object of arrays"


def post(client: httpx.Client, body: bytes | str, kind: str = "application/json") -> httpx.Response:
    return client.post("/score", content=body, headers={"content-type": kind})


def refusal(answer: httpx.Response) -> dict[str, Any]:
    """The problem document, after what all have in common was checked."""
    document: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == answer.status_code
    assert document["type"].startswith(PROBLEM)
    assert document["title"]
    assert document["detail"]
    return document


MALFORMED = {
    b"": ("byte 0", "a document", "nothing"),
    b" ": ("byte 1", "a whole document", "the body ends inside of the document"),
    b"{": ("byte 1", "a whole document", "the body ends inside of the document"),
    b'{"candidates":[{"ad":"a1"}': ("byte 26", "a whole document", "the body ends inside of the document"),
    b'{"candidates":[{"price":NaN}]}': ("byte 24", "a number", "NaN"),
    b'{"candidates":[{"price":Infinity}]}': ("byte 24", "a number", "Infinity"),
    b'{"candidates":[{"price":-Infinity}]}': ("byte 24", "a number", "-Infinity"),
    b'{"candidates":[{"price":NaNs}]}': ("byte 24", "a valid document", "invalid character"),
    b"Infinity": ("byte 0", "a number", "Infinity"),
    b'{"candidates":[{"price":01}]}': ("byte 25", "a valid document", "invalid number"),
    b'{"candidates":[{"ad":"\x01"}]}': ("byte 22", "a valid document", "invalid character"),
    b'{"candidates":[{}]}}': ("byte 19", "a valid document", "trailing characters"),
    b"{'candidates':[{}]}": ("byte 1", "a valid document", "object keys must be strings"),
    b'\xef\xbb\xbf{"candidates":[{}]}': ("byte 0", "a valid document", "invalid character"),
    b'{"candidates":[{"ad":"\xff"}]}': ("byte 22", "UTF-8 text", "text is not UTF-8"),
    b'{"candidates":[{"\xc3":"a"}]}': ("byte 17", "UTF-8 text", "text is not UTF-8"),
    b'{"candidates":[{"ad":"\xed\xa0\x80"}]}': ("byte 22", "UTF-8 text", "text is not UTF-8"),
    rb'{"candidates":[{"ad":"\ud800"}]}': ("byte 22", "Unicode text", "a surrogate escape has no partner"),
    rb'{"candidates":[{"ad":"\\ud800 \ud83d\ude00 \uD800"}]}': (
        "byte 43",
        "Unicode text",
        "a surrogate escape has no partner",
    ),
    b'{"candidates":[{"ad":"a","ad":"a"}]}': ("ad", "each name once", "it twice"),
    b'{"candidates":[{}],"candidates":[{}]}': ("candidates", "each name once", "it twice"),
    b'{"context":{"user":"a:","user":":"},"candidates":[{}]}': ("user", "each name once", "it twice"),
    rb'{"candidates":{"ad":["12:30"],"\u0061d":[":"]}}': ("ad", "each name once", "it twice"),
}


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body)[2:-1][:40])
def test_a_body_that_is_no_document_is_400_and_says_at_which_byte(client: httpx.Client, body: bytes) -> None:
    answer = post(client, body)
    problem = refusal(answer)
    assert answer.status_code == 400
    assert problem["type"] == PROBLEM + "malformed-body"
    assert (problem["where"], problem["expected"], problem["got"]) == MALFORMED[body]
    assert problem["request_id"] == answer.headers["x-request-id"]


MISSHAPEN = {
    "[]": ("body", "an object", "an array of 0 elements"),
    "null": ("body", "an object", "null"),
    '"candidates"': ("body", "an object", "the text 'candidates'"),
    "[[[[": ("body", "an object", "an array"),
    '{"candidates":[[': ("candidates[0]", "an object", "an array"),
    '{"candidates":[{}],"top_k":0': (
        "body",
        "a scoring request",
        "one with a fault (Expected `int` >= 1 - at `$.top_k`)",
    ),
    "{}": ("candidates", FORM, "nothing"),
    '{"candidates":null}': ("candidates", FORM, "null"),
    '{"candidates":"a1"}': ("candidates", FORM, "the text 'a1'"),
    '{"candidates":[{},3]}': ("candidates[1]", "an object", "the integer 3"),
    '{"candidates":[[]]}': ("candidates[0]", "an object", "an array of 0 elements"),
    '{"candidates":{"ad":["a1"],"price":1}}': ("candidates.price", "an array", "the integer 1"),
    '{"candidates":{"ad":null}}': ("candidates.ad", "an array", "null"),
    '{"context":[],"candidates":[{}]}': ("context", "an object or null", "an array of 0 elements"),
    '{"candidates":[{}],"topk":2}': ("topk", CANDIDATES, "an unknown member"),
    '{"candidates":[{}],"top_k":0}': ("top_k", "an integer of at least 1", "the integer 0"),
    '{"candidates":[{}],"top_k":-3}': ("top_k", "an integer of at least 1", "the integer -3"),
    '{"candidates":[{}],"top_k":true}': ("top_k", "an integer of at least 1", "the boolean true"),
    '{"candidates":[{}],"top_k":2.0}': ("top_k", "an integer of at least 1", "the float 2.0"),
    '{"candidates":[{}],"top_k":"2"}': ("top_k", "an integer of at least 1", "the text '2'"),
    '{"candidates":[{}],"request_id":""}': ("request_id", "1 to 128 visible ASCII characters", "the text ''"),
    '{"candidates":[{}],"request_id":"a b"}': ("request_id", "1 to 128 visible ASCII characters", "the text 'a b'"),
    '{"candidates":[{}],"request_id":"a\\n"}': (
        "request_id",
        "1 to 128 visible ASCII characters",
        "the text 'a\\n'",
    ),
    '{"candidates":[{}],"request_id":"\\r\\nx: y"}': (
        "request_id",
        "1 to 128 visible ASCII characters",
        "the text '\\r\\nx: y'",
    ),
    '{"candidates":[{}],"request_id":7}': ("request_id", "1 to 128 visible ASCII characters", "the integer 7"),
    '{"candidates":[{}],"routing_key":""}': ("routing_key", "text of 1 to 256 characters", "the text ''"),
    '{"candidates":[{"price":1e999}]}': ("candidates[0].price", "a number in the float64 range", "1e999"),
    '{"candidates":{"price":[1,-1e400]}}': ("candidates.price[1]", "a number in the float64 range", "-1e400"),
}


@pytest.mark.parametrize("body", MISSHAPEN)
def test_a_document_of_the_wrong_shape_is_422_and_says_which_member(client: httpx.Client, body: str) -> None:
    answer = post(client, body)
    problem = refusal(answer)
    assert answer.status_code == 422
    assert (problem["where"], problem["expected"], problem["got"]) == MISSHAPEN[body]
    assert problem["detail"] == f"{problem['where']}: expected {problem['expected']}, got {problem['got']}"


WRONG_FIELDS = {
    '{"candidates":[]}': ("no-candidates", "candidates"),
    '{"candidates":{}}': ("no-candidates", "candidates"),
    '{"candidates":{"ad":[]}}': ("no-candidates", "candidates"),
    '{"candidates":[{"ad":"a1"},{"add":"a1"}]}': ("unknown-field", "candidates[1].add"),
    '{"candidates":{"add":["a1"]}}': ("unknown-field", "candidates.add"),
    '{"context":{"age":3},"candidates":[{}]}': ("unknown-field", "context.age"),
    '{"candidates":[{"position":"1"}]}': ("unknown-field", "candidates[0].position"),
    '{"context":{"user":"u1"},"candidates":[{"ad":"a1"},{"hour":3}]}': ("misplaced-field", "candidates[1].hour"),
    '{"context":{"user":"u1"},"candidates":{"hour":[3]}}': ("misplaced-field", "candidates.hour"),
    '{"context":{"ad":"a1"},"candidates":[{}]}': ("misplaced-field", "context.ad"),
    '{"candidates":{"ad":["a1","a2"],"price":[1]}}': ("ragged-columns", "candidates.price"),
    '{"candidates":[{"ad":"a1"},{"ad":1.0}]}': ("field-value", "candidates[1].ad"),
    '{"candidates":[{"ad":true}]}': ("field-value", "candidates[0].ad"),
    '{"candidates":[{"ad":["a1"]}]}': ("field-value", "candidates[0].ad"),
    '{"candidates":[{"ad":{"a":"b"}}]}': ("field-value", "candidates[0].ad"),
    '{"candidates":[{"price":"abc"}]}': ("field-value", "candidates[0].price"),
    '{"candidates":[{"price":"1_0"}]}': ("field-value", "candidates[0].price"),
    '{"candidates":[{"price":"nan"}]}': ("field-value", "candidates[0].price"),
    '{"candidates":[{"price":"1e999"}]}': ("field-value", "candidates[0].price"),
    '{"candidates":[{"price":false}]}': ("field-value", "candidates[0].price"),
    '{"candidates":{"price":[1,2,[3]]}}': ("field-value", "candidates.price[2]"),
    '{"candidates":[{"tags":["x",null]}]}': ("field-value", "candidates[0].tags[1]"),
    '{"candidates":[{"tags":["x",["y"]]}]}': ("field-value", "candidates[0].tags[1]"),
    '{"context":{"hour":"noon"},"candidates":[{}]}': ("field-value", "context.hour"),
}


@pytest.mark.parametrize("body", WRONG_FIELDS)
def test_a_field_that_cannot_be_scored_is_422_and_says_where(client: httpx.Client, body: str) -> None:
    answer = post(client, body)
    problem = refusal(answer)
    assert answer.status_code == 422
    assert (problem["type"].removeprefix(PROBLEM), problem["where"]) == WRONG_FIELDS[body]
    assert problem["expected"]
    assert problem["got"]


@pytest.mark.parametrize(
    ("body", "where", "expected"),
    [
        ({"candidates": [{"pric": 1}]}, "candidates[0].pric", "a field of the schema, the nearest is the text 'price'"),
        (
            {"context": {"user": "u1"}, "candidates": [{"usr": 1}]},
            "candidates[0].usr",
            "one of ad, price, tags, colour",
        ),
        ({"candidates": [{"zzz": 1}]}, "candidates[0].zzz", "one of user, hour, ad, price, tags, site, colour"),
        ({"candidates": [{"a\nb": 1}]}, r"candidates[0]['a\nb']", "one of user, hour, ad, price, tags, site, colour"),
    ],
)
def test_an_unknown_field_is_named_with_the_nearest_known_one(
    client: httpx.Client, body: dict[str, Any], where: str, expected: str
) -> None:
    problem = refusal(post(client, json.dumps(body)))
    assert (problem["where"], problem["expected"], problem["got"]) == (where, expected, "an unknown field")


def test_a_body_nested_without_end_is_refused(client: httpx.Client) -> None:
    for opening in (b"[", b'{"a":'):
        for depth in (600, 900, 1100, 100_000):
            answer = post(client, b'{"candidates":[{"ad":' + opening * depth)
            assert answer.status_code == 400
            refusal(answer)
    for depth in (500, 900, 990, 1000, 1100, 50_000):
        for name, statuses in ((b"ad", {400, 422}), (b"colour", {200, 400})):  # an ignored field may hold anything
            body = b'{"candidates":[{"' + name + b'":' + b"[" * depth + b"]" * depth + b"}]}"
            assert post(client, body).status_code in statuses


@pytest.mark.parametrize("digits", [20, 309, 640, 641, 4300, 5000, 100_000])
def test_integers_of_any_length_are_scored_or_refused(client: httpx.Client, digits: int) -> None:
    for field, limit in (("ad", 640), ("price", 308), ("tags", 640)):
        answer = post(client, f'{{"candidates":[{{"{field}":{"9" * digits}}}]}}')
        assert answer.status_code == (200 if digits <= limit else 422)
        if answer.status_code != 200:
            assert refusal(answer)["where"] == f"candidates[0].{field}"
            assert len(answer.content) < 1000


def test_what_a_refusal_quotes_is_short_and_safe(client: httpx.Client) -> None:
    for name in ("n" * 50_000, "\u2028<script>\u0000\U0010ffff", "é" * 500):
        for body in ({"candidates": [{}], name: 1}, {"candidates": [{name: 1}]}, {"candidates": [{"ad": [name]}]}):
            answer = post(client, json.dumps(body))
            assert answer.status_code == 422
            refusal(answer)
            assert len(answer.content) < 5000


def test_more_candidates_than_allowed_are_refused(client: httpx.Client) -> None:
    for body in ({"candidates": [{}] * 10_001}, {"candidates": {"ad": ["a1"] * 10_001}}):
        problem = refusal(post(client, json.dumps(body)))
        assert (problem["status"], problem["where"]) == (422, "candidates")
        assert (problem["expected"], problem["got"]) == ("at most 10000", "10001")
    assert len(post(client, json.dumps({"candidates": {"ad": ["a1"] * 10_000}})).json()["scores"]) == 10_000


PACKED = {
    b"": 400,
    b"\xc1": 400,
    b"\x81": 400,
    msgspec.msgpack.encode({"candidates": [{"ad": "a1"}]}) + b"\x00": 400,
    msgspec.msgpack.encode({"candidates": [{"price": float("nan")}]}): 422,
    msgspec.msgpack.encode({"candidates": [{"price": float("inf")}]}): 422,
    msgspec.msgpack.encode({"candidates": [{"ad": b"bytes"}]}): 422,
    msgspec.msgpack.encode({"candidates": [{3: "a1"}]}): 422,
    msgspec.msgpack.encode({"candidates": [{"ad": msgspec.msgpack.Ext(5, b"x")}]}): 422,
    msgspec.msgpack.encode({3: 4}): 422,
    b"\x81\xaacandidates\x91\x81\xa2ad\xa1\xff": 400,
    b"\x81\xaacandidates" + b"\x91" * 5000 + b"\x80": 422,
    b"\x81\xaacandidates\x91\x81\xa2ad" + b"\x91" * 50_000 + b"\x80": 400,
    b"\x81\xaacandidates\xdd\xff\xff\xff\xff": 400,
}


@pytest.mark.parametrize("body", PACKED, ids=lambda body: repr(body)[2:-1][:40])
def test_packed_bodies_are_refused_as_written_ones_are(client: httpx.Client, body: bytes) -> None:
    answer = post(client, body, "application/msgpack")
    assert answer.status_code == PACKED[body], answer.text
    refusal(answer)


@pytest.mark.parametrize(
    ("headers", "where"),
    [
        ({"content-type": "text/plain"}, "Content-Type"),
        ({"content-type": "application/x-www-form-urlencoded"}, "Content-Type"),
        ({"content-type": "application/json; charset=latin-1"}, "Content-Type"),
        ({"content-type": "application/json-seq"}, "Content-Type"),
        ({"content-type": ""}, "Content-Type"),
        ({}, "Content-Type"),
        ({"content-type": "application/json", "content-encoding": "br"}, "Content-Encoding"),
        ({"content-type": "application/json", "content-encoding": "gzip, gzip"}, "Content-Encoding"),
    ],
)
def test_another_media_type_is_415(client: httpx.Client, headers: dict[str, str], where: str) -> None:
    answer = client.post("/score", content=b'{"candidates":[{}]}', headers=headers)
    problem = refusal(answer)
    assert (answer.status_code, problem["where"]) == (415, where)
    assert "accept" in answer.headers or "accept-encoding" in answer.headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_another_method_is_405_and_says_which_is_allowed(client: httpx.Client, method: str) -> None:
    answer = client.request(method, "/score")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        refusal(answer)


def test_the_frameworks_own_refusals_are_problems_too(client: httpx.Client) -> None:
    for method, path, status in (("GET", "/nope", 404), ("POST", "/readyz", 405), ("GET", "/score/", 404)):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert path in refusal(answer)["detail"]
    assert client.post("/readyz").headers["allow"] == "GET"
