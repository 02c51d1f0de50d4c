"""What files a graph reads: the external data of its tensors, found without a library for graphs.

ONNX Runtime opens these files by itself, from whatever place the graph names (an address in its own memory included).
A bundle's graph may name files of its manifest only, so the graph is walked as what it is on disk, a protocol buffer,
and every tensor's place of data is looked at: in subgraphs, attributes, sparse tensors and functions too.
"""

from __future__ import annotations

import re
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Final

from service.bundle_format.manifest import BundleCorruptError, BundleFormatError
from service.features.files import open_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["check_graph_files", "external_data"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT: Final = 10
_DEEPEST: Final = 100  # as the library that reads it after us
_MOST_FIELDS: Final = 5_000_000
_LARGEST_FIELD: Final = (1 << 29) - 1

# Of each message: which of its fields hold messages that may lead to a tensor. Numbers are onnx.proto's.
_ENTRY: Final = "StringStringEntryProto"
_INSIDE: Final[dict[str, dict[int, str]]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "TensorProto": {13: _ENTRY},
    _ENTRY: {},
}
_KEY, _VALUE = 1, 2

_is_number = re.compile(r"[0-9]{1,19}").fullmatch


class _Walk:
    """One pass over a message.

    Args:
        content: The whole message.
    """

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._fields = 0

    def entries(self, kind: str, start: int, end: int, depth: int = 0) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Keys and values of every entry of external data within content[start:end], a message of a kind."""
        if depth > _DEEPEST:
            raise ValueError(f"expected at most {_DEEPEST} levels, got more")
        if kind == _ENTRY:
            texts: dict[int, list[bytes]] = {_KEY: [], _VALUE: []}
            for number, first, last in self._members(start, end):
                if number in texts:
                    texts[number].append(bytes(self._content[first:last]))
            yield texts[_KEY], texts[_VALUE]
            return
        inside = _INSIDE[kind]
        for number, first, last in self._members(start, end):
            if number in inside:
                yield from self.entries(inside[number], first, last, depth + 1)

    def _members(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number, start and end of every length-delimited field; others cannot hold a message."""
        while at < end:
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise ValueError(f"expected at most {_MOST_FIELDS} fields, got more")
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if not 1 <= number <= _LARGEST_FIELD:
                raise ValueError(f"expected a field number, got {number} before byte {at}")
            if wire == _VARINT:
                _, at = self._varint(at, end)
                continue
            if wire == _BYTES:
                length, at = self._varint(at, end)
            elif wire in _FIXED:
                length = _FIXED[wire]
            else:
                raise ValueError(f"expected a wire type that ONNX uses, got {wire} before byte {at}")
            if length > end - at:
                raise ValueError(f"expected {length} bytes at {at}, got {end - at}")
            if wire == _BYTES:
                yield number, at, at + length
            at += length

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """A number, and where it ends."""
        value = 0
        for shift in range(_LONGEST_VARINT):
            if at >= end:
                break
            byte = self._content[at]
            at += 1
            value |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:  # noqa: PLR2004 - the last byte of the number
                return value, at
        raise ValueError(f"expected a number that ends before byte {at}")


def external_data(content: memoryview) -> Iterator[tuple[str, str]]:
    """Keys and values of all external data of a graph, such as ("location", "model.onnx.data").

    Where an entry holds several keys or values, of which its reader takes the last, each pair of them is given.

    Args:
        content: The graph's file.

    Raises:
        ValueError: It is no protocol buffer, or a key or value is no UTF-8.
    """
    for keys, values in _Walk(content).entries("ModelProto", 0, len(content)):
        for key in keys or [b""]:
            for value in values or [b""]:
                yield key.decode("utf-8"), value.decode("utf-8")


def check_graph_files(root: Path, name: str, sizes: Mapping[str, int]) -> None:
    """Refuse a graph that reads anything but files of its bundle.

    Args:
        root: The bundle.
        name: The graph's file, relative to root.
        sizes: Bytes of each file that the manifest names.

    Raises:
        BundleFormatError: The file is no graph.
        BundleCorruptError: A tensor's data lies in a file that the manifest does not name, or beyond its end.
    """
    path = root / name
    folder = name.rpartition("/")[0]
    try:
        with open_file(path) as file:
            content = mmap(file.fileno(), 0, access=ACCESS_READ)  # of an empty file: a ValueError
        with content, memoryview(content) as view:
            found = list(external_data(view))
    except ValueError as error:
        raise BundleFormatError(f"{path}: expected a graph, got {error}") from error
    largest = max(sizes.values(), default=0)
    for key, value in found:
        if key == "location":
            place = f"{folder}/{value}" if folder else value
            if place not in sizes:
                raise BundleCorruptError(f"{path}: expected data in files of the manifest, got {value[:200]!a}")
        elif key in {"offset", "length"} and not (_is_number(value) and int(value) <= largest):
            raise BundleCorruptError(f"{path}: expected data within a file, got {key} {value[:60]!a}")
