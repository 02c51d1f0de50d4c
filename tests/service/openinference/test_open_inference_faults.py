"""Documents, paths, methods and bytes that are none of the Open Inference Protocol's, and what they are answered."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import MODEL_ID, serving
from tensors_on_the_wire import HEADER, body, refusal, tensor

from service.app import create_app
from service.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

INFER = f"/v2/models/{MODEL_ID}/infer"
AD = tensor("ad", "BYTES", ["a1", "a2", "a3"])
OVER_THE_WIRE = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "The body is empty."),
        ("[]", "body: expected an object, got an array of 0 elements"),
        ("{}", "inputs: expected an array of tensors, got nothing"),
        ('{"inputs":{}}', "inputs: expected an array of tensors, got an object"),
        ('{"inputs":[7]}', "inputs[0]: expected an object, got the integer 7"),
        ('{"inputs":[{}]}', "inputs[0].name: expected text, got nothing"),
        ('{"inputs":[{"name":"ad"}]}', "inputs[0].datatype: expected text, got nothing"),
        (
            '{"inputs":[{"name":"ad","datatype":"BYTES"}]}',
            "inputs[0].shape: expected an array of integers, got nothing",
        ),
        (
            '{"inputs":[{"name":"ad","datatype":"BYTES","shape":["3"]}]}',
            "inputs[0].shape[0]: expected an integer, got the text '3'",
        ),
        (
            '{"inputs":[{"name":"ad","datatype":"BYTES","shape":[1],"data":"a1"}]}',
            "inputs[0].data: expected an array, got the text 'a1'",
        ),
        (
            '{"inputs":[{"name":"ad","datatype":"BYTES","shape":[1],"data":["a"],"parameters":[]}]}',
            "inputs[0].parameters: expected an object, got an array of 0 elements",
        ),
        (
            '{"inputs":[{"name":"price","datatype":"FP64","shape":[1],"data":[1e999]}]}',
            "inputs[0].data[0]: expected a number in the float64 range, got 1e999",
        ),
        (
            '{"inputs":[{"name":"price","datatype":"FP64","shape":[2],"data":[NaN,-Infinity]}]}',
            "inputs.price.data[1]: expected a finite number in the float64 range, got the float -inf",
        ),
        (
            '{"inputs":[{"name":"ad","datatype":"BYTES","shape":["NaN"],"data":[NaN]}]}',
            "inputs[0].shape[0]: expected an integer, got the text 'NaN'",
        ),
        (
            '{"inputs":[{"name":"price","datatype":"FP64","shape":[1],"data":[NaN}]}',
            "The body cannot be read: expected a number, got NaN at byte 65.",
        ),
        (
            '{"id":"\\ud800","inputs":[{"name":"price","datatype":"FP64","shape":[1],"data":[NaN]}]}',
            "The body cannot be read: unexpected end of escaped utf-16 surrogate pair at byte 13.",
        ),
        ('{"inputs":[],"id":7}', "id: expected text, got the integer 7"),
        ('{"inputs":[],"inputs":[]}', "The body names a member twice: 'inputs'."),
        ('{"inputs":[],"parameters":{"a":1,"a":2}}', "The body names a member twice: 'a'."),
        ('{"inputs":[],"outputs":{}}', "outputs: expected an array of requested outputs, got an object"),
        (
            '{"inputs":[],"outputs":[{"name":"ctr"}]}',
            "outputs[0].name: expected 'pctr', the only output, got the text 'ctr'",
        ),
        (
            '{"inputs":[],"outputs":[{"name":"pctr"},{"name":"pctr"}]}',
            "outputs[1]: expected each output once, got 'pctr' twice",
        ),
        (
            '{"inputs":[],"outputs":[{"name":"pctr","parameters":{"binary_data":1}}]}',
            "outputs[0].parameters.binary_data: expected true or false, got the integer 1",
        ),
        (
            '{"inputs":[],"outputs":[{"name":"pctr","parameters":{"classification":3}}]}',
            "outputs[0].parameters.classification: expected nothing: it is not supported, got a value",
        ),
        (
            '{"inputs":[],"parameters":{"binary_data_output":"yes"}}',
            "parameters.binary_data_output: expected true or false, got the text 'yes'",
        ),
        ('{"inputs":[{"data":' + "[" * 100_000, "The body is nested too deeply."),
    ],
)
def test_a_document_of_another_form_is_refused_with_its_place(
    client: httpx.Client, document: str, message: str
) -> None:
    assert refusal(client.post(INFER, content=document)) == message


@pytest.mark.parametrize("length", ["-1", "x", "", "1e3", "99999999999999999999", "+5", "5000"])
def test_a_wrong_length_of_the_json_part_is_refused(client: httpx.Client, length: str) -> None:
    content, _ = body([AD])
    answer = client.post(INFER, content=content, headers={HEADER: length})
    assert refusal(answer).startswith("Inference-Header-Content-Length: expected ")


def test_a_length_that_cuts_the_json_part_is_refused(client: httpx.Client) -> None:
    content, _ = body([AD])
    message = refusal(client.post(INFER, content=content, headers={HEADER: str(len(content) - 1)}))
    assert "the body ends inside of the document" in message


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v2/models/other/infer", "model: expected the served model 'tiny-1', got the text 'other'"),
        ("/v2/models/tiny-1/versions/2/infer", "version: expected the served version '1', got the text '2'"),
        ("/v2/models//infer", "model: expected the served model 'tiny-1', got the text ''"),
        ("/v2/models/a/b/infer", "model: expected the served model 'tiny-1', got the text 'a/b'"),
    ],
)
def test_another_model_or_version_is_not_found(client: httpx.Client, path: str, message: str) -> None:
    content, _ = body([AD])
    assert refusal(client.post(path, content=content), 404) == message


@pytest.mark.parametrize(
    "path", ["/v2/models/other", "/v2/models/infer", "/v2/models/tiny-1/versions/2/ready", "/v2/x", "/v2/models"]
)
def test_what_is_not_there_answers_in_the_protocols_form(client: httpx.Client, path: str) -> None:
    assert refusal(client.get(path), 404)


def test_a_wrong_method_is_answered_with_the_right_one(client: httpx.Client) -> None:
    answer = client.get(INFER)
    assert refusal(answer, 405) == "/v2/models/{name}/infer: expected POST, got GET."
    assert answer.headers["allow"] == "POST"
    assert refusal(client.post("/v2/health/live"), 405)


def test_a_body_over_the_limit_is_refused(bundle: Path) -> None:
    content, _ = body([tensor("ad", "BYTES", ["a" * 2000])])
    with serving(bundle, max_body_bytes=1024) as server:
        whole = httpx.post(server.url + INFER, content=content)
        pieces = httpx.post(server.url + INFER, content=iter([content[:700], content[700:]]))
    for answer in (whole, pieces):
        assert refusal(answer, 413).startswith("body: expected at most 1024 bytes, got ")


def test_without_a_model_everything_but_liveness_is_503(tmp_path: Path) -> None:
    app = create_app(load_settings(bundle=tmp_path / "none"))

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            assert (await client.get("/v2/health/live")).json() == {"live": True}
            assert (await client.get("/v2")).status_code == 200
            for path in ("/v2/health/ready", "/v2/models/tiny-1", "/v2/models/tiny-1/ready"):
                answer = await client.get(path)
                assert refusal(answer, 503) == "Not ready: the bundle is being read and checked."
                assert answer.headers["retry-after"] == "1"
            answer = await client.post(INFER, content=body([AD])[0])
            assert refusal(answer, 503) == "Not ready: the bundle is being read and checked."

    asyncio.run(ask())


@OVER_THE_WIRE
@given(content=st.binary(max_size=200), length=st.none() | st.integers(0, 250))
def test_no_bytes_make_a_server_error(client: httpx.Client, content: bytes, length: int | None) -> None:
    headers = {} if length is None else {HEADER: str(length)}
    refusal(client.post(INFER, content=content, headers=headers))


@OVER_THE_WIRE
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), binary=st.sets(st.sampled_from(["ad", "price", "tags"])))
def test_no_change_of_one_byte_makes_a_server_error(
    client: httpx.Client, place: int, byte: int, binary: set[str]
) -> None:
    tensors = [AD, tensor("price", "FP32", [1.0, 2.0, 3.0]), tensor("tags", "BYTES", ["x", "", "y|z"])]
    content, headers = body([*tensors, tensor("user", "INT64", [7])], binary=binary)
    spoilt = bytearray(content)
    spoilt[place % len(spoilt)] = byte
    answer = client.post(INFER, content=bytes(spoilt), headers=headers)
    assert answer.status_code == 200 or refusal(answer)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([1e39, 10**39, 10**400, 2**63, -(2**63) - 1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)
some_tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["ad", "price", "tags", "user", "hour", "site", "position", "x"]),
        "datatype": st.sampled_from(["BYTES", "FP32", "FP64", "INT64", "UINT8", "BOOL", "FP16", ""]),
        "shape": st.lists(st.integers(-1, 4), max_size=3),
    },
    optional={
        "data": st.lists(json_values, max_size=5) | json_values,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "a"]), json_values) | json_values,
    },
)


@OVER_THE_WIRE
@given(tensors=st.lists(some_tensors, max_size=3), rest=st.binary(max_size=20), binary=st.booleans())
def test_no_tensors_make_a_server_error(
    client: httpx.Client, tensors: list[dict[str, Any]], rest: bytes, binary: bool
) -> None:
    document = json.dumps({"inputs": tensors}).encode()
    headers = {HEADER: str(len(document))} if binary else {}
    answer = client.post(INFER, content=document + rest if binary else document, headers=headers)
    assert answer.status_code == 200 or refusal(answer)
