"""Bodies of the Open Inference Protocol, written from its specification and by nothing of the service."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import httpx

CODES = {
    "FP32": "f",
    "FP64": "d",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
}
HEADER = "inference-header-content-length"


def packed(datatype: str, values: Iterable[Any]) -> bytes:
    """Elements in the binary form."""
    if datatype == "BYTES":
        texts = [value if isinstance(value, bytes) else value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    numbers = list(values)
    return struct.pack(f"<{len(numbers)}{CODES[datatype]}", *numbers)


def tensor(name: str, datatype: str, values: Sequence[Any], shape: Sequence[int] | None = None) -> dict[str, Any]:
    """A tensor whose data is in the JSON."""
    return {"name": name, "datatype": datatype, "shape": list(shape or [len(values)]), "data": list(values)}


def body(
    tensors: Sequence[Mapping[str, Any]], *, binary: Iterable[str] = (), **members: Any
) -> tuple[bytes, dict[str, str]]:
    """A request's body and headers, with the data of the tensors named in `binary` after the JSON."""
    inputs, parts, named = [], [], set(binary)
    for given in tensors:
        written = dict(given)
        if given["name"] in named:
            data = packed(given["datatype"], written.pop("data"))
            written["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        inputs.append(written)
    document = json.dumps({"inputs": inputs, **members}).encode()
    headers = {HEADER: str(len(document))} if named else {}
    return b"".join([document, *parts]), headers


def refusal(answer: httpx.Response, status: int = 400) -> str:
    """The message of an answer in the protocol's error form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document.keys() == {"error"}
    message: str = document["error"]
    return message
