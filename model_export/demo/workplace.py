"""The directory of a demonstration: what is in it, and what may be deleted there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.bundle import BundleError, read_bundle

if TYPE_CHECKING:
    from pathlib import Path

MARKER: Final = ".reaction-demo"
"""Says that the directory is a demonstration's, so that its parts may be deleted and made anew."""

PARTS: Final = ("data", "run", "run.partial", "bundle", "request.json", "service.log")


class DemoError(Exception):
    """The demonstration cannot go on; the message says where, what was expected and what was found."""


@dataclass(frozen=True)
class Workplace:
    """Paths of a demonstration.

    Attributes:
        root: The directory that holds everything.
    """

    root: Path

    @property
    def data(self) -> Path:
        """Prepared data."""
        return self.root / "data"

    @property
    def run(self) -> Path:
        """The finished run."""
        return self.root / "run"

    @property
    def bundle(self) -> Path:
        """What is served."""
        return self.root / "bundle"

    @property
    def request(self) -> Path:
        """One request, ready for curl."""
        return self.root / "request.json"

    @property
    def log(self) -> Path:
        """What the service says."""
        return self.root / "service.log"

    def has_bundle(self) -> bool:
        """Whether a whole bundle is there, every digest as it should be."""
        try:
            read_bundle(self.bundle)
        except BundleError:
            return False
        return True

    def clear(self) -> None:
        """Make the directory if need be, and delete what an earlier demonstration left there, finished or not.

        Raises:
            DemoError: Something is in the way that no demonstration made, or the directory cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            marker = self.root / MARKER
            if not marker.exists():
                foreign = [name for name in PARTS if (self.root / name).exists()]
                if foreign:
                    raise DemoError(
                        f"{self.root}: expected a new directory or one of an earlier demonstration, "
                        f"got one with {foreign[0]!r} of something else; choose another with --dir"
                    )
                marker.write_text("Made by python -m model_export.demo, which deletes and makes anew what it made.\n")
            unfinished = [path for name in PARTS for path in self.root.glob(f".{name}.*")]
            for path in (*(self.root / name for name in PARTS), *unfinished):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise DemoError(f"{self.root}: expected a directory that can be written, got {error}") from error
