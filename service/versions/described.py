"""What can be served: a bundle's own directory, as its manifest describes it."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.bundle_format.manifest import MANIFEST_FILE, BundleFormatError, decode_manifest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Deployed", "describe_bundle"]

_LARGEST_MANIFEST: Final = 1 << 25
_NEVER_WAIT: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A bundle that can be served.

    Attributes:
        path: Its own directory, links on the way there resolved.
        manifest_sha256: What its manifest is, and so all that it digests.
        model_id: The model's name in answers.
        canary: Another one, served beside it to a share of the traffic.
    """

    path: Path
    manifest_sha256: str
    model_id: str
    canary: Deployed | None = None

    @property
    def version(self) -> str:
        """Name of its directory."""
        return self.path.name


def describe_bundle(bundle: Path) -> Deployed:
    """What can be served of a directory, by its manifest.

    Raises:
        BundleError: Its manifest cannot be read as one.
        OSError: Its manifest cannot be read.
    """
    root = bundle.resolve()
    manifest_path = root / MANIFEST_FILE
    content = _read_manifest(manifest_path)
    manifest = decode_manifest(content, str(manifest_path))
    return Deployed(root, hashlib.sha256(content).hexdigest(), manifest.model_id)


def _read_manifest(path: Path) -> bytes:
    """Content of a manifest, so that nothing else that lies there holds a supervisor up or fills its memory.

    Raises:
        BundleFormatError: It is too long, or no regular file.
        OSError: It cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | _NEVER_WAIT)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BundleFormatError(f"{path}: expected a regular file, got something else")
        content = file.read(_LARGEST_MANIFEST + 1)
    if len(content) > _LARGEST_MANIFEST:
        raise BundleFormatError(f"{path}: expected at most {_LARGEST_MANIFEST} bytes, got more")
    return content
