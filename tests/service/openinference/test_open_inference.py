"""The Open Inference Protocol, asked over real sockets; the expected scores are worked out by hand."""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from serving import DROPPED, MODEL_ID, ROW_CANDIDATES, ROW_CONTEXT, HandModel, samples, serving
from tensors_on_the_wire import HEADER, body, refusal, tensor

from service.app import VERSION

if TYPE_CHECKING:
    from pathlib import Path

INFER = f"/v2/models/{MODEL_ID}/infer"
CONTEXT = [tensor("user", "BYTES", ["u1"]), tensor("hour", "INT64", [2])]
CANDIDATES = [
    tensor("ad", "BYTES", ["a1", "a2", "unseen"]),
    tensor("price", "BYTES", ["0.5", "3", ""]),
    tensor("tags", "BYTES", ["x|y", "y|unseen", ""]),
]
LISTED = tensor("tags", "BYTES", ["x", "y", "y", "unseen", "", ""], [3, 2])
FORMS: dict[str, list[dict[str, Any]]] = {
    "one context": [*CONTEXT, *CANDIDATES],
    "candidates first": [*CANDIDATES, *CONTEXT],
    "a context of every candidate": [
        tensor("user", "BYTES", ["u1"] * 3),
        tensor("hour", "FP64", [2.0] * 3),
        *CANDIDATES,
    ],
    "one context field shared and one not": [CONTEXT[0], tensor("hour", "INT32", [2] * 3), *CANDIDATES],
    "columns of one": [
        {**given, "shape": [len(given["data"]), 1]} for given in [*CONTEXT, *CANDIDATES[:2]] if given["name"] != "tags"
    ]
    + [LISTED],
    "ignored fields too": [
        *CONTEXT,
        *CANDIDATES,
        tensor("site", "BYTES", ["s"]),
        tensor("colour", "FP64", [1.0, 2.0, 3.0]),
    ],
}


def ask(client: httpx.Client, tensors: list[dict[str, Any]], path: str = INFER, **given: Any) -> httpx.Response:
    content, headers = body(tensors, **given)
    return client.post(path, content=content, headers=headers)


def by_hand(model: HandModel) -> list[float]:
    return [model.score(ROW_CONTEXT, row) for row in ROW_CANDIDATES]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_every_form_of_a_request_gets_the_scores_worked_out_by_hand(
    client: httpx.Client, hand_model: HandModel, form: str, binary: bool
) -> None:
    names = [given["name"] for given in FORMS[form]] if binary else []
    answer = ask(client, FORMS[form], binary=names)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document.keys() == {"model_name", "model_version", "outputs"}
    assert (document["model_name"], document["model_version"]) == (MODEL_ID, "1")
    (output,) = document["outputs"]
    assert {name: output[name] for name in ("name", "datatype", "shape")} == {
        "name": "pctr",
        "datatype": "FP32",
        "shape": [3],
    }
    np.testing.assert_allclose(output["data"], by_hand(hand_model), atol=1e-6)


def test_null_nan_and_empty_text_are_missing_like_an_absent_tensor(client: httpx.Client) -> None:
    rest = [*CONTEXT, CANDIDATES[0], CANDIDATES[2]]
    prices = [
        ask(client, [*rest, tensor("price", "FP64", [None] * 3)]),
        ask(client, [*rest, tensor("price", "FP32", [float("nan")] * 3)]),  # no JSON, but clients send it
        ask(client, [*rest, tensor("price", "INT64", [None] * 3)]),
        ask(client, [*rest, tensor("price", "BYTES", [None, "", None])]),
        ask(client, [*rest, tensor("price", "BYTES", [""] * 3)], binary=["price"]),
        ask(client, [*rest, tensor("price", "FP32", [float("nan")] * 3)], binary=["price"]),
        ask(client, [*rest, tensor("price", "FP64", [float("nan")] * 3)], binary=["price"]),
    ]
    wanted = ask(client, rest).json()["outputs"]
    assert [answer.json()["outputs"] for answer in prices] == [wanted] * len(prices)


