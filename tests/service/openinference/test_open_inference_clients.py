"""NVIDIA's client of the protocol, from the package index and as it is, against a real server process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as triton
from serving import MODEL_ID, ROW_CANDIDATES, ROW_CONTEXT, HandModel, Server
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "user": np.array(["u1"], dtype=object),
    "hour": np.array([2], dtype=np.int64),
    "ad": np.array([b"a1", b"a2", b"unseen"], dtype=object),
    "price": np.array([0.5, 3.0, np.nan], dtype=np.float32),
    "tags": np.array([["x", "y"], ["y", "unseen"], ["", ""]], dtype=object),
}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as connected:
        yield connected


def inputs(arrays: dict[str, np.ndarray[Any, Any]], *, binary: bool) -> list[triton.InferInput]:
    made = []
    for name, array in arrays.items():
        one = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        one.set_data_from_numpy(array, binary_data=binary)
        made.append(one)
    return made


def by_hand(model: HandModel) -> list[float]:
    return [model.score(ROW_CONTEXT, row) for row in ROW_CANDIDATES]


@pytest.mark.parametrize("binary_in", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("binary_out", [None, False, True], ids=["default", "to json", "to binary"])
def test_inference_gives_the_scores_worked_out_by_hand(
    client: triton.InferenceServerClient, hand_model: HandModel, binary_in: bool, binary_out: bool | None
) -> None:
    outputs = None if binary_out is None else [triton.InferRequestedOutput("pctr", binary_data=binary_out)]
    result = client.infer(
        MODEL_ID,
        inputs(ARRAYS, binary=binary_in),
        outputs=outputs,
        request_id="r-81",
        model_version="1" if binary_in else "",
        timeout=1000,
        priority=1,
        parameters={"my_own": "thing"},
    )
    scores = result.as_numpy("pctr")
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, by_hand(hand_model), atol=1e-6)
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("r-81", MODEL_ID, "1")


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("wanted", [None, "gzip", "deflate"])
def test_compressed_bodies_are_read_and_answers_come_in_what_the_client_takes(
    client: triton.InferenceServerClient, hand_model: HandModel, sent: str | None, wanted: str | None
) -> None:
    times = 1000  # a long answer
    arrays = {
        name: array if len(array) == 1 else np.tile(array, (times, *[1] * (array.ndim - 1)))
        for name, array in ARRAYS.items()
    }
    for binary in (False, True):
        result = client.infer(
            MODEL_ID,
            inputs(arrays, binary=binary),
            outputs=[triton.InferRequestedOutput("pctr", binary_data=binary)],
            request_compression_algorithm=sent,
            response_compression_algorithm=wanted,
        )
        np.testing.assert_allclose(result.as_numpy("pctr"), by_hand(hand_model) * times, atol=1e-6)


def test_requests_sent_side_by_side_get_their_own_answers(
    client: triton.InferenceServerClient, hand_model: HandModel
) -> None:
    pending = [client.async_infer(MODEL_ID, inputs(ARRAYS, binary=True), request_id=f"r{k}") for k in range(5)]
    for k, one in enumerate(pending):
        result = one.get_result()
        assert result.get_response()["id"] == f"r{k}"
        np.testing.assert_allclose(result.as_numpy("pctr"), by_hand(hand_model), atol=1e-6)


def test_health_and_metadata_are_understood(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL_ID)
    assert client.is_model_ready(MODEL_ID, "1")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready(MODEL_ID, "2")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    described = client.get_model_metadata(MODEL_ID, "1")
    assert described["name"] == MODEL_ID
    assert {given["name"] for given in described["inputs"]} >= set(ARRAYS)


def test_a_request_made_from_the_metadata_alone_is_scored(client: triton.InferenceServerClient) -> None:
    described = client.get_model_metadata(MODEL_ID)
    arrays = {}
    for given in described["inputs"]:
        shape = [4 if size == -1 else size for size in given["shape"]]
        arrays[given["name"]] = np.full(shape, "1" if given["datatype"] == "BYTES" else 1.0, dtype=object)
        if given["datatype"] != "BYTES":
            arrays[given["name"]] = np.ones(shape)
    (output,) = described["outputs"]
    result = client.infer(MODEL_ID, inputs(arrays, binary=True))
    assert result.as_numpy(output["name"]).shape == (4,)


def test_an_error_reaches_the_caller_with_its_place_and_status(client: triton.InferenceServerClient) -> None:
    wrong = ARRAYS | {"price": np.array([0.5, np.inf, 1.0], dtype=np.float32)}
    with pytest.raises(InferenceServerException) as caught:
        client.infer(MODEL_ID, inputs(wrong, binary=True))
    assert caught.value.status() == "400"
    message = "inputs.price.data[1]: expected a finite number in the float64 range, got the float inf"
    assert caught.value.message() == message
    with pytest.raises(InferenceServerException, match="expected the served model") as caught:
        client.infer("other", inputs(ARRAYS, binary=True))
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="expected the served model"):
        client.get_model_metadata("other")
