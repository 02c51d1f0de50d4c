"""`manifest.sig`: who vouches for a bundle. Format "reaction-signature", version 1.

A digest proves that a file is what the manifest says, not who wrote the manifest: whoever can write a bundle can
write its digests too. So the manifest, which digests every other file, may be signed with Ed25519 (RFC 8032), and a
service that was given public keys takes a bundle only if one of them vouches for it.

What is signed is `manifest.json`, byte for byte. The file holds one signature a key, so that keys can be changed
without a moment in which either is missing. A signature does not age: an older bundle stays as valid as it was.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from service.bundle_format.manifest import BundleSignatureError
from service.features.files import PathError, read_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "LARGEST_SIGNATURE_FILE",
    "SIGNATURE_FILE",
    "PublicKeys",
    "Signature",
    "decode_signatures",
    "encode_signatures",
    "key_id",
]

SIGNATURE_FILE: Final = "manifest.sig"
FORMAT: Final = "reaction-signature"
VERSION: Final = 1
LARGEST_SIGNATURE_FILE: Final = 1 << 16
_LARGEST_KEYS_FILE: Final = 1 << 20
_SIGNATURE_BYTES: Final = 64

_is_key_id = re.compile(r"[0-9a-f]{64}").fullmatch
_blocks = re.compile(r"-----BEGIN PUBLIC KEY-----\n.*?\n-----END PUBLIC KEY-----", re.DOTALL)


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One key's signature of a manifest.

    Attributes:
        key: Id of the key, see `key_id`.
        signature: The 64 bytes of RFC 8032, in base64.
    """

    key: str
    signature: str


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal["reaction-signature"]
    version: Literal[1]
    algorithm: Literal["ed25519"]
    signatures: list[Signature]


def key_id(public: bytes) -> str:
    """Id of a public key: SHA-256 of its 32 raw bytes, in lower-case hexadecimal."""
    return hashlib.sha256(public).hexdigest()


def encode_signatures(signatures: dict[str, bytes]) -> bytes:
    """Content of `manifest.sig`, from signatures by key id."""
    document = _Document(
        format=FORMAT,
        version=VERSION,
        algorithm="ed25519",
        signatures=[
            Signature(key=key, signature=base64.b64encode(signature).decode("ascii"))
            for key, signature in sorted(signatures.items())
        ],
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def decode_signatures(content: bytes, name: str) -> dict[str, bytes]:
    """Signatures by key id, of a file's content.

    Args:
        content: The whole file.
        name: What messages call it.

    Raises:
        BundleSignatureError: No JSON, another format, version or algorithm, an unknown key, a wrong type or value, or
            the same document written in another way.
    """
    try:
        document = msgspec.json.decode(content, type=_Document)
    except (ValueError, RecursionError) as error:
        raise BundleSignatureError(f"{name}: {error}") from error
    found: dict[str, bytes] = {}
    for entry in document.signatures:
        try:
            signature = base64.b64decode(entry.signature.encode("ascii"), validate=True)
        except ValueError:  # also of what is no ASCII
            signature = b""
        if _is_key_id(entry.key) is None or len(signature) != _SIGNATURE_BYTES or entry.key in found:
            raise BundleSignatureError(f"{name}: expected an id and 64 bytes in base64, once a key, got {entry}")
        found[entry.key] = signature
    if content != encode_signatures(found):
        raise BundleSignatureError(f"{name}: expected signatures as they are written, got the same in other words")
    return found


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """Public keys that may vouch for a bundle.

    Attributes:
        source: Where they were read, for messages.
        raw: The 32 bytes of each, by key id.
    """

    source: str
    raw: dict[str, bytes]

    @classmethod
    def read(cls, path: Path) -> PublicKeys:
        """Keys of a file: PEM blocks `PUBLIC KEY`, one or several, and lines that begin with `#`.

        Raises:
            BundleSignatureError: The file cannot be read, holds no key, or something else than Ed25519 public keys.
        """
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - only where keys are pinned
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

        try:
            text = read_file(path, _LARGEST_KEYS_FILE).decode("ascii").replace("\r\n", "\n")
        except (OSError, ValueError, PathError) as error:
            raise BundleSignatureError(f"{path}: expected a file of public keys, got {error}") from error
        rest = _blocks.sub("", text)
        if any(line.strip() and not line.startswith("#") for line in rest.splitlines()):
            raise BundleSignatureError(f"{path}: expected PEM blocks PUBLIC KEY and lines with #, got something else")
        raw: dict[str, bytes] = {}
        for block in _blocks.findall(text):
            try:
                key = load_pem_public_key(block.encode("ascii"))
            except (ValueError, UnsupportedAlgorithm) as error:
                raise BundleSignatureError(f"{path}: expected an Ed25519 public key, got {error}") from error
            if not isinstance(key, Ed25519PublicKey):
                raise BundleSignatureError(f"{path}: expected an Ed25519 public key, got {type(key).__name__}")
            raw[key_id(key.public_bytes_raw())] = key.public_bytes_raw()
        if not raw:
            raise BundleSignatureError(f"{path}: expected one public key or more, got none")
        return cls(str(path), raw)

    def voucher(self, manifest: bytes, signatures: bytes, name: str) -> str:
        """Id of the first pinned key that vouches for a manifest.

        Args:
            manifest: `manifest.json`, byte for byte.
            signatures: `manifest.sig`.
            name: What messages call the latter.

        Raises:
            BundleSignatureError: None of them does.
        """
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        found = decode_signatures(signatures, name)
        pinned = sorted(set(found) & set(self.raw))
        for key in pinned:
            try:
                Ed25519PublicKey.from_public_bytes(self.raw[key]).verify(found[key], manifest)
            except InvalidSignature:
                continue
            return key
        got = f"one by {pinned[0][:16]} that is not of this manifest" if pinned else f"those of {_short(found)}"
        raise BundleSignatureError(
            f"{name}: expected a signature of the manifest by a key of {self.source} ({_short(self.raw)}), got {got}"
        )


def _short(keys: dict[str, bytes]) -> str:
    return ", ".join(key[:16] for key in sorted(keys)) or "none"
