"""Signing a test's bundle, with keys made of a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.bundle_format.signature import encode_signatures, key_id

if TYPE_CHECKING:
    from pathlib import Path


def _private_key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


GOOD_KEY_ID = key_id(_private_key(1).public_key().public_bytes_raw())


def sign(bundle: Path, seed: int = 1) -> None:
    """Write `manifest.sig`."""
    key = _private_key(seed)
    signature = key.sign((bundle / "manifest.json").read_bytes())
    (bundle / "manifest.sig").write_bytes(encode_signatures({key_id(key.public_key().public_bytes_raw()): signature}))


def write_public_key(path: Path, seed: int = 1) -> Path:
    """A file of keys to pin."""
    public = _private_key(seed).public_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path
