"""The vocabulary file: one safetensors file with the tokens in id order.

Tensors: `offsets` int64 (n + 1,), `tokens` uint8 (bytes of all tokens, UTF-8, one after the other). Token i is
`tokens[offsets[i]:offsets[i + 1]]`, so a token may hold any character, newlines and NUL included.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from service.features.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["pack_tokens", "unpack_tokens"]


def pack_tokens(tokens: Sequence[str]) -> bytes:
    """Content of the file that holds these tokens."""
    encoded = [token.encode("utf-8") for token in tokens]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(token) for token in encoded], out=offsets[1:])
    return save({"offsets": offsets, "tokens": np.frombuffer(b"".join(encoded), dtype=np.uint8)})


def unpack_tokens(content: bytes, name: str) -> list[str]:
    """Tokens of a file's content.

    Args:
        content: The whole file.
        name: What messages call it.

    Raises:
        SchemaError: No safetensors file, other tensors than the two, offsets that do not cut the bytes in rising
            order, or bytes that are no UTF-8.
    """
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise SchemaError(f"{name}: expected a safetensors file, got {error}") from error
    if set(tensors) != {"offsets", "tokens"}:
        raise SchemaError(f"{name}: expected the tensors offsets and tokens, got {', '.join(sorted(tensors))}")
    offsets, blob = tensors["offsets"], tensors["tokens"]
    if offsets.dtype != np.int64 or blob.dtype != np.uint8 or offsets.ndim != 1 or blob.ndim != 1:
        raise SchemaError(f"{name}: expected int64 offsets and uint8 tokens of one axis, got other types")
    if offsets.size == 0 or offsets[0] != 0 or offsets[-1] != blob.size or (np.diff(offsets) <= 0).any():
        raise SchemaError(f"{name}: expected offsets rising from 0 to {blob.size}, got others")
    data, cuts = blob.tobytes(), offsets.tolist()
    try:
        return [data[start:end].decode("utf-8") for start, end in pairwise(cuts)]
    except UnicodeDecodeError as error:
        raise SchemaError(f"{name}: expected UTF-8 tokens, got {error}") from error
