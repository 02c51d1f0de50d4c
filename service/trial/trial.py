"""What the supervisor makes of the candidate in the store: what is to be tried, and what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from service.bundle_format.manifest import BundleError
from service.logging import get_logger
from service.versions.store import StoreError
from service.versions.trials import on_trial

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.trial.candidate import Candidate
    from service.versions.store import Deployed

__all__ = ["Trial"]

_log: Final = get_logger("service.trial")


class Trial:
    """The trial that the store asks for.

    Args:
        bundle: A bundle, or a store of them.
        end: Told of everything that is refused: version, kind of error, message.

    Attributes:
        wanted: What is to be tried, and how; None for nothing, or nothing that was not refused.
        refused: The store asks for a trial that was refused.
        fault: What was refused last, and why.
    """

    def __init__(self, bundle: Path, end: Callable[[str, str, str], None]) -> None:
        self._bundle = bundle
        self._tell = end
        self._refused: set[str] = set()
        self._unreadable = ""
        self.wanted: tuple[Candidate, Deployed] | None = None
        self.refused = False
        self.fault = ""

    @property
    def canary(self) -> Deployed | None:
        """What is to score a share of the requests."""
        return self._of("canary")

    @property
    def shadow(self) -> Deployed | None:
        """What is to score them all off the response path."""
        return self._of("shadow")

    @property
    def share(self) -> float:
        """Of the routing keys that a canary is to score."""
        return 0.0 if self.wanted is None else self.wanted[0].share

    def look(self, *, again: bool = False) -> None:
        """See what the store asks for.

        Args:
            again: Also take what was refused before.
        """
        try:
            found = on_trial(self._bundle)
        except (OSError, BundleError, StoreError) as error:
            # Whatever was meant: nothing is tried on a guess.
            self.wanted, self.refused = None, True
            if again or str(error) != self._unreadable:
                self._unreadable = str(error)
                kind = "BundleMissingError" if isinstance(error, OSError) else type(error).__name__
                self._end(self._bundle.name, kind, str(error))
            return
        self._unreadable = ""
        if found is not None and found[1].manifest_sha256 in self._refused and not again:
            self.wanted, self.refused = None, True
            return
        if found is not None:
            self._refused.discard(found[1].manifest_sha256)
        if found != self.wanted:
            _log.info("trial_wanted", **({} if found is None else found[0].facts()))
        self.wanted, self.refused = found, False

    def refuse(self, version: Deployed, kind: str, detail: str) -> None:
        """Try a version no more until told.

        Args:
            version: Which.
            kind: Name of the error's class, or what else happened.
            detail: Its message.
        """
        self._refused.add(version.manifest_sha256)
        if self.wanted is not None and self.wanted[1] == version:
            self.wanted, self.refused = None, True
        self._end(version.version, kind, detail)

    def _end(self, version: str, kind: str, detail: str) -> None:
        self.fault = f"{version}: refused: {detail}"
        self._tell(version, kind, detail)

    def status(self) -> dict[str, Any] | None:
        """What is tried; None for nothing."""
        return None if self.wanted is None else self.wanted[0].facts()

    def _of(self, mode: str) -> Deployed | None:
        return self.wanted[1] if self.wanted is not None and self.wanted[0].mode == mode else None
