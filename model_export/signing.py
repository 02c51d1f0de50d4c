"""Keys and signatures: `python -m model_export keygen` and `python -m model_export sign`.

A bundle is signed after it was written and stays what it is: `manifest.sig` comes beside its manifest, and a service
with REACTION_BUNDLE_KEYS_FILE takes it. Whoever holds the private key vouches for bundles, so it belongs on the
machine that trains or releases, never on one that serves.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Final

import typer

from service.bundle import BundleError, read_bundle
from service.bundle_format.signature import (
    LARGEST_SIGNATURE_FILE,
    SIGNATURE_FILE,
    decode_signatures,
    encode_signatures,
    key_id,
)
from service.features.files import PathError, read_file, replaced_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["COMMANDS", "SigningError", "app", "generate_key", "read_key", "sign_bundle"]

_LARGEST_KEY_FILE: Final = 1 << 16
_OWNER_ONLY: Final = 0o600
_USER_ERROR: Final = 2


class SigningError(ValueError):
    """A key cannot be made or read, or a bundle cannot be signed."""


def generate_key(private: Path, public: Path) -> str:
    """Write a new Ed25519 key pair, PEM files that openssl reads as well; nothing is ever overwritten.

    Args:
        private: File of the private key (PKCS #8); only its owner may read it.
        public: File of the public key, what services pin.

    Returns:
        Id of the key.

    Raises:
        SigningError: One of the files cannot be made, or exists.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - slow
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    found = key.public_key()
    contents = {
        public: found.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        private: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }
    made: list[Path] = []
    try:
        for path, content in contents.items():
            mode = _OWNER_ONLY if path is private else 0o644
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                made.append(path)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        for path in made:
            path.unlink()
        raise SigningError(f"{error.filename}: expected a file that can be made, got {error.strerror}") from error
    return key_id(found.public_bytes_raw())


def read_key(path: Path) -> Ed25519PrivateKey:
    """The private key of a PEM file.

    Raises:
        SigningError: No file, or not an unencrypted Ed25519 private key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(read_file(path, _LARGEST_KEY_FILE), password=None)
    except (OSError, PathError) as error:
        raise SigningError(f"{path}: expected a file with a private key, got {error}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # the second for an encrypted one
        raise SigningError(f"{path}: expected an unencrypted Ed25519 private key in PEM, got {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{path}: expected an Ed25519 private key, got {type(key).__name__}")
    return key


def sign_bundle(path: Path, key: Ed25519PrivateKey) -> str:
    """Sign a bundle that is whole: every file is read and compared with its digest first.

    The signature appears in one step, so that a service may read the bundle meanwhile. Those of other keys stay.

    Args:
        path: Directory of the bundle.
        key: What to sign with.

    Returns:
        Id of the key.

    Raises:
        BundleError: No bundle, or one that the service would refuse.
        SigningError: The signature cannot be written.
    """
    bundle = read_bundle(path)
    root = bundle.path
    target = root / SIGNATURE_FILE
    signatures: dict[str, bytes] = {}
    with contextlib.suppress(FileNotFoundError):
        signatures = decode_signatures(read_file(target, LARGEST_SIGNATURE_FILE), str(target))
    owner = key_id(key.public_key().public_bytes_raw())
    signatures[owner] = key.sign(bundle.manifest_bytes)  # not read again: what was checked is what is signed
    try:
        # Written beside the bundle: a file that its manifest does not name would make the bundle invalid meanwhile.
        with replaced_file(target, aside=root.parent) as staged:
            staged.write_bytes(encode_signatures(signatures))
    except OSError as error:
        raise SigningError(f"{target}: expected a file that can be written, got {error.strerror}") from error
    return owner


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def keygen(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="private key to write; FILE.pub is what to pin")],
) -> None:
    """Make a pair of Ed25519 keys."""
    public = out.with_name(f"{out.name}.pub")
    try:
        made = generate_key(out, public)
    except SigningError as error:
        raise _refused(error) from error
    typer.echo(
        f"key {made}\nprivate {out}: keep it from machines that serve\npublic {public}: for REACTION_BUNDLE_KEYS_FILE"
    )


@app.command()
def sign(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="directory of the bundle")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="private key, PEM")],
) -> None:
    """Check a bundle and write its manifest.sig."""
    try:
        owner = sign_bundle(bundle, read_key(key))
    except (BundleError, SigningError, PathError, OSError) as error:
        raise _refused(error) from error
    typer.echo(f"signed {bundle} with key {owner}")


def _refused(error: Exception) -> typer.Exit:
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(_USER_ERROR)


COMMANDS: Final = ("keygen", "sign")
