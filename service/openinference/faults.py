"""Finding out where the JSON part of an inference request breaks the protocol's form. Never runs on a good one."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from service.body_faults import numbers_out_of_range, read_text_numbers
from service.errors import MemberError
from service.features.errors import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["explain_document"]


def explain_document(document: bytes, error: Exception) -> MemberError:
    """Say which member of a well-formed document has the wrong type or is missing.

    Args:
        document: The JSON part of the body.
        error: What the decoder raised; its text is the answer if nothing better is found.
    """
    fallback = MemberError("body", "an inference request", f"one with a fault ({error})")
    try:
        content = read_text_numbers(document)
        return next(chain(numbers_out_of_range(content, ""), _faults(content)), fallback)
    except (ValueError, RecursionError):
        return fallback


def _faults(content: Any) -> Iterator[MemberError]:
    if not isinstance(content, dict):
        yield MemberError("body", "an object", describe(content))
        return
    if "inputs" not in content:
        yield MemberError("inputs", "an array of tensors", "nothing")
    elif not isinstance(content["inputs"], list):
        yield MemberError("inputs", "an array of tensors", describe(content["inputs"]))
    else:
        for index, tensor in enumerate(content["inputs"]):
            yield from _tensor_faults(f"inputs[{index}]", tensor)
    for name in ("id", "model_name"):
        if not isinstance(content.get(name), (str, type(None))):
            yield MemberError(name, "text", describe(content[name]))
    outputs = content.get("outputs")
    if not isinstance(outputs, (list, type(None))):
        yield MemberError("outputs", "an array of requested outputs", describe(outputs))
    else:
        for index, output in enumerate(outputs or ()):
            yield from _named_faults(f"outputs[{index}]", output)
    yield from _parameter_faults("parameters", content)


def _tensor_faults(where: str, tensor: Any) -> Iterator[MemberError]:
    yield from _named_faults(where, tensor)
    if not isinstance(tensor, dict):
        return
    if not isinstance(tensor.get("datatype"), str):
        yield MemberError(f"{where}.datatype", "text", _given(tensor, "datatype"))
    shape = tensor.get("shape")
    if not isinstance(shape, list):
        yield MemberError(f"{where}.shape", "an array of integers", _given(tensor, "shape"))
    else:
        for axis, dimension in enumerate(shape):
            if isinstance(dimension, bool) or not isinstance(dimension, int):
                yield MemberError(f"{where}.shape[{axis}]", "an integer", describe(dimension))
    if not isinstance(tensor.get("data"), (list, type(None))):
        yield MemberError(f"{where}.data", "an array", describe(tensor["data"]))


def _named_faults(where: str, thing: Any) -> Iterator[MemberError]:
    if not isinstance(thing, dict):
        yield MemberError(where, "an object", describe(thing))
        return
    if not isinstance(thing.get("name"), str):
        yield MemberError(f"{where}.name", "text", _given(thing, "name"))
    yield from _parameter_faults(f"{where}.parameters", thing)


def _parameter_faults(where: str, thing: dict[str, Any]) -> Iterator[MemberError]:
    if not isinstance(thing.get("parameters"), (dict, type(None))):
        yield MemberError(where, "an object", describe(thing["parameters"]))


def _given(thing: dict[str, Any], name: str) -> str:
    return describe(thing[name]) if name in thing else "nothing"
