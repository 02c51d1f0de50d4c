"""Files of recorded requests in a directory: one a process at a time, of bounded size, and only so many of them.

Whatever a disk does is told by an exception and leaves no half of a line behind, as far as it can be taken back.
"""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from service.recording.records import NAME, encode_header

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RecordFiles"]


class RecordFiles:
    """Appends lines to one file, and begins another when that is long enough.

    Args:
        directory: Where they lie; made if it is not there.
        most_bytes: When another file is begun.
        most_files: How many may lie there, those of other processes included; the oldest are removed.
    """

    def __init__(self, directory: Path, *, most_bytes: int, most_files: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._file: int | None = None
        self._size = 0

    def append(self, lines: bytes) -> None:
        """Write whole lines.

        Raises:
            OSError: They could not be written; nothing of them is in the file.
        """
        file = self._writable()
        try:
            _write(file, lines)
        except OSError:
            try:
                os.ftruncate(file, self._size)
            except OSError:  # whoever reads it finds a last line without its end
                self.close()
            raise
        self._size += len(lines)

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None

    def _writable(self) -> int:
        if self._file is not None and (self._size >= self._most_bytes or not os.fstat(self._file).st_nlink):
            self.close()  # long enough, or removed by somebody
        if self._file is None:
            self._file = self._begin()
        return self._file

    def _begin(self) -> int:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_oldest()
        now = datetime.now(UTC)
        path = self._directory / f"requests-{now:%Y%m%dT%H%M%S.%f}Z-{os.urandom(4).hex()}.jsonl"
        # Its owner's alone: it holds what people did.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        header = encode_header(os.getpid())
        try:
            _write(file, header)
        except OSError:
            os.close(file)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        self._size = len(header)
        return file

    def _remove_oldest(self) -> None:
        """Make room for one more."""
        names = sorted(path.name for path in self._directory.iterdir() if NAME(path.name))
        for name in names[: max(0, len(names) + 1 - self._most_files)]:
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                (self._directory / name).unlink()


def _write(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]
