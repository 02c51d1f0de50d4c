"""Files of an artefact: digests, confined paths, and directories that appear whole or not at all.

No path is followed out of its directory: an artefact may come from elsewhere, and a digest says nothing about a
file that it was never asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "FileDigest",
    "FileState",
    "PathError",
    "confined",
    "digest_bytes",
    "digest_file",
    "digest_files",
    "new_directory",
    "open_file",
    "read_file",
    "replaced_file",
    "state_of",
    "sync",
    "write_file",
]

_CHUNK_BYTES: Final = 1 << 17
_LARGE_BYTES: Final = 1 << 24  # tens of milliseconds, where a thread costs a tenth of one
_DIGEST_THREADS: Final = 4
# A pipe or a device that came into a file's place is not waited for, a link there not followed.
_CAREFUL: Final = ("O_NONBLOCK", "O_CLOEXEC", "O_NOFOLLOW", "O_NOCTTY")
_FLAGS: Final = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in _CAREFUL)


class PathError(ValueError):
    """A path that leaves its directory, or is no regular file."""


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What a file must be: its size in bytes and its SHA-256 in lower-case hexadecimal."""

    bytes: int
    sha256: str


class FileState(NamedTuple):
    """A file's identity and times, as `lstat` gives them; times in nanoseconds."""

    device: int
    inode: int
    mode: int
    bytes: int
    modified: int
    changed: int


def digest_bytes(content: bytes | memoryview) -> FileDigest:
    """Digest of content that is in memory or mapped."""
    return FileDigest(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def digest_file(path: Path) -> FileDigest:
    """Digest of a file, read in pieces that stay in a core's cache.

    Raises:
        PathError: No regular file.
        OSError: It cannot be read.
    """
    hasher = hashlib.sha256()
    size = 0
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    with open_file(path) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            size += count
    return FileDigest(bytes=size, sha256=hasher.hexdigest())


def digest_files(paths: Iterable[Path]) -> dict[Path, FileDigest]:
    """Digests of files, large ones side by side: hashing lets go of the interpreter, and start-up waits for it."""
    largest_first = sorted(paths, key=lambda path: path.stat().st_size, reverse=True)
    large = [path for path in largest_first if path.stat().st_size >= _LARGE_BYTES]
    if len(large) < 2:  # noqa: PLR2004 - nothing to do side by side
        return {path: digest_file(path) for path in largest_first}
    with ThreadPoolExecutor(min(len(large), _DIGEST_THREADS), thread_name_prefix="digest") as pool:
        return dict(zip(largest_first, pool.map(digest_file, largest_first), strict=True))


def confined(root: Path, relative: str) -> Path:
    """Path of a regular file that lies inside root and is reached through no symbolic link.

    Args:
        root: Directory of the artefact.
        relative: Path in POSIX form, as an artefact's JSON states it.

    Raises:
        PathError: An absolute path, one with `..`, `.`, an empty part, a backslash or a NUL, a symbolic link on the
            way, or something other than a regular file at the end.
        FileNotFoundError: No such file.
    """
    parts = relative.split("/")
    if not relative.isprintable() or "\\" in relative or any(part in {"", ".", ".."} for part in parts):
        raise PathError(f"{relative!r}: expected a relative path of plain names, got one that leaves its directory")
    if PurePosixPath(relative).is_absolute() or Path(relative).is_absolute():
        raise PathError(f"{relative!r}: expected a relative path, got an absolute one")
    path = root
    for part in parts:
        path = path / part
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise PathError(f"{relative!r}: expected plain files and directories, got a symbolic link at {part!r}")
    if not stat.S_ISREG(mode):
        raise PathError(f"{relative!r}: expected a regular file, got something else")
    return path


def open_file(path: Path) -> FileIO:
    """Open a regular file for reading, unbuffered; no link at the end of the path is followed.

    Raises:
        PathError: Something other than a regular file.
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, _FLAGS)
    file = FileIO(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise PathError(f"{path}: expected a regular file, got something else")
    return file


def read_file(path: Path, most: int) -> bytes:
    """A regular file's content, of which no more than `most` bytes are ever held.

    Raises:
        PathError: It is longer, or no regular file.
        OSError: It cannot be read.
    """
    pieces: list[bytes] = []
    left = most + 1
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        while size <= most and left and (piece := file.read(min(left, _CHUNK_BYTES))):
            pieces.append(piece)
            left -= len(piece)
    if size > most or not left:
        raise PathError(f"{path}: expected at most {most} bytes, got {max(size, most + 1 - left)}")
    return b"".join(pieces)


def state_of(path: Path) -> FileState:
    """What tells that a file is still the one it was. A writer cannot set the time of a change at will.

    Raises:
        OSError: No such file.
    """
    found = path.lstat()
    return FileState(found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def write_file(path: Path, content: bytes) -> FileDigest:
    """Write a new file and flush it to disk.

    Raises:
        FileExistsError: The file is there already.
    """
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return digest_bytes(content)


@contextlib.contextmanager
def replaced_file(path: Path, *, aside: Path | None = None) -> Iterator[Path]:
    """Fill a file that is not there yet, and put it in place of another only when it is complete and on disk.

    Args:
        path: What becomes of it; what was there is there until then.
        aside: Directory in which it is filled, on the same file system; by default its own.

    Yields:
        The empty file to fill. It is gone if that fails.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=aside or path.parent)
    os.close(handle)
    staged = Path(name)
    try:
        yield staged
        sync(staged)
        staged.chmod(0o644)  # mkstemp makes it private; others read it
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Flush a file, or the names in a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(root: Path) -> None:
    """Flush every file and directory below root, and root itself."""
    for folder, _, names in os.walk(root):
        for name in names:
            sync(Path(folder) / name)
        sync(Path(folder))


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(f"{path}: expected a path that does not exist, got one that does")


@contextlib.contextmanager
def new_directory(destination: Path) -> Iterator[Path]:
    """Build a directory beside its destination, and rename it there only when it is complete and on disk.

    Args:
        destination: Must not exist; its parent is made if absent.

    Yields:
        The empty directory to fill.

    Raises:
        FileExistsError: The destination exists, before or after the filling.
    """
    _refuse_existing(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent))
    try:
        yield staged
        staged.chmod(0o755)  # mkdtemp makes it private; an artefact is read by the service's own user
        _sync_tree(staged)
        # rename(2) would replace an empty directory that came up meanwhile, and fails on any other.
        _refuse_existing(destination)
        staged.rename(destination)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    sync(destination.parent)
