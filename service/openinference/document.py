"""The JSON part of an inference request, read once into typed structures.

What a tensor may hold is for `tensors` and `encode` to say; here is only the shape of the document. Members that the
protocol does not name are passed over, because clients send their own (KServe's repeats the model's name).
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from service.body_faults import explain_malformed, refuse_repeated_members
from service.errors import MalformedBodyError
from service.openinference.faults import explain_document

__all__ = ["InferRequest", "InputTensor", "RequestedOutput", "decode", "split"]

Parameters = dict[str, Any] | UnsetType | None


class InputTensor(msgspec.Struct, gc=False):
    """One input as it came in.

    Attributes:
        name: Name of a field.
        shape: Its dimensions.
        datatype: The protocol's name of its type.
        data: Its elements, flat or nested; absent where they are binary.
        parameters: `binary_data_size` in bytes, and whatever a client adds.
    """

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | UnsetType | None = UNSET
    parameters: Parameters = UNSET


class RequestedOutput(msgspec.Struct, gc=False):
    """One output that is asked for; `binary_data` in its parameters says in which form."""

    name: str
    parameters: Parameters = UNSET


class InferRequest(msgspec.Struct, gc=False):
    """One inference request as it came in."""

    inputs: list[InputTensor]
    id: str | UnsetType | None = UNSET
    outputs: list[RequestedOutput] | UnsetType | None = UNSET
    parameters: Parameters = UNSET
    model_name: str | UnsetType | None = UNSET

    def names(self) -> int:
        """Names in the objects of the document, as far as the protocol knows them; see `refuse_repeated_members`."""
        count = 1 + (self.id is not UNSET) + (self.model_name is not UNSET) + _names_of(self.parameters)
        for tensor in self.inputs:
            parameters = tensor.parameters
            count += 3 if tensor.data is UNSET else 4
            if parameters is not UNSET:
                count += 1 if parameters is None else 1 + len(parameters)
        if self.outputs is not UNSET:
            count += 1
            for output in self.outputs or ():
                count += 1 + _names_of(output.parameters)
        return count


def _names_of(parameters: Parameters) -> int:
    if parameters is UNSET:
        return 0
    return 1 if parameters is None else 1 + len(parameters)


_decode: Final = msgspec.json.Decoder(InferRequest).decode
_find_no_number: Final = re.compile(rb"NaN|Infinity").search


def decode(document: bytes) -> InferRequest:
    """Read the JSON part of a request.

    NaN and Infinity are no JSON, but NVIDIA's client writes them: they are read too, if slowly.

    Raises:
        MalformedBodyError: The bytes are no document, name a member twice, or nest too deeply.
        MemberError: The document has the wrong shape.
    """
    try:
        try:
            request = _decode(document)
        except msgspec.DecodeError:
            if _find_no_number(document) is None:
                raise
            request = _decode_no_numbers(document)
        refuse_repeated_members(document, request.names())
    except msgspec.ValidationError as error:
        raise explain_document(document, error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise explain_malformed(document, error, packed=False) from None
    except RecursionError:
        raise MalformedBodyError("The body is nested too deeply.", where="body") from None
    return request


def _constant(name: str) -> float | None:
    """Null, which is missing as NaN is, or an infinity, which is refused where it stands."""
    return None if name == "NaN" else float(name)


def _decode_no_numbers(document: bytes) -> InferRequest:
    """Read a document that may hold NaN and Infinity.

    Raises:
        msgspec.DecodeError: It is none even so, or none of a request: whatever the fast way says of it.
    """
    try:
        content = json.loads(document, parse_constant=_constant)
        msgspec.json.encode(content)  # fails on half a surrogate pair, which nothing could answer with
    except (ValueError, RecursionError):
        return _decode(document)
    return msgspec.convert(content, InferRequest)


def split(body: bytes, header_length: int | None) -> bytes:
    """The JSON part of a body.

    Args:
        body: JSON, then binary data.
        header_length: Bytes of the JSON part; None where it is the whole body.

    Raises:
        MalformedBodyError: The body is shorter than its JSON part is said to be.
    """
    if header_length is None:
        return body
    if header_length > len(body):
        raise MalformedBodyError(
            f"Inference-Header-Content-Length: expected at most the body's {len(body)} bytes, got {header_length}.",
            where="Inference-Header-Content-Length",
            expected=f"at most {len(body)}",
            got=str(header_length),
        )
    return body[:header_length]
