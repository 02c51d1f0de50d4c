"""The files of a bundle: which there are, what they must be, and who vouches for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.features.files import PathError, confined, digest_files, read_file
from service.manifest import (
    MANIFEST_FILE,
    BundleCorruptError,
    BundleFormatError,
    BundleMissingError,
    BundleSignatureError,
    Manifest,
)
from service.signature import LARGEST_SIGNATURE_FILE, SIGNATURE_FILE

if TYPE_CHECKING:
    from service.signature import PublicKeys

__all__ = [
    "FEATURES_FILE",
    "GOLDEN_FILE",
    "MODEL_FILE",
    "REFERENCE_FILE",
    "UNLISTED",
    "check_files",
    "present",
    "read",
    "voucher",
]

FEATURES_FILE: Final = "features.json"
MODEL_FILE: Final = "model.onnx"
GOLDEN_FILE: Final = "golden.jsonl"
REFERENCE_FILE: Final = "reference.json"
UNLISTED: Final = frozenset({MANIFEST_FILE, SIGNATURE_FILE})
"""Files that the manifest cannot digest: itself, and what signs it."""


def voucher(root: Path, manifest: bytes, keys: PublicKeys) -> str:
    """Id of the key that vouches for a manifest.

    Raises:
        BundleSignatureError: There is none, or no signature at all.
    """
    try:
        signatures = read_file(confined(root, SIGNATURE_FILE), LARGEST_SIGNATURE_FILE)
    except (OSError, PathError) as error:
        got = "none" if isinstance(error, FileNotFoundError) else str(error)
        raise BundleSignatureError(
            f"{root / SIGNATURE_FILE}: expected a signature by a key of {keys.source}, got {got}"
        ) from error
    return keys.voucher(manifest, signatures, str(root / SIGNATURE_FILE))


def present(root: Path) -> set[str]:
    """Relative POSIX paths of everything below root that is no directory."""
    names: set[str] = set()
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        names.update((Path(folder) / name).relative_to(root).as_posix() for name in (*files, *links))
    return names


def check_files(root: Path, manifest: Manifest, *, verify: bool) -> None:
    """Compare what is there with what the manifest names: names first, then sizes, then digests."""
    for name in (FEATURES_FILE, MODEL_FILE, GOLDEN_FILE, REFERENCE_FILE):
        if name not in manifest.files:
            raise BundleFormatError(f"{root / MANIFEST_FILE}, files: expected {name}, got none")
    for name in UNLISTED & set(manifest.files):
        raise BundleFormatError(f"{root / MANIFEST_FILE}, files: expected files beside it, got {name}")
    paths = {name: _inside(root, name) for name in manifest.files}
    extra = present(root) - set(manifest.files) - UNLISTED
    if extra:
        raise BundleCorruptError(f"{root}: expected only files of the manifest, got {min(extra)!a} beside them")
    for name, entry in manifest.files.items():
        size = paths[name].stat().st_size
        if size != entry.bytes:
            raise BundleCorruptError(f"{paths[name]}: expected {entry.bytes} bytes, got {size}")
    if verify:
        found = digest_files(paths.values())
        for name, entry in manifest.files.items():
            sha256 = found[paths[name]].sha256
            if sha256 != entry.sha256:
                raise BundleCorruptError(f"{paths[name]}: expected SHA-256 {entry.sha256}, got {sha256}")


def _inside(root: Path, name: str) -> Path:
    try:
        return confined(root, name)
    except PathError as error:
        raise BundleCorruptError(f"{root}: {error}") from error
    except OSError as error:
        raise BundleMissingError(f"{root / name}: expected a file, got {error.strerror}") from error


def read(root: Path, name: str) -> bytes:
    """Content of a file that is reached without leaving the bundle.

    Raises:
        BundleCorruptError: A path that leaves it, or no regular file.
        BundleMissingError: No such file.
    """
    return _inside(root, name).read_bytes()
