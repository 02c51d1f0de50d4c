"""Damages that keep a file's outer form, so that what lies behind its parser is reached: a value, a field, a header.

Of a flipped byte most land in JSON's punctuation or in a length, and are refused there.
"""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

import onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

__all__ = ["STRUCTURED", "change_value"]

_LENGTH_BYTES: Final = 8
_NUMBERS: Final = (0, 1, -1, 2, 127, 255, 2**15, 2**31 - 1, -(2**31), 2**32, 2**53, 2**63 - 1, -(2**63))
_VALUES: Final[tuple[Any, ...]] = (
    *_NUMBERS,
    *(None, True, False, "", "0", "\0", "../x", "/dev/zero", "é" * 300, [], {}, [[]], {"": {}}),
    *(0.5, -0.0, 1e308, 5e-324, 1e-9, 2**64, 10**30),
)
_NAMES: Final = (b"", b"\xff\xfe", b"x" * 5000, b"../../x", b"a\0b", *(b"Loop If Gather pctr model.onnx.data".split()))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with one of its keys or positions."""
    if isinstance(value, (dict, list)):
        for place, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, place
            yield from _places(inner)


def change_value(draw: Random, document: Any) -> Any:
    """One change somewhere in a document; a document that holds nothing becomes another."""
    places = list(_places(document))
    if not places:
        return deepcopy(draw.choice(_VALUES))
    container, place = draw.choice(places)
    what = draw.randrange(5)
    if what == 0:
        del container[place]
    elif what == 1:
        other, there = draw.choice(places)
        container[place] = deepcopy(other[there])  # a container may not hold itself
    elif what == 2 and isinstance(container, list):  # noqa: PLR2004
        container.insert(place, container[place])
    elif what == 3 and isinstance(container[place], int):  # noqa: PLR2004
        container[place] += draw.choice((-1, 1))
    else:
        container[place] = deepcopy(draw.choice(_VALUES))  # which a later change may change
    return document


def _json(draw: Random, content: bytes) -> bytes:
    return json.dumps(change_value(draw, json.loads(content))).encode()


def _json_lines(draw: Random, content: bytes) -> bytes:
    lines = content.splitlines()
    at = draw.randrange(len(lines))
    lines[at] = _json(draw, lines[at])
    return b"\n".join(lines) + b"\n"


def _safetensors(draw: Random, content: bytes) -> bytes:
    """A value of the header, or a number of a tensor, at its own place."""
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    if draw.randrange(2):
        header = _json(draw, content[_LENGTH_BYTES:start])
        return len(header).to_bytes(_LENGTH_BYTES, "little") + header + content[start:]
    changed = bytearray(content)
    width = draw.choice((1, 4, 8))
    at = start + width * draw.randrange(max(1, (len(content) - start) // width))
    changed[at : at + width] = (draw.choice(_NUMBERS) % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(changed)


def _messages(message: Any) -> Iterator[Any]:
    """A message of a protocol buffer (which has no types), and all within."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from _messages(inner)


def _graph(draw: Random, content: bytes) -> bytes:
    """A field of one message of a graph: an operator, a name, a shape, a type, a weight, a place in another file."""
    model = onnx.load_model_from_string(content)
    message = draw.choice([found for found in _messages(model) if found.ListFields()])
    field, value = draw.choice(message.ListFields())
    if field.is_repeated:
        _change_repeated(draw, value, of_messages=field.message_type is not None)
    elif field.message_type is not None or not draw.randrange(6):
        message.ClearField(field.name)
    else:
        known = field.enum_type and [member.number for member in field.enum_type.values]
        setattr(message, field.name, draw.choice(known) if known else _another(draw, value))
    changed: bytes = model.SerializeToString()
    return changed


def _change_repeated(draw: Random, values: Any, *, of_messages: bool) -> None:
    at, what = draw.randrange(len(values)), draw.randrange(3)
    if what == 0:
        del values[at]
    elif what == 1:
        values.extend([values[at]])
    elif of_messages:
        values[at].CopyFrom(values[draw.randrange(len(values))])
    else:
        values[at] = _another(draw, values[at])


def _another(draw: Random, value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bytes):
        piece = draw.choice(_NAMES)
        return draw.choice((piece, value[: draw.randrange(len(value) + 1)], value + piece))
    if isinstance(value, str):
        return draw.choice(_NAMES).decode("latin-1")
    if isinstance(value, float):
        return draw.choice((0.0, -1.0, 3e38, float("nan"), float("inf")))
    return draw.choice([*range(24), *_NUMBERS]) % 2**31


def _tables(draw: Random, content: bytes) -> bytes:
    """A number where there is one: most of a small file of tables is what aligns them."""
    changed = bytearray(content)
    at = draw.choice([place for place, byte in enumerate(content) if byte])
    piece = draw.choice((b"\xff" * 4, b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", b"\0\0\xc0\xff", b"\x80"))
    changed[at : at + len(piece)] = piece[: len(content) - at]
    return bytes(changed)


STRUCTURED: Final[dict[str, Callable[[Random, bytes], bytes]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".safetensors": _safetensors,
    ".onnx": _graph,
    ".data": _tables,
}
"""By a file's ending. Each takes a draw and the content of a good file."""
