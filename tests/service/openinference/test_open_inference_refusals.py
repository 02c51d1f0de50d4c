"""What the Open Inference Protocol refuses: in its own error form, with where, expected and got."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from serving import MODEL_ID
from tensors_on_the_wire import HEADER, body, packed, refusal, tensor

if TYPE_CHECKING:
    import httpx

INFER = f"/v2/models/{MODEL_ID}/infer"
AD = tensor("ad", "BYTES", ["a1", "a2", "a3"])
NAN = float("nan")
INTEGERS = "INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64"


def changed(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in {**AD, **members}.items() if value is not ...}


TENSORS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no tensor": ([], "inputs: expected at least one tensor, got none"),
    "an unknown field": (
        [AD, tensor("pric", "FP32", [1, 2, 3])],
        "inputs.pric: expected a field of the schema, the nearest is the text 'price', got an unknown field",
    ),
    "a training-only field": (
        [AD, tensor("position", "BYTES", ["1"] * 3)],
        "inputs.position: expected nothing: the field exists in training only, got a value",
    ),
    "a tensor twice": ([AD, AD], "inputs.ad: expected one tensor of the name, got two"),
    "fewer values": ([changed(data=["a"])], "inputs.ad.data: expected 3 elements, as its shape says, got 1"),
    "more values": ([changed(data=["a"] * 4)], "inputs.ad.data: expected 3 elements, as its shape says, got 4"),
    "nested values": (
        [changed(data=[["a"], ["b"], ["c", "d"]])],
        "inputs.ad.data: expected 3 elements, as its shape says, got 3 arrays of 1 to 2",
    ),
    "an array among values": (
        [changed(data=["a", "b", ["c"]])],
        "inputs.ad.data[2]: expected text or null, as BYTES has, got an array of 1 elements",
    ),
    "no data": ([changed(data=...)], "inputs.ad: expected data, or binary data of a stated size, got neither"),
    "null for data": ([changed(data=None)], "inputs.ad: expected data, or binary data of a stated size, got neither"),
    "a negative dimension": ([changed(shape=[-1])], "inputs.ad.shape: expected [N] or [N, 1], got [-1]"),
    "a huge dimension": (
        [changed(shape=[10**30])],
        f"inputs.ad.data: expected {10**30} elements, as its shape says, got 3",
    ),
    "no rows": ([changed(shape=[0], data=[])], "inputs.ad.shape: expected at least one row, got [0]"),
    "no dimension": ([changed(shape=[])], "inputs.ad.shape: expected [N] or [N, 1], got []"),
    "three dimensions": ([changed(shape=[3, 1, 1])], "inputs.ad.shape: expected [N] or [N, 1], got 3 dimensions"),
    "two columns": ([changed(shape=[3, 2])], "inputs.ad.shape: expected [N] or [N, 1], got [3, 2]"),
    "lists without elements": (
        [tensor("tags", "BYTES", [], [3, 0])],
        "inputs.tags.shape: expected [N] or [N, K], got [3, 0]",
    ),
    "candidates of two lengths": (
        [AD, tensor("price", "FP32", [1, 2])],
        "inputs.price.shape: expected 3 rows, as there are candidates, got 2",
    ),
    "one candidate value for all": (
        [AD, tensor("price", "FP32", [1])],
        "inputs.price.shape: expected 3 rows, as there are candidates, got 1",
    ),
    "context of another length": (
        [AD, tensor("user", "BYTES", ["u", "v"])],
        "inputs.user.shape: expected 1 row or 3 rows, as there are candidates, got 2",
    ),
    "an ignored field of another length": (
        [AD, tensor("colour", "BYTES", ["u", "v"])],
        "inputs.colour.shape: expected 3 rows, as there are candidates, got 2",
    ),
    "too many candidates": (
        [tensor("ad", "INT32", [1] * 10_001)],
        "inputs: expected at most 10000 candidates, got 10001",
    ),
    "an unknown datatype": (
        [changed(datatype="TEXT")],
        f"inputs.ad.datatype: expected one of BYTES, {INTEGERS}, got the text 'TEXT'",
    ),
    "a boolean": (
        [tensor("price", "BOOL", [True] * 3)],
        f"inputs.price.datatype: expected one of BYTES, FP32, FP64, {INTEGERS}, got the text 'BOOL'",
    ),
    "a real number for a category": (
        [tensor("ad", "FP32", [1.5] * 3)],
        f"inputs.ad.datatype: expected one of BYTES, {INTEGERS}, got the text 'FP32'",
    ),
    "numbers as BYTES": (
        [changed(data=["a", 7, "b"])],
        "inputs.ad.data[1]: expected text or null, as BYTES has, got the integer 7",
    ),
    "text as INT64": (
        [changed(datatype="INT64", data=[1, 2, "3"])],
        "inputs.ad.data[2]: expected an integer or null, as INT64 has, got the text '3'",
    ),
    "a float as INT64": (
        [changed(datatype="INT64", data=[1, 2.0, 3])],
        "inputs.ad.data[1]: expected an integer or null, as INT64 has, got the float 2.0",
    ),
    "a boolean as INT64": (
        [changed(datatype="INT64", data=[1, 2, True])],
        "inputs.ad.data[2]: expected an integer or null, as INT64 has, got the boolean true",
    ),
    "an integer beyond INT32": (
        [changed(datatype="INT32", data=[1, 2**31, 3])],
        f"inputs.ad.data[1]: expected an integer from -{2**31} to {2**31 - 1}, as INT32 has, got the integer {2**31}",
    ),
    "one integer beyond INT8": (
        [tensor("user", "INT8", [128])],
        "inputs.user.data[0]: expected an integer from -128 to 127, as INT8 has, got the integer 128",
    ),
    "a negative UINT8": (
        [changed(datatype="UINT8", data=[1, 2, -1])],
        "inputs.ad.data[2]: expected an integer from 0 to 255, as UINT8 has, got the integer -1",
    ),
    "a boolean as FP64": (
        [tensor("price", "FP64", [1, True, 2])],
        "inputs.price.data[1]: expected a number or null, as FP64 has, got the boolean true",
    ),
    "text as FP64": (
        [tensor("hour", "FP64", ["1"])],
        "inputs.hour.data[0]: expected a number or null, as FP64 has, got the text '1'",
    ),
    "an integer beyond FP64": (
        [tensor("price", "FP64", [1, 2, 10**400])],
        "inputs.price.data[2]: expected a finite number in the float64 range, got an integer of 1329 bits",
    ),
    "one integer beyond FP64": (
        [tensor("price", "FP64", [10**400])],
        "inputs.price.data[0]: expected a finite number in the float64 range, got an integer of 1329 bits",
    ),
    "a number beyond FP32": (
        [tensor("price", "FP32", [1, 1e39, 2])],
        "inputs.price.data[1]: expected a finite number in the range of FP32, got the float 1e+39",
    ),
    "among many numbers one beyond FP32": (
        [tensor("price", "FP32", [1.0] * 39 + [1e39])],
        "inputs.price.data[39]: expected a finite number in the range of FP32, got the float inf",
    ),
    "one integer beyond all as FP32": (
        [tensor("price", "FP32", [10**400])],
        "inputs.price.data[0]: expected a finite number in the range of FP32, got an integer of 1329 bits",
    ),
    "an integer beyond all as FP32": (
        [tensor("price", "FP32", [1, 10**400, None])],
        "inputs.price.data[1]: expected a finite number in the range of FP32, got an integer of 1329 bits",
    ),
    "among many numbers one beyond all": (
        [tensor("price", "FP32", [1.0] * 39 + [10**400])],
        "inputs.price.data[39]: expected a finite number in the range of FP32, got an integer of 1329 bits",
    ),
    "one number beyond FP32": (
        [tensor("price", "FP32", [1e39])],
        "inputs.price.data[0]: expected a finite number in the range of FP32, got the float 1e+39",
    ),
    "no numeric text": (
        [tensor("price", "BYTES", ["1", "nan", "2"])],
        "inputs.price.data[1]: expected a number or numeric text, got the text 'nan'",
    ),
    "a number for text of tags": (
        [tensor("tags", "BYTES", ["x", "y", "x", 3], [2, 2])],
        "inputs.tags.data[3]: expected text or null, as BYTES has, got the integer 3",
    ),
    "shared memory beside a size": (
        [changed(data=..., parameters={"shared_memory_region": "r", "binary_data_size": 3})],
        "inputs.ad.parameters.shared_memory_region: expected data in the body, got a region of shared memory",
    ),
    "shared memory": (
        [changed(data=..., parameters={"shared_memory_region": "r", "shared_memory_byte_size": 3})],
        "inputs.ad.parameters.shared_memory_region: expected data in the body, got a region of shared memory",
    ),
    "a size without binary data": (
        [changed(data=..., parameters={"binary_data_size": 3})],
        "inputs.ad.parameters.binary_data_size: expected the header Inference-Header-Content-Length with it, got none",
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_a_wrong_tensor_is_refused_with_its_place(client: httpx.Client, case: str) -> None:
    tensors, message = TENSORS[case]
    content, headers = body(tensors)
    assert refusal(client.post(INFER, content=content, headers=headers)) == message


BYTES_SIZE = "inputs.ad.parameters.binary_data_size: expected the bytes of 3 elements, each after its length"
SIZES: dict[str, tuple[list[dict[str, Any]], bytes, str]] = {
    "a size that is no number": (
        [changed(data=..., parameters={"binary_data_size": "9"})],
        b"",
        "inputs.ad.parameters.binary_data_size: expected a number of bytes, got the text '9'",
    ),
    "a negative size": (
        [changed(data=..., parameters={"binary_data_size": -1})],
        b"",
        "inputs.ad.parameters.binary_data_size: expected a number of bytes, got the integer -1",
    ),
    "a size beyond the body": (
        [changed(data=..., parameters={"binary_data_size": 19})],
        packed("BYTES", ["a1", "a2", "a3"]),
        "inputs.ad.parameters.binary_data_size: expected at most the 18 bytes that are left of the body, got 19",
    ),
    "bytes that no tensor claims": (
        [changed(data=..., parameters={"binary_data_size": 18})],
        packed("BYTES", ["a1", "a2", "a3"]) + b"+",
        "body: expected {before} bytes, as its JSON and the sizes of its tensors say, got {all}",
    ),
    "both kinds of data": (
        [changed(parameters={"binary_data_size": 18})],
        packed("BYTES", ["a1", "a2", "a3"]),
        "inputs.ad: expected data, or binary data of a stated size, got both",
    ),
    "too few texts": (
        [changed(data=..., parameters={"binary_data_size": 12})],
        packed("BYTES", ["a1", "a2"]),
        f"{BYTES_SIZE}, got 12, which hold fewer",
    ),
    "too many texts": (
        [changed(data=..., parameters={"binary_data_size": 24})],
        packed("BYTES", ["a1", "a2", "a3", "a4"]),
        f"{BYTES_SIZE}, got 24, which hold more",
    ),
    "a text of 4 GiB": (
        [changed(data=..., parameters={"binary_data_size": 6})],
        b"\xff\xff\xff\xffab",
        f"{BYTES_SIZE}, got 6, which hold fewer",
    ),
    "bytes that are not UTF-8": (
        [changed(data=..., parameters={"binary_data_size": 18})],
        packed("BYTES", [b"a1", b"\xff\xfe", b"a3"]),
        "inputs.ad.data[1]: expected UTF-8 text, got bytes that are not UTF-8",
    ),
    "a surrogate in UTF-8": (
        [changed(data=..., parameters={"binary_data_size": 19})],
        packed("BYTES", [b"a1", b"\xed\xa0\x80", b"a3"]),
        "inputs.ad.data[1]: expected UTF-8 text, got bytes that are not UTF-8",
    ),
    "too few numbers": (
        [changed(datatype="INT32", data=..., parameters={"binary_data_size": 8})],
        bytes(8),
        "inputs.ad.parameters.binary_data_size: expected 12, for 3 elements of INT32, got 8",
    ),
    "infinity": (
        [{"name": "price", "datatype": "FP32", "shape": [3], "parameters": {"binary_data_size": 12}}],
        packed("FP32", [1.0, NAN, -float("inf")]),
        "inputs.price.data[2]: expected a finite number in the float64 range, got the float -inf",
    ),
    "infinity among many": (
        [{"name": "price", "datatype": "FP32", "shape": [40], "parameters": {"binary_data_size": 160}}],
        packed("FP32", [NAN] * 39 + [float("inf")]),
        "inputs.price.data[39]: expected a finite number in the range of FP32, got the float inf",
    ),
    "one infinity": (
        [{"name": "hour", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}}],
        packed("FP64", [float("inf")]),
        "inputs.hour.data[0]: expected a finite number in the float64 range, got the float inf",
    ),
}


@pytest.mark.parametrize("case", SIZES)
def test_binary_data_of_another_size_or_form_is_refused(client: httpx.Client, case: str) -> None:
    tensors, data, message = SIZES[case]
    document = json.dumps({"inputs": tensors}).encode()
    answer = client.post(INFER, content=document + data, headers={HEADER: str(len(document))})
    wanted = message.format_map({"before": len(document + data) - 1, "all": len(document + data)})
    assert refusal(answer) == wanted
