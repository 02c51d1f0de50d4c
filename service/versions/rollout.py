"""Which version every worker is to serve: looks at what is deployed, and takes back what turns out bad.

A version is proven by the first worker that serves it: a process of its own has read it, checked its digests and scored
its golden rows, while others served. Until then, whatever goes wrong means that it is refused. Later failures are tried
again, and if they stay, all workers go back to the version before. At the start there is nobody who serves: then the
version before the current one is tried.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from service.bundle_format.manifest import BundleError
from service.logging import get_logger
from service.versions.store import StoreError, deployed, deployed_before

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.versions.store import Deployed

__all__ = ["Outcome", "Rollout", "reason_of"]

_ATTEMPTS: Final = 3
_RETRY_SECONDS: Final = 2.0
# Kinds of errors, as a label's values: few, whatever a bundle does.
_REASONS: Final = {
    "BundleMissingError": "missing",
    "BundleCorruptError": "corrupt",
    "BundleFormatError": "format",
    "BundleChangedError": "changed",
    "BundlePrecisionError": "precision",
    "BundleSignatureError": "signature",
    "SelfTestError": "golden_rows",
    "ScorerError": "graph",
    "StoreError": "no_version",
    "crashed": "crashed",
    "timeout": "timeout",
}

_log: Final = get_logger("service.workers.supervisor")


def reason_of(kind: str) -> str:
    """The label of a kind of error."""
    return _REASONS.get(kind, "other")


def _kind_of(error: Exception) -> str:
    return "BundleMissingError" if isinstance(error, OSError) else type(error).__name__


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a change of versions ended.

    Attributes:
        outcome: "loaded", "refused" (nothing was changed), "undone" (all went back), or "fell_back" (at the start, to
            the version before).
        version: Which version it was.
        reason: Why; empty if it was loaded.
        detail: What was expected and what came.
        at: When, in seconds of the epoch.
        seconds: How long it took.
    """

    outcome: str
    version: str
    reason: str
    detail: str
    at: float
    seconds: float


class Rollout:
    """The version that is served, and the one that is to be.

    Args:
        bundle: A bundle, or a store of them.
        count: Told the outcome and the reason of every change.

    Attributes:
        good: The version that all workers serve or served last.
        target: The version that all are to serve; `good` unless a change is under way.
        last: How the last change ended.
        refused: What is deployed was refused, and something else is served.
        ended: How many changes have ended.
    """

    def __init__(self, bundle: Path, count: Callable[[str, str], None]) -> None:
        self._bundle = bundle
        self._count = count
        self._refused: set[str] = set()
        self._unreadable = ""
        self._attempts = 0
        self._retry_at = 0.0
        self._began = 0.0
        self._crashes = 0
        self.refused = False
        self.ended = 0
        self.good: Deployed | None = None
        self.target: Deployed | None = None
        self.last: Outcome | None = None

    def begin(self) -> None:
        """Read what is deployed at the start; whatever else is wrong with it, the first worker says."""
        try:
            self.good = self.target = deployed(self._bundle)
        except (OSError, BundleError, StoreError) as error:
            self._unreadable = str(error)
            self._fall_back(_kind_of(error), str(error))

    def start_failed(self, version: Deployed | None, kind: str, detail: str, *, sure: bool) -> bool:
        """A worker could not serve, and nobody has served yet.

        Args:
            version: What it was to serve.
            kind: Name of the error's class, or what else happened.
            detail: Its message.
            sure: It refused it; otherwise it may have ended for some other reason, and is believed the third time.

        Returns:
            Whether `target` is another version than that now.
        """
        if version != self.good:
            return True
        self._crashes += not sure
        if version is None or not (sure or self._crashes >= _ATTEMPTS):
            return False
        self._refused.add(version.manifest_sha256)
        return self._fall_back(kind, detail)

    def _fall_back(self, kind: str, detail: str) -> bool:
        before = deployed_before(self._bundle)
        if before is None or before.manifest_sha256 in self._refused:
            return False
        bad = self._bundle.name if self.good is None else self.good.version
        self.good = self.target = before
        self._end("fell_back", bad, kind, detail)
        return True

    def look(self, *, again: bool = False) -> None:
        """See whether another version is deployed.

        Args:
            again: Also take one that was refused before.
        """
        try:
            found = deployed(self._bundle)
        except (OSError, BundleError, StoreError) as error:
            if again or str(error) != self._unreadable:
                self._unreadable = str(error)
                self._end("refused", self._bundle.name, _kind_of(error), str(error))
            return
        self._unreadable = ""
        if found.manifest_sha256 in self._refused and found != self.target and not again:
            self.refused = True
            return
        self.refused = False
        if found == self.target:
            return
        self._refused.discard(found.manifest_sha256)
        self.target, self._attempts, self._retry_at, self._began = found, 0, 0.0, monotonic()
        _log.info("reload_began", version=found.version, model=found.model_id, bundle=str(found.path))

    @property
    def may_start(self) -> bool:
        """Whether a process with the target may be started now; not shortly after one failed."""
        return monotonic() >= self._retry_at

    @property
    def due(self) -> float:
        """When one may be started (`monotonic`, seconds)."""
        return self._retry_at

    def done(self) -> None:
        """Every worker serves the target."""
        if self.target is not None and self.target != self.good:
            self.good = self.target
            self._end("loaded", self.target.version, "", "")

    def failed(self, kind: str, detail: str, *, proven: bool) -> None:
        """A process that was to serve the target did not come to it.

        Args:
            kind: Name of the error's class, or what else happened.
            detail: Its message.
            proven: Another worker serves the target.
        """
        target = self.target
        if target is None or target == self.good:
            # On the way back to what was served: there is nothing else to serve.
            self._retry_at = monotonic() + _RETRY_SECONDS
            _log.error("reload_failed", reason=reason_of(kind), error=detail)
            return
        self._attempts += 1
        if proven and self._attempts < _ATTEMPTS:
            self._retry_at = monotonic() + _RETRY_SECONDS
            _log.warning("reload_retried", version=target.version, reason=reason_of(kind), error=detail)
            return
        self._refused.add(target.manifest_sha256)
        self.target, self._retry_at = self.good, 0.0
        self._end("undone" if proven else "refused", target.version, kind, detail)

    def status(self) -> dict[str, Any]:
        """What is served and what is to be, and how the last change ended."""
        return {
            "serves": None if self.good is None else self.good.version,
            "changing": self.target != self.good,
            "target": None if self.target is None else self.target.version,
            "deployed_refused": self.refused,
            "changes": self.ended,
            "last_change": None if self.last is None else asdict(self.last),
        }

    def _end(self, outcome: str, version: str, kind: str, detail: str) -> None:
        reason = reason_of(kind) if kind else ""
        seconds = round(monotonic() - self._began, 3) if self._began else 0.0
        self.last = Outcome(outcome, version, reason, detail, time(), seconds)
        self.ended += 1
        self._count(outcome, reason)
        self.refused = outcome != "loaded"
        facts: dict[str, Any] = {"version": version, "seconds": seconds}
        if outcome == "loaded":
            _log.info("reload_loaded", **facts)
        else:
            served = None if self.good is None else self.good.version
            _log.error(f"reload_{outcome}", reason=reason, error=detail, serves=served, **facts)