@pytest.mark.parametrize(
    ("asked", "is_binary"),
    [
        ({}, False),
        ({"parameters": {"binary_data_output": True}}, True),
        ({"outputs": [{"name": "pctr"}]}, False),
        ({"outputs": [{"name": "pctr", "parameters": {"binary_data": True}}]}, True),
        ({"outputs": [{"name": "pctr"}], "parameters": {"binary_data_output": True}}, True),
        (
            {
                "outputs": [{"name": "pctr", "parameters": {"binary_data": False}}],
                "parameters": {"binary_data_output": True},
            },
            False,
        ),
        ({"outputs": [], "parameters": {"priority": 3}}, False),
        ({"outputs": None, "parameters": None, "id": None}, False),
    ],
)
def test_scores_come_as_the_request_says(client: httpx.Client, asked: dict[str, Any], is_binary: bool) -> None:
    answer = ask(client, FORMS["one context"], **asked)
    assert answer.status_code == 200, answer.text
    written = ask(client, FORMS["one context"]).json()["outputs"][0]["data"]
    if not is_binary:
        assert HEADER not in answer.headers
        assert answer.json()["outputs"][0]["data"] == written
        return
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers[HEADER])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output == {"name": "pctr", "datatype": "FP32", "shape": [3], "parameters": {"binary_data_size": 12}}
    assert np.frombuffer(answer.content[length:], "<f4").tolist() == np.array(written, np.float32).tolist()


def test_the_requests_id_comes_back(client: httpx.Client) -> None:
    answer = ask(client, FORMS["one context"], id="r-81")
    assert (answer.json()["id"], answer.headers["x-request-id"]) == ("r-81", "r-81")
    odd = ask(client, FORMS["one context"], id="zwei\nZeilen é")  # nothing for a header
    assert odd.json()["id"] == "zwei\nZeilen é"
    assert odd.headers["x-request-id"].isascii()
    assert "id" not in ask(client, FORMS["one context"]).json()


def test_the_version_may_be_named(client: httpx.Client) -> None:
    path = f"/v2/models/{MODEL_ID}/versions/1/infer"
    assert ask(client, FORMS["one context"], path).json() == ask(client, FORMS["one context"]).json()


def test_health_and_server_metadata_are_those_of_the_protocol(client: httpx.Client) -> None:
    assert client.get("/v2").json() == {"name": "reaction", "version": VERSION, "extensions": ["binary_tensor_data"]}
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for version in ("", "/versions/1"):
        assert client.get(f"/v2/models/{MODEL_ID}{version}/ready").json() == {"name": MODEL_ID, "ready": True}


def test_model_metadata_lists_exactly_the_tensors_that_are_accepted(client: httpx.Client) -> None:
    described = client.get(f"/v2/models/{MODEL_ID}").json()
    assert client.get(f"/v2/models/{MODEL_ID}/versions/1").json() == described
    assert (described["name"], described["versions"], described["platform"]) == (MODEL_ID, ["1"], "reaction_onnx")
    assert described["outputs"] == [{"name": "pctr", "datatype": "FP32", "shape": [-1]}]
    inputs = {given["name"]: given for given in described["inputs"]}
    assert set(inputs) == {"user", "hour", "site", "ad", "price", "tags", "colour"}
    assert {name for name, given in inputs.items() if given["parameters"]["use"] == "ignored"} == set(DROPPED)
    zeros: dict[str, Any] = {"BYTES": "0"}
    every = ["BYTES", "FP32", "FP64", *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)), "BOOL"]
    for name, given in inputs.items():
        shape = [3 if size == -1 else size for size in given["shape"]]
        for datatype in every:
            data = [zeros.get(datatype, 0)] * int(np.prod(shape))
            status = ask(client, [tensor(name, datatype, data, shape)]).status_code
            taken = given["parameters"]["use"] == "ignored" or datatype in given["parameters"]["datatypes"]
            assert status == (200 if taken else 400), (name, datatype)


