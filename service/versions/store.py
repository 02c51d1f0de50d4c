"""The bundle store: versions side by side, and which of them is served.

::

    store/ versions/<name>/   bundles, each as export wrote it
           current            symbolic link to the one that is served
           previous           the one before it, for a rollback
           good               the last that a service proved: all its workers served it
           good-before        the one that it proved before that
           candidate.json     the one on trial beside it, and how (`service.trial`)

A version appears whole (written aside, synced, renamed) and is never changed. `current` changes by one rename, so that
whoever looks sees the old version or the new one. What is served is a version's own directory, not the link to it.

`good` changes likewise, and by services alone (`service.versions.proven`). After two bad deploys, one upon the other,
`previous` is bad too: `good` is what is served still, so that it is never removed, and the way back leads there, and
from there to `good-before`: never to what was not proven, as long as anything was.
A service that may not write to its store cannot say so; then there are `current` and `previous`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.bundle_format.manifest import MANIFEST_FILE, BundleError, decode_manifest
from service.trial.candidate import CandidateError, read_candidate
from service.versions.described import Deployed, describe_bundle

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Deployed",
    "Store",
    "StoreError",
    "deployed",
    "describe_bundle",
    "fallbacks",
    "is_store",
    "served_bundle",
]

VERSIONS: Final = "versions"
CURRENT: Final = "current"
PREVIOUS: Final = "previous"
GOOD: Final = "good"
GOOD_BEFORE: Final = "good-before"
_LOCK: Final = ".lock"
_is_name: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}").fullmatch


class StoreError(ValueError):
    """A store, or what it is asked for, is not as it has to be; the message says what was expected and what came."""


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


def fallbacks(path: Path) -> list[Deployed]:
    """What may be served in place of the current version of the store at a path, as far as it can be read.

    The one before it, which was meant to be served last, then the last two that a service proved.
    """
    store = Store(path)
    names = dict.fromkeys((store.previous(), store.good(), store.good_before())) if is_store(path) else {}
    found = []
    for name in names:
        if name is not None and name != store.current():
            with contextlib.suppress(OSError, BundleError):
                found.append(describe_bundle(path / VERSIONS / name))
    return found


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

    def good(self) -> str | None:
        """Name of the last version that a service proved; None where none did, or none that could say so."""
        return self._link(GOOD)

    def good_before(self) -> str | None:
        """Name of the version that was proven before that one; None where there was none, or it was removed."""
        return self._link(GOOD_BEFORE)

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
            StoreError: The name is taken, or no name; or the root is a bundle, or takes no more.
            BundleError: It has no manifest that can be read.
        """
        self._refuse_bundle()
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
        except shutil.Error as error:  # of many files, each with its paths and why
            failed = error.args[0]
            raise StoreError(
                f"{self.root}: expected to copy {bundle}, got {failed[0][2]}; of {len(failed)} files; nothing was added"
            ) from None
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
            if name == self.good():  # what is left for it was not proven: no way leads back there
                before = self.good_before()
                (self.root / PREVIOUS).unlink(missing_ok=True)
            if before is not None:
                self._point(PREVIOUS, before)
            self._point(CURRENT, name)

    def rollback(self) -> str:
        """Make the last proven version that is not current the current one again, and return its name.

        That is `good`, or, where that is current, the one proven before it. Where nobody says which these are, it is
        the version before the current one.

        Raises:
            StoreError: There is none.
        """
        current = self.current()
        known = (self.good(), self.good_before(), self.previous())
        name = next((name for name in known if name not in {None, current}), None)
        if name is None:
            raise StoreError(f"{self.root}: expected a version before {current!r} that is not known as bad, got none")
        self.activate(name)
        return name

    def prove(self, name: str) -> bool:
        """Note that a version is served by all workers of a service.

        Returns:
            Whether that is noted now; not while somebody else changes the store, for whom nobody waits.

        Raises:
            StoreError: There is none of this name.
            OSError: The store cannot be written to.
        """
        if self.good() == name:
            return True
        self.path(name)
        try:
            with self.alone(wait=False):
                before = self.good()
                if before is not None and before != name:
                    self._point(GOOD_BEFORE, before)
                self._point(GOOD, name)
        except BlockingIOError:
            return False
        return True

    def prune(self, keep: int) -> list[str]:
        """Remove all but the latest versions; what was removed.

        The current, the previous, the one on trial and the last two that were proven stay, however old.

        Processes that still serve a removed version keep what they have mapped.
        """
        with self.alone():
            names = self.names()
            needed = {self.current(), self.previous(), self.good(), self.good_before(), self.tried()}
            kept = {*needed, *names[max(0, len(names) - keep) :]}
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
        aside = self.root / f".{link}.new"
        with contextlib.suppress(FileNotFoundError):  # of somebody who did not come to an end
            aside.unlink()
        aside.symlink_to(Path(VERSIONS) / name, target_is_directory=True)
        aside.replace(self.root / link)
        descriptor = os.open(self.root, os.O_RDONLY)  # not `sync` of files: with it comes numpy, into a supervisor
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _refuse_bundle(self) -> None:
        """A bundle is what its manifest lists: nothing may be written into it."""
        if os.path.lexists(self.root / MANIFEST_FILE):
            raise StoreError(f"{self.root}: expected a store of versions, got a bundle: it holds {MANIFEST_FILE}")

    @contextlib.contextmanager
    def alone(self, *, wait: bool = True) -> Iterator[None]:
        """Keep others from changing the store meanwhile; the kernel lets go for one that dies.

        Raises:
            StoreError: The root is a bundle.
            BlockingIOError: Somebody else is changing it, and nobody waits.
            OSError: It cannot be written to.
        """
        self._refuse_bundle()
        with (self.root / _LOCK).open("a") as file:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield
