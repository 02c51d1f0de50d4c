"""The files of a bundle: which there are, what they must be, and who vouches for them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.bundle_format.graph_files import check_graph_files
from service.bundle_format.manifest import (
    MANIFEST_FILE,
    BundleChangedError,
    BundleCorruptError,
    BundleFormatError,
    BundleMissingError,
    BundleSignatureError,
    Manifest,
)
from service.bundle_format.signature import LARGEST_SIGNATURE_FILE, SIGNATURE_FILE
from service.features.files import PathError, confined, digest_files, read_file, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.bundle_format.signature import PublicKeys
    from service.features.files import FileState

__all__ = [
    "FEATURES_FILE",
    "GOLDEN_FILE",
    "MODEL_FILE",
    "REFERENCE_FILE",
    "UNLISTED",
    "check_files",
    "present",
    "read",
    "refuse_changed",
    "voucher",
]

FEATURES_FILE: Final = "features.json"
MODEL_FILE: Final = "model.onnx"
GOLDEN_FILE: Final = "golden.jsonl"
REFERENCE_FILE: Final = "reference.json"
LARGEST_JSON: Final = 1 << 25
"""Bytes of a manifest, golden rows or reference statistics; those of 39 fields take under 2^17."""
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
    return set(_walk(root))


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in (*files, *links):
            yield (Path(folder) / name).relative_to(root).as_posix()


def check_files(root: Path, manifest: Manifest, *, verify: bool) -> dict[Path, FileState]:
    """Compare what is there with what the manifest names: names first, then sizes, digests, and what graphs read.

    Args:
        root: The bundle.
        manifest: What it names.
        verify: Whether to digest.

    Returns:
        What each file and folder was before it was looked at.

    Raises:
        BundleError: See `service.bundle.read_bundle`.
    """
    _check_names(root, manifest)
    paths = {name: _inside(root, name) for name in manifest.files}
    for name in _walk(root):
        if name not in manifest.files and name not in UNLISTED:
            raise BundleCorruptError(f"{root}: expected only files of the manifest, got {name!a} beside them")
    states = {path: state_of(path) for path in paths.values()}
    states |= {
        folder: _place(folder) for path in paths.values() for folder in path.parents if folder.is_relative_to(root)
    }
    for name, entry in manifest.files.items():
        size = states[paths[name]].bytes
        if size != entry.bytes:
            raise BundleCorruptError(f"{paths[name]}: expected {entry.bytes} bytes, got {size}")
    if verify:
        _check_digests(paths, manifest)
    sizes = {name: entry.bytes for name, entry in manifest.files.items()}
    for name in (MODEL_FILE, *(variant.file for variant in manifest.variants.values())):
        check_graph_files(root, name, sizes)
    return states


def refuse_changed(states: Mapping[Path, FileState]) -> None:
    """Refuse files that are no longer what they were when they were looked at.

    Raises:
        BundleChangedError: One was replaced, written to or removed; or a folder was replaced.
    """
    for path, state in states.items():
        try:
            now = _place(path) if stat.S_ISDIR(state.mode) else state_of(path)
        except OSError as error:
            raise BundleChangedError(f"{path}: expected the file that was digested, got {error.strerror}") from error
        if now != state:
            raise BundleChangedError(f"{path}: expected the file that was digested, got one that changed meanwhile")


def _place(folder: Path) -> FileState:
    """Which folder it is. Its times are left out: a signature may come into it at any moment."""
    return state_of(folder)._replace(bytes=0, modified=0, changed=0)


def _check_names(root: Path, manifest: Manifest) -> None:
    for name in (FEATURES_FILE, MODEL_FILE, GOLDEN_FILE, REFERENCE_FILE):
        if name not in manifest.files:
            raise BundleFormatError(f"{root / MANIFEST_FILE}, files: expected {name}, got none")
    for name in UNLISTED & set(manifest.files):
        raise BundleFormatError(f"{root / MANIFEST_FILE}, files: expected files beside it, got {name}")


def _check_digests(paths: Mapping[str, Path], manifest: Manifest) -> None:
    try:
        found = digest_files(paths.values())
    except (PathError, OSError) as error:
        raise BundleCorruptError(f"expected files that can be read, got {error}") from error
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
    """Content of one of a bundle's JSON files, reached without leaving the bundle.

    Raises:
        BundleCorruptError: A path that leaves it, or no regular file.
        BundleFormatError: It is longer than any of its kind.
        BundleMissingError: No such file.
    """
    path = _inside(root, name)
    try:
        return read_file(path, LARGEST_JSON)
    except PathError as error:
        raise BundleFormatError(str(error)) from error
    except OSError as error:
        raise BundleMissingError(f"{path}: expected a file, got {error.strerror}") from error
