"""The split: which routing keys a canary scores. Published, so that anybody can compute a key's arm.

    int(sha256(key as UTF-8).hexdigest()[:8], 16) < share * 2**32

The same in every process, for every pair of versions and at every time; a larger share only adds keys.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

__all__ = ["bucket_of", "in_share", "key_in"]

_BUCKETS: Final = 2.0**32
_BYTES: Final = 4


class _Keyed(msgspec.Struct, gc=False):
    """The one member of a body that is looked at; whatever else is wrong with a body is for the version to say."""

    routing_key: str | None = None


_decode_json = msgspec.json.Decoder(_Keyed).decode
_decode_msgpack = msgspec.msgpack.Decoder(_Keyed).decode


def bucket_of(key: bytes) -> int:
    """A key's place among 2^32."""
    return int.from_bytes(sha256(key).digest()[:_BYTES], "big")


def in_share(key: bytes, share: float) -> bool:
    """Whether a canary with this share of the keys scores a key."""
    return bucket_of(key) < share * _BUCKETS


def key_in(body: bytes, *, packed: bool) -> bytes | None:
    """The routing key in a body; None where there is none that can be read.

    Args:
        body: Not compressed.
        packed: MessagePack, else JSON.
    """
    try:
        key = (_decode_msgpack if packed else _decode_json)(body).routing_key
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return key.encode() if key else None