def test_requests_are_counted_under_one_label_and_in_every_stage(bundle: Path) -> None:
    with serving(bundle) as server, httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            assert ask(client, FORMS["one context"]).status_code == 200
        assert ask(client, [], path=f"/v2/models/{MODEL_ID}/versions/1/infer").status_code == 400
        assert ask(client, FORMS["one context"], path="/v2/models/other/infer").status_code == 404
        client.get(f"/v2/models/{MODEL_ID}")
        counted = samples(client.get("/metrics").text)
    routes = {name: value for name, value in counted.items() if name.startswith('reaction_requests_total{route="/v2')}
    label = 'reaction_requests_total{route="/v2/models/{name}/infer",status='
    assert routes == {
        f'{label}"200"}}': 3,
        f'{label}"400"}}': 1,
        f'{label}"404"}}': 1,
        'reaction_requests_total{route="/v2/models/{name}",status="200"}': 1,
    }
    for stage in ("queue", "decode", "encode", "infer", "respond", "total"):
        assert counted[f'reaction_stage_seconds_count{{model="{MODEL_ID}",outcome="ok",stage="{stage}"}}'] == 3
    assert counted[f'reaction_candidates_total{{model="{MODEL_ID}"}}'] == 9
    assert counted[f'reaction_field_values_total{{field="user",model="{MODEL_ID}"}}'] == 3  # once a request
    assert counted[f'reaction_field_values_total{{field="ad",model="{MODEL_ID}"}}'] == 9


def test_a_compressed_body_is_inflated_and_a_long_answer_compressed(bundle: Path, client: httpx.Client) -> None:
    content, headers = body(FORMS["one context"], binary=["ad", "price"], parameters={"binary_data_output": True})
    plain = client.post(INFER, content=content, headers=headers | {"accept-encoding": "identity"})
    headers |= {"content-encoding": "gzip", "accept-encoding": "gzip"}
    with serving(bundle, gzip_bytes=0, max_body_bytes=2000) as server:
        answer = httpx.post(server.url + INFER, content=gzip.compress(content), headers=headers)
        bomb = httpx.post(server.url + INFER, content=gzip.compress(bytes(100_000)), headers=headers)
    assert answer.headers["content-encoding"] == "gzip"
    assert (answer.headers[HEADER], answer.content) == (plain.headers[HEADER], plain.content)
    assert (refusal(bomb, 413)) == "body: expected at most 2000 bytes when inflated, got more."
    unread = client.post(INFER, content=content, headers={"content-encoding": "br"})
    assert refusal(unread, 415).startswith("Content-Encoding: expected gzip, deflate or identity, got 'br'")


def test_requests_are_logged_as_often_as_the_settings_say(bundle: Path) -> None:
    with serving(bundle, request_log_ratio=1.0) as server:
        with httpx.Client(base_url=server.url) as client:
            assert ask(client, FORMS["one context"], id="r-9").status_code == 200
        server.stop()
    (line,) = [line for line in server.log if line["event"] == "request"]
    assert (line["request_id"], line["status"], line["candidates"]) == ("r-9", 200, 3)


def test_a_long_body_is_scored_in_a_worker_thread_with_the_same_answer(bundle: Path, client: httpx.Client) -> None:
    with serving(bundle, inline_body_bytes=0) as server, httpx.Client(base_url=server.url) as other:
        assert ask(other, FORMS["one context"]).json() == ask(client, FORMS["one context"]).json()


def test_the_documented_example_is_answered_as_documented(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    operation = paths["/v2/models/{name}/infer"]["post"]
    (asked,) = operation["requestBody"]["content"]["application/json"]["examples"].values()
    (answered,) = operation["responses"]["200"]["content"]["application/json"]["examples"].values()
    assert client.post(INFER, json=asked["value"]).json() == answered["value"]
    assert f"{INFER} -H" in client.get("/docs").text
    for path, methods in paths.items():
        for operation in methods.values():
            named = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), path
