"""The bundle store: versions side by side, and which of them is served.

::

    store/ versions/<name>/   bundles, each as export wrote it
           current            symbolic link to the one that is served
           previous           the one before it, for a rollback
           candidate.json     the one on trial beside it, and how (`service.trial`)

A version appears whole (written aside, synced, renamed) and is never changed. `current` changes by one rename, so that
whoever looks sees the old version or the new one. What is served is a version's own directory, not the link to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.bundle_format.manifest import MANIFEST_FILE, BundleError, BundleFormatError, decode_manifest
from service.trial.candidate import CandidateError, read_candidate

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Deployed",
    "Store",
    "StoreError",
    "deployed",
    "deployed_before",
    "describe_bundle",
    "is_store",
    "served_bundle",
]

VERSIONS: Final = "versions"
CURRENT: Final = "current"
PREVIOUS: Final = "previous"
_LOCK: Final = ".lock"
_LARGEST_MANIFEST: Final = 1 << 25
_NEVER_WAIT: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_is_name: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}").fullmatch


class StoreError(ValueError):
    """A store, or what it is asked for, is not as it has to be; the message says what was expected and what came."""


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


def is_store(path: Path) -> bool:
    """Whether a directory is a store, and no bundle."""
    return (path / VERSIONS).is_dir() and not (path / MANIFEST_FILE).exists()


def served_bundle(path: Path) -> Path:
    """The bundle at a path, or the current version of the store there.

    Raises:
        StoreError: The store has no current version.
    """
    if not is_store(path):
        return path
    name = Store(path).current()
    if name is None:
        raise StoreError(f"{path}: expected a current version, got none; `versions activate` chooses one")
    return path / VERSIONS / name


def deployed(path: Path) -> Deployed:
    """What is to be served now: the bundle at a path, or the current version of the store there.

    Raises:
        StoreError: The store has no current version.
        BundleError: Its manifest cannot be read as one.
        OSError: Its manifest cannot be read.
    """
    return describe_bundle(served_bundle(path))


def deployed_before(path: Path) -> Deployed | None:
    """The version before the current one of the store at a path; None where there is none that can be read."""
    name = Store(path).previous() if is_store(path) else None
    if name is None:
        return None
    try:
        return describe_bundle(path / VERSIONS / name)
    except (OSError, BundleError):
        return None


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


class Store:
    """A bundle store.

    Args:
        root: Its directory; made by the first `add`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Names of all versions, the latest added last."""
        try:
            found = [entry for entry in (self.root / VERSIONS).iterdir() if _is_name(entry.name) and entry.is_dir()]
        except FileNotFoundError:
            return []
        return [entry.name for entry in sorted(found, key=lambda entry: (entry.stat().st_ctime_ns, entry.name))]

    def current(self) -> str | None:
        """Name of the version that is to be served."""
        return self._link(CURRENT)

    def previous(self) -> str | None:
        """Name of the version that was served before it."""
        return self._link(PREVIOUS)

    def tried(self) -> str | None:
        """Name of the version that is on trial beside the current one; None where nobody can tell."""
        try:
            candidate = read_candidate(self.root)
        except (OSError, CandidateError):
            return None
        return None if candidate is None else candidate.name

    def path(self, name: str) -> Path:
        """Directory of a version.

        Raises:
            StoreError: There is none of this name.
        """
        path = self.root / VERSIONS / name
        if _is_name(name) is None or not path.is_dir():
            raise StoreError(f"{self.root}: expected one of the versions {self.names()}, got {name!r}")
        return path

    def add(self, bundle: Path, name: str | None = None) -> str:
        """Copy a bundle into the store, whole or not at all; it is served once it is activated.

        Args:
            bundle: Its directory.
            name: Of the version; by default that of the bundle's model.

        Returns:
            The version's name.

        Raises:
            StoreError: The name is taken, or no name.
            BundleError: It has no manifest that can be read.
        """
        from service.features.files import new_directory  # noqa: PLC0415 - a supervisor loads no numpy

        manifest_path = bundle / MANIFEST_FILE
        try:
            manifest = decode_manifest(manifest_path.read_bytes(), str(manifest_path))
        except OSError as error:
            raise BundleError(f"{manifest_path}: expected a bundle's manifest, got {error.strerror}") from error
        name = manifest.model_id if name is None else name
        if _is_name(name) is None:
            raise StoreError(f"version: expected letters, digits, '.', '_' or '-', 128 at most, got {name!r}")
        try:
            with new_directory(self.root / VERSIONS / name) as staged:
                shutil.copytree(bundle, staged, symlinks=True, dirs_exist_ok=True)
        except FileExistsError:
            raise StoreError(f"{self.root}: expected a name that is not taken, got {name!r}") from None
        return name

    def activate(self, name: str) -> None:
        """Make a version the current one; a service that watches the store takes it up.

        Raises:
            StoreError: There is none of this name.
        """
        self.path(name)
        with self.alone():
            before = self.current()
            if before == name:
                return
            if before is not None:
                self._point(PREVIOUS, before)
            self._point(CURRENT, name)

    def rollback(self) -> str:
        """Make the version before the current one current again, and return its name.

        Raises:
            StoreError: There is none.
        """
        name = self.previous()
        if name is None or name == self.current():
            raise StoreError(f"{self.root}: expected a version before {self.current()!r}, got none")
        self.activate(name)
        return name

    def prune(self, keep: int) -> list[str]:
        """Remove all but the latest versions, the current, the previous and the one on trial; what was removed.

        Processes that still serve a removed version keep what they have mapped.
        """
        with self.alone():
            names = self.names()
            kept = {self.current(), self.previous(), self.tried(), *names[max(0, len(names) - keep) :]}
            removed = [name for name in names if name not in kept]
            for name in removed:
                # Renamed first: it is gone at once, and whole while it was there.
                aside = self.root / VERSIONS / f".{name}.removed"
                (self.root / VERSIONS / name).rename(aside)
                shutil.rmtree(aside)
        return removed

    def _link(self, link: str) -> str | None:
        try:
            target = (self.root / link).resolve(strict=True)
        except (OSError, RuntimeError):  # there is none, it leads nowhere, or round in circles
            return None
        inside = target.parent == (self.root / VERSIONS).resolve() and target.is_dir()
        return target.name if inside and _is_name(target.name) else None

    def _point(self, link: str, name: str) -> None:
        from service.features.files import sync  # noqa: PLC0415 - a supervisor loads no numpy

        aside = self.root / f".{link}.new"
        with contextlib.suppress(FileNotFoundError):  # of somebody who did not come to an end
            aside.unlink()
        aside.symlink_to(Path(VERSIONS) / name, target_is_directory=True)
        aside.replace(self.root / link)
        sync(self.root)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from changing the store meanwhile; the kernel lets go for one that dies."""
        with (self.root / _LOCK).open("a") as file:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
