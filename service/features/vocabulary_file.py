"""The vocabulary file: one safetensors file with the arrays of `packed.PackedTokens`.

It is read in place, so that a mapped file stays mapped: the library's own reader copies. The layout is simple and
fixed: the length of a JSON header as 8 bytes little-endian, the header, and the bytes of the tensors.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from safetensors.numpy import save

from service.bundle_format import strict_json
from service.features.errors import SchemaError
from service.features.packed import PackedTokens

if TYPE_CHECKING:
    from mmap import mmap

    from numpy.typing import NDArray

__all__ = ["pack", "unpack"]

_LENGTH_BYTES: Final = 8
_LARGEST_HEADER: Final = 1 << 17  # three tensors take some two hundred bytes
# dtype in the header, and bytes an element
_TENSORS: Final = {"offsets": ("I64", 8), "tokens": ("U8", 1), "slots": ("I32", 4)}


class _Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def pack(tokens: PackedTokens) -> bytes:
    """Content of the file that holds these tokens, the same every time."""
    tensors: dict[str, NDArray[np.generic]] = {"offsets": tokens.offsets, "tokens": tokens.tokens}
    if tokens.slots is not None:
        tensors["slots"] = tokens.slots
    return save(tensors)


def unpack(content: bytes | mmap, name: str) -> PackedTokens:
    """Tokens of a file's content, without a copy, checked.

    Args:
        content: The whole file, read or mapped.
        name: What messages call it.

    Raises:
        SchemaError: No safetensors file, other tensors than the three, or content that `PackedTokens.check` refuses.
    """
    if sys.byteorder != "little":
        raise SchemaError(f"{name}: expected a little-endian machine, got a big-endian one")
    view = memoryview(content)
    start = _LENGTH_BYTES + int.from_bytes(view[:_LENGTH_BYTES], "little")
    if not _LENGTH_BYTES < start <= min(len(view), _LENGTH_BYTES + _LARGEST_HEADER):
        raise SchemaError(f"{name}: expected a safetensors file, got {len(view)} bytes without its header")
    try:
        tensors = msgspec.json.decode(view[_LENGTH_BYTES:start], type=dict[str, _Tensor])
        strict_json.loads(bytes(view[_LENGTH_BYTES:start]))
    except (ValueError, RecursionError) as error:  # msgspec's, UTF-8's and those of repeated names
        raise SchemaError(f"{name}: expected a safetensors header, got {error}") from error
    if set(tensors) not in ({"offsets", "tokens"}, set(_TENSORS)):
        raise SchemaError(f"{name}: expected the tensors offsets, tokens and perhaps slots, got {sorted(tensors)}")
    data = view[start:]
    parts = {key: _part(data, key, tensor, f"{name}, {key}") for key, tensor in tensors.items()}
    if sum(part.nbytes for part in parts.values()) != len(data):
        raise SchemaError(f"{name}: expected tensors that fill the file, got {len(data)} bytes of data")
    packed = PackedTokens(
        np.frombuffer(parts["offsets"], dtype=np.int64),
        np.frombuffer(parts["tokens"], dtype=np.uint8),
        np.frombuffer(parts["slots"], dtype=np.int32) if "slots" in parts else None,
    )
    packed.check(name)
    return packed


def _part(data: memoryview, key: str, tensor: _Tensor, name: str) -> memoryview:
    """Bytes of one tensor, after its entry in the header was checked."""
    code, width = _TENSORS[key]
    first, end = tensor.data_offsets
    if tensor.dtype != code or len(tensor.shape) != 1 or not 0 <= first <= end <= len(data):
        raise SchemaError(
            f"{name}: expected {code} of one axis within the file, got {tensor.dtype} {tensor.shape} at {first}"
        )
    if end - first != tensor.shape[0] * width:
        raise SchemaError(f"{name}: expected {tensor.shape[0] * width} bytes, got {end - first}")
    return data[first:end]
